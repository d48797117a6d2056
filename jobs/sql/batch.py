"""A batch of rows as a table: one array per column on PostgreSQL, one JSON text on SQLite.

The text of a statement stays the same whatever the batch's length, and no limit on the
number of parameters is met. `Statement` puts these texts where it says `{batch}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

#: Of each column: its type, in PostgreSQL's words, and how it is read from an item.
Columns: TypeAlias = Mapping[str, tuple[str, Callable[[Any], Any]]]

# How SQLite reads a column of these types, where the value as it is would not do.
_SQLITE_COLUMN = {
    # As Django stores them: without dashes; in UTC, without a zone.
    "uuid": "replace({value}, '-', '')",
    "timestamptz": "substr({value}, 1, 26)",
}


def row_table(columns: Columns) -> str:
    """A batch of one, for PostgreSQL, which plans it in a fraction of the time."""
    values = ", ".join(
        f"%(batch_{name})s::{kind} AS {name}" for name, (kind, _) in columns.items()
    )
    return f"(SELECT {values}) AS batch"


def row_parameters(columns: Columns, item: Any) -> dict[str, Any]:
    return {f"batch_{name}": read(item) for name, (_, read) in columns.items()}


def array_table(columns: Columns) -> str:
    """A batch of many, for PostgreSQL."""
    # Each array is a query of its own, so that the planner does not know its length: it
    # reckons with ten rows, and looks each of them up by its key.
    arrays = ", ".join(
        f"(SELECT %(batch_{name})s::{kind}[])" for name, (kind, _) in columns.items()
    )
    return f"unnest({arrays}) AS batch({', '.join(columns)})"


def array_parameters(columns: Columns, items: Sequence[Any]) -> dict[str, str]:
    return {
        f"batch_{name}": _array_text([*map(read, items)])
        for name, (_, read) in columns.items()
    }


def json_table(columns: Columns) -> str:
    """A batch of any length, for SQLite."""
    # Each row is an array: a place in it is found in half the time that a name is.
    extracted = ", ".join(
        _SQLITE_COLUMN.get(kind, "{value}").format(value=f"value ->> {place}")
        + f" AS {name}"
        for place, (name, (kind, _)) in enumerate(columns.items())
    )
    return f"(SELECT {extracted} FROM json_each(%(batch)s)) AS batch"  # noqa: S608 - words of our own


def json_parameters(columns: Columns, items: Sequence[Any]) -> dict[str, str]:
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
