"""Events: what listeners hear, and what a listener cannot break."""

from __future__ import annotations

import logging
import re
import typing
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs import events
from jobs.events import Event, Resumed

PAGE = Path(__file__).resolve().parent.parent / "docs/events.md"
EVENTS = {
    name: event for name, event in vars(events).items() if isinstance(event, Event)
}


@pytest.fixture
def event() -> Event[Resumed]:
    return Event("queue.resumed", Resumed)


def test_every_listener_gets_the_batch(event: Event[Resumed]) -> None:
    first: list[Sequence[Resumed]] = []
    second: list[Sequence[Resumed]] = []
    event.connect(first.append)
    event.connect(second.append)

    event.send([Resumed("mail"), Resumed("default")])

    assert first == second == [[Resumed("mail"), Resumed("default")]]


def test_connect_is_a_decorator(event: Event[Resumed]) -> None:
    heard: list[Resumed] = []

    @event.connect
    def listener(batch: Sequence[Resumed]) -> None:
        heard.extend(batch)

    event.send([Resumed("mail")])

    assert heard == [Resumed("mail")]
    assert callable(listener)


def test_a_listener_that_is_connected_twice_is_called_once(
    event: Event[Resumed],
) -> None:
    heard: list[Sequence[Resumed]] = []
    listener = heard.append
    event.connect(listener)
    event.connect(listener)

    event.send([Resumed("mail")])

    assert len(heard) == 1


def test_a_disconnected_listener_is_not_called(event: Event[Resumed]) -> None:
    heard: list[Sequence[Resumed]] = []
    listener = event.connect(heard.append)

    event.disconnect(listener)
    event.send([Resumed("mail")])

    assert heard == []
    assert not event.listeners


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()]
)
def test_a_listener_that_raises_is_logged_and_stops_no_other(
    event: Event[Resumed], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Sequence[Resumed]] = []

    def broken(batch: Sequence[Resumed]) -> None:
        raise error

    event.connect(broken)
    event.connect(heard.append)

    event.send([Resumed("mail")])

    assert len(heard) == 1
    [record] = caplog.records
    assert (record.name, record.levelno) == ("jobs.events", logging.ERROR)
    assert "a listener of queue.resumed failed" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[1] is error


def test_a_listener_may_disconnect_itself(event: Event[Resumed]) -> None:
    heard: list[Sequence[Resumed]] = []

    def once(batch: Sequence[Resumed]) -> None:
        event.disconnect(once)
        heard.append(batch)

    event.connect(once)
    event.connect(heard.append)
    event.send([Resumed("mail")])
    event.send([Resumed("mail")])

    assert len(heard) == 3


def test_names_are_those_of_the_module() -> None:
    assert {name.replace("_", ".", 1) for name in EVENTS} == {
        event.name for event in EVENTS.values()
    }


def rows(title: str) -> list[list[str]]:
    """The rows of the table under this heading."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_every_event_and_its_item() -> None:
    listed = {name.strip("`"): item.strip("`") for name, item, *_ in rows("Events")}

    assert listed == {event.name: event.item.__name__ for event in EVENTS.values()}


def test_the_page_lists_every_field_and_its_type() -> None:
    listed: dict[str, dict[str, str]] = {}
    item = ""
    for of, field, kind, meaning in rows("Fields"):
        item = of.strip("`") or item
        listed.setdefault(item, {})[field.strip("`")] = kind.replace("`", "")
        assert meaning

    assert listed == {
        event.item.__name__: fields(event.item) for event in EVENTS.values()
    }


def fields(item: Any) -> dict[str, str]:
    hints = typing.get_type_hints(item, {"datetime": datetime})
    return {name: written(hint) for name, hint in hints.items()}


def written(hint: Any) -> str:
    text = str(hint) if typing.get_args(hint) else hint.__name__
    return re.sub(r"datetime\.datetime", "datetime", text).replace(" | ", " or ")
