"""Addresses of brokers: URLs as people write them, and TLS."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pika

from jobs.errors import ConfigurationError
from jobs.transports.rabbitmq import timeouts

TLS_OPTIONS = {"cafile", "certfile", "keyfile"}


@dataclass(frozen=True)
class Address:
    """One broker: how to reach it, and how to name it to people."""

    text: str
    parameters: pika.ConnectionParameters

    def __str__(self) -> str:
        return self.text


def addresses(urls: str) -> list[Address]:
    """The brokers named by one URL, or by several separated by commas.

    Raises ConfigurationError rather than guess what a URL means. The error names the URL
    without its password.
    """
    found = [_address(url.strip()) for url in urls.split(",") if url.strip()]
    if not found:
        raise ConfigurationError("RABBITMQ_URL names no broker")
    return found


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refusal(url, "its host or port cannot be read") from None
    if (problem := _problem(parts)) is not None:
        raise _refusal(url, problem)
    tls = parts.scheme == "amqps"
    user = unquote(parts.username or "guest")
    path = parts.path[1:]
    parameters = pika.ConnectionParameters(
        host=parts.hostname or "",
        port=port or (5671 if tls else 5672),
        virtual_host=unquote(path) or "/",
        credentials=pika.PlainCredentials(user, unquote(parts.password or "guest")),
        ssl_options=_tls(url, parts) if tls else None,
        heartbeat=timeouts.HEARTBEAT_SECONDS,
        socket_timeout=timeouts.CONNECT_SECONDS,
        stack_timeout=2 * timeouts.CONNECT_SECONDS,
        connection_attempts=1,
    )
    shown_path = "" if parameters.virtual_host == "/" else path
    return Address(
        f"{parts.scheme}://{user}:***@{parameters.host}:{parameters.port}/{shown_path}",
        parameters,
    )


def _problem(parts: SplitResult) -> str | None:
    """What is wrong with the URL, if anything is."""
    wrong = {
        "it must begin with amqp:// or amqps://": parts.scheme not in ("amqp", "amqps"),
        "it names no host": not parts.hostname,
        "it has a user and no password": parts.username and parts.password is None,
        "a slash in the virtual host's name is written %2F": "/" in parts.path[1:],
        "a # in it is written %23": parts.fragment,
        "only amqps:// takes options": parts.query and parts.scheme == "amqp",
    }
    return next((problem for problem, is_so in wrong.items() if is_so), None)


def _tls(url: str, parts: SplitResult) -> pika.SSLOptions:
    """Certificates are always verified. `?cafile=` names an authority of one's own."""
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := options.keys() - TLS_OPTIONS:
        raise _refusal(
            url,
            f"it has the option {min(unknown)!r}, and knows only cafile, certfile and "
            "keyfile",
        )
    try:
        context = ssl.create_default_context(cafile=options.get("cafile"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as error:
        raise _refusal(url, f"its certificates cannot be read ({error})") from None
    return pika.SSLOptions(context, parts.hostname)


def _refusal(url: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"RABBITMQ_URL is {_redacted(url)!r}: {problem}, as in "
        "amqp://user:password@host:5672/vhost"
    )


def _redacted(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^:/@]*:).*@", r"\1***@", url)
