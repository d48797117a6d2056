"""Where the brokers are: URLs as people write them, and TLS."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

import pika

from jobs.errors import ConfigurationError
from jobs.transports.rabbitmq import timeouts


@dataclass(frozen=True)
class Address:
    """One broker: how to reach it, and how to name it to people."""

    text: str
    parameters: pika.ConnectionParameters

    def __str__(self) -> str:
        return self.text


def addresses(urls: str) -> list[Address]:
    """The brokers named by one URL, or by several separated by commas.

    Raises ConfigurationError, which names the URL without its password, for anything that
    would otherwise be guessed at.
    """
    found = [_address(url.strip()) for url in urls.split(",") if url.strip()]
    if not found:
        raise ConfigurationError("RABBITMQ_URL names no broker")
    return found


def redacted(url: str) -> str:
    """The URL as it may be shown: without its password."""
    return re.sub(r"(://[^:/@]*:).*@", r"\1***@", url)


def _address(url: str) -> Address:
    def refuse(rule: str) -> ConfigurationError:
        return ConfigurationError(
            f"RABBITMQ_URL is {redacted(url)!r}: {rule}, as in "
            "amqp://user:password@host:5672/vhost"
        )

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refuse("its host or port cannot be read") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise refuse("it must begin with amqp:// or amqps://")
    if not parts.hostname:
        raise refuse("it names no host")
    if parts.username and parts.password is None:
        raise refuse("it has a user and no password")
    if "/" in parts.path[1:]:
        raise refuse("a slash in the virtual host's name is written %2F")
    if parts.fragment:
        raise refuse("a # in it is written %23")

    secure = parts.scheme == "amqps"
    user = unquote(parts.username or "guest")
    vhost = unquote(parts.path[1:]) or "/"
    options = pika.ConnectionParameters(
        host=parts.hostname,
        port=port or (5671 if secure else 5672),
        virtual_host=vhost,
        credentials=pika.PlainCredentials(user, unquote(parts.password or "guest")),
        ssl_options=_tls(parts.query, parts.hostname, refuse) if secure else None,
        heartbeat=timeouts.HEARTBEAT_SECONDS,
        socket_timeout=timeouts.CONNECT_SECONDS,
        stack_timeout=2 * timeouts.CONNECT_SECONDS,
        connection_attempts=1,
    )
    if parts.query and not secure:
        raise refuse("only amqps:// takes options")
    text = f"{parts.scheme}://{user}:***@{options.host}:{options.port}"
    return Address(f"{text}/{'' if vhost == '/' else parts.path[1:]}", options)


def _tls(
    query: str, host: str, refuse: Callable[[str], ConfigurationError]
) -> pika.SSLOptions:
    """Always verified. `?cafile=` for an authority of one's own, `certfile`, `keyfile`."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - {"cafile", "certfile", "keyfile"}
    if unknown:
        raise refuse(
            f"it has the option {min(unknown)!r}, and knows cafile, certfile and keyfile"
        )
    try:
        context = ssl.create_default_context(cafile=options.get("cafile"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as error:
        raise refuse(f"its certificates cannot be read ({error})") from None
    return pika.SSLOptions(context, host)
