"""Counting rows no further than people want to know: a million would take a while."""

from __future__ import annotations

from django.db.models import QuerySet

COUNT_CAP = 10_000


class CappedCount(int):
    """A number of rows. Beyond the cap it is not exact, and reads "10,000+"."""

    @classmethod
    def of(cls, rows: QuerySet) -> CappedCount:
        """Count these rows, but at most one more than the cap."""
        return cls(rows.order_by()[: COUNT_CAP + 1].count())

    def __str__(self) -> str:
        return f"{COUNT_CAP:,}+" if self > COUNT_CAP else f"{int(self):,}"
