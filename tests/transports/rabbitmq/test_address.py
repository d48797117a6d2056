"""Addresses: read as they are written, and refused where they are ambiguous."""

from __future__ import annotations

import pika
import pytest

from jobs.errors import ConfigurationError
from jobs.transports.rabbitmq import addresses


@pytest.mark.parametrize(
    ("url", "shown", "host", "port", "vhost", "user", "password"),
    [
        ("amqp://h", "amqp://guest:***@h:5672/", "h", 5672, "/", "guest", "guest"),
        ("amqp://h/", "amqp://guest:***@h:5672/", "h", 5672, "/", "guest", "guest"),
        ("amqp://u:p@h:1/v", "amqp://u:***@h:1/v", "h", 1, "v", "u", "p"),
        ("amqps://u:p@h/v", "amqps://u:***@h:5671/v", "h", 5671, "v", "u", "p"),
        (
            "amqp://u:p%40s%2Fs%3A@h/a%2Fb",
            "amqp://u:***@h:5672/a%2Fb",
            "h",
            5672,
            "a/b",
            "u",
            "p@s/s:",
        ),
    ],
)
def test_url_is_read_as_it_is_written(
    url: str, shown: str, host: str, port: int, vhost: str, user: str, password: str
) -> None:
    (address,) = addresses(url)

    assert str(address) == shown
    options = address.parameters
    assert (options.host, options.port, options.virtual_host) == (host, port, vhost)
    credentials = options.credentials
    assert isinstance(credentials, pika.PlainCredentials)
    assert (credentials.username, credentials.password) == (user, password)
    assert bool(options.ssl_options) == url.startswith("amqps")


def test_urls_separated_by_commas_are_several_brokers() -> None:
    found = addresses("amqp://u:p%2C@one/, amqp://u:p@two:5673/")

    assert [address.parameters.host for address in found] == ["one", "two"]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://u:secret@h/", "it must begin with amqp:// or amqps://"),
        ("localhost", "it must begin with amqp:// or amqps://"),
        ("amqp://u:secret@", "it names no host"),
        ("amqp://u@h/", "it has a user and no password"),
        ("amqp://u:secret@h:port/", "its host or port cannot be read"),
        ("amqp://u:secret@h/a/b", "a slash in the virtual host's name is written %2F"),
        ("amqp://u:sec#ret@h/", "it has a user and no password|# in it|cannot be read"),
        ("amqp://u:secret@h/?heartbeat=0", "only amqps:// takes options"),
        ("amqps://u:secret@h/?verify=no", "it has the option 'verify'"),
        ("amqps://u:secret@h/?cafile=/none", "its certificates cannot be read"),
        (" , ", "names no broker"),
    ],
)
def test_ambiguous_url_is_refused_and_shown_without_its_password(
    url: str, rule: str
) -> None:
    with pytest.raises(ConfigurationError, match=rule) as refused:
        addresses(url)

    assert "secret" not in str(refused.value)
