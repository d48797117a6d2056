"""A statement: written once for both databases, run over a batch of items.

The batch is a table to the statement: one array per column on PostgreSQL, one JSON text on
SQLite. So the text stays the same whatever the batch's length, and no limit on the number of
parameters is met.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from django.db import connections

from jobs.sql import dialect, prepared
from jobs.sql.prepared import Keep

#: Of each column: its type, in PostgreSQL's words, and how it is read from an item.
Columns: TypeAlias = Mapping[str, tuple[str, Callable[[Any], Any]]]


class Statement:
    """One SQL statement over a table `{batch}`, which has a row for each item.

    `text` is SQL with `{words}`, and there is no other templating:

    `{batch}`: the items as a table named `batch`, with these `columns`. JSON, ids and times
    are text there.
    `{now}`: the database's own time. `{later}`: that plus the column `delay`, in seconds.
    `{id_text}`: the column `id` as UUIDs are written.
    `{in_array}(SELECT …){end_array}`: one of a few values, best looked up one by one.
    `{skip_locked}`: lock these rows, without those that another transaction has locked.
    `{asynchronous_commit}`, `{short_lock_timeout}`: conditions that are true. The first has
    this transaction's commit not wait for the disk, the second has it wait for a lock only
    for LOCK_TIMEOUT; `is_locked` knows the error.
    One of `words`: that piece of SQL, which may use the words above.
    Any other word: a parameter, given to `execute`.

    `keep`: for how long PostgreSQL may keep the plan of a batch of one.
    """

    def __init__(
        self,
        text: str,
        columns: Columns,
        *,
        keep: Keep = Keep.NEVER,
        **words: str,
    ) -> None:
        self._text = text
        self._columns = columns
        self._keep = keep
        self._words = words
        # A cursor could tell, too, but has each of the columns described for that.
        self._returns_rows = text.lstrip().startswith("SELECT") or any(
            "RETURNING" in piece for piece in (text, *words.values())
        )
        self._rendered: dict[str, str] = {}

    def execute(
        self, alias: str, items: Sequence[Any], **parameters: Any
    ) -> list[tuple[Any, ...]]:
        """Run it over all of `items` at once, of which there is at least one.

        Returns the rows that the statement returns, if it does.
        """
        connection, planned = connections[alias], None
        if connection.vendor == "sqlite":
            text = self.render("json")
            parameters |= _json_parameters(self._columns, items)
        elif connection.vendor != "postgresql":
            raise dialect.unsupported(alias)
        elif len(items) == 1:
            text = self.render("row")
            parameters |= _row_parameters(self._columns, items[0])
            planned = prepared.cursor(connection, self._keep)
        else:
            text = self.render("arrays")
            parameters |= _array_parameters(self._columns, items)
        if planned is not None:
            with connection.wrap_database_errors:
                planned.execute(text, parameters, prepare=True)
                return self._fetch(planned)
        with connection.cursor() as cursor:
            cursor.execute(text, parameters)
            return self._fetch(cursor)

    def _fetch(self, cursor: Any) -> list[tuple[Any, ...]]:
        return cursor.fetchall() if self._returns_rows else []

    def execute_last(self, alias: str, item: Any) -> bool:
        """Run it over one item, as the last statement of the open transaction.

        It must return the row that it changed. False if it changed none: then the caller must
        roll back. On PostgreSQL this commits the transaction already, where that is safe;
        otherwise whoever opened the transaction does.
        """
        connection = connections[alias]
        if connection.vendor == "postgresql" and prepared.may_commit(connection):
            text = self.render("row")
            parameters = _row_parameters(self._columns, item)
            return prepared.commit(connection, text, parameters)
        return bool(self.execute(alias, [item]))

    def render(self, shape: str) -> str:
        """The text for a driver, with the batch as a `row`, as `arrays` or as `json`."""
        if (text := self._rendered.get(shape)) is None:
            vendor, table = _SHAPES[shape]
            words = _Words(dialect.WORDS[vendor])
            words |= {name: words.fill(piece) for name, piece in self._words.items()}
            words["batch"] = table(self._columns)
            text = self._rendered[shape] = words.fill(self._text)
        return text


class _Words(dict[str, str]):
    """What the words of a statement stand for. Others are parameters."""

    def __init__(self, words: dict[str, str]) -> None:
        super().__init__({name: _escape(piece) for name, piece in words.items()})

    def __missing__(self, name: str) -> str:
        return f"%({name})s"

    def fill(self, text: str) -> str:
        return _escape(text).format_map(self)


def _escape(text: str) -> str:
    return text.replace("%", "%%")


# The batch as a table.

# How SQLite reads a column of these types, where the value as it is would not do.
_SQLITE_COLUMN = {
    # As Django stores them: without dashes; in UTC, without a zone.
    "uuid": "replace({value}, '-', '')",
    "timestamptz": "substr({value}, 1, 26)",
}


def _row_table(columns: Columns) -> str:
    """A batch of one, for PostgreSQL, which plans it in a fraction of the time."""
    values = ", ".join(
        f"%(batch_{name})s::{kind} AS {name}" for name, (kind, _) in columns.items()
    )
    return f"(SELECT {values}) AS batch"


def _row_parameters(columns: Columns, item: Any) -> dict[str, Any]:
    return {f"batch_{name}": read(item) for name, (_, read) in columns.items()}


def _array_table(columns: Columns) -> str:
    """A batch of many, for PostgreSQL."""
    # Each array is a query of its own, so that the planner does not know its length: it
    # reckons with ten rows, and looks each of them up by its key.
    arrays = ", ".join(
        f"(SELECT %(batch_{name})s::{kind}[])" for name, (kind, _) in columns.items()
    )
    return f"unnest({arrays}) AS batch({', '.join(columns)})"


def _array_parameters(columns: Columns, items: Sequence[Any]) -> dict[str, str]:
    return {
        f"batch_{name}": _array_text([*map(read, items)])
        for name, (_, read) in columns.items()
    }


def _json_table(columns: Columns) -> str:
    """A batch of any length, for SQLite."""
    # Each row is an array: a place in it is found in half the time that a name is.
    extracted = ", ".join(
        _SQLITE_COLUMN.get(kind, "{value}").format(value=f"value ->> {place}")
        + f" AS {name}"
        for place, (name, (kind, _)) in enumerate(columns.items())
    )
    return f"(SELECT {extracted} FROM json_each(%(batch)s)) AS batch"  # noqa: S608 - words of our own


def _json_parameters(columns: Columns, items: Sequence[Any]) -> dict[str, str]:
    values = [map(read, items) for _, read in columns.values()]
    return {"batch": json.dumps([*zip(*values, strict=True)])}


def _array_text(values: Sequence[Any]) -> str:
    """An array as PostgreSQL reads it, in a fraction of the time that a driver takes."""
    if values.count(values[0]) == len(values):
        # As most columns of thousands of jobs are.
        return "{" + ",".join([_array_item(values[0])] * len(values)) + "}"
    try:
        text = '","'.join(values)
    except TypeError:
        pass  # not all of them are text
    else:
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):
            return f'{{"{text}"}}'
    return "{" + ",".join(map(_array_item, values)) + "}"


def _array_item(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


#: Each form of the batch: the database that takes it, and its table.
_SHAPES: dict[str, tuple[str, Callable[[Columns], str]]] = {
    "row": ("postgresql", _row_table),
    "arrays": ("postgresql", _array_table),
    "json": ("sqlite", _json_table),
}
