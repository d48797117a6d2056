"""A statement: written once for both databases, run over a batch of items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import connections

from jobs.sql import batch, dialect, prepared
from jobs.sql.batch import Columns
from jobs.sql.prepared import Keep


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
            parameters |= batch.json_parameters(self._columns, items)
        elif connection.vendor != "postgresql":
            raise dialect.unsupported(alias)
        elif len(items) == 1:
            text = self.render("row")
            parameters |= batch.row_parameters(self._columns, items[0])
            planned = prepared.cursor(connection, self._keep)
        else:
            text = self.render("arrays")
            parameters |= batch.array_parameters(self._columns, items)
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
            parameters = batch.row_parameters(self._columns, item)
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


_SHAPES: dict[str, tuple[str, Callable[[Columns], str]]] = {
    "row": ("postgresql", batch.row_table),
    "arrays": ("postgresql", batch.array_table),
    "json": ("sqlite", batch.json_table),
}
