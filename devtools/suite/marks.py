"""Marks that follow from what a test uses, and skips that give their reason.

`tests/conftest.py` registers this plugin, so it works however pytest is started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.db import connection

from devtools.services import Missing

#: With one of these a test touches the database.
DATABASE_FIXTURES = frozenset({"db", "transactional_db", "live_server"})
#: With one of these a test depends on a process, a broker or a browser.
REAL_FIXTURES = frozenset(
    {
        *("browser", "live_server", "site"),
        *("broker", "node", "own_broker", "secure_node", "running_cluster"),
        "own_database",
    }
)
#: These are slow to make. The tests of one file that use one run in the same process.
SHARED_FIXTURES = frozenset(
    {"browser", "node", "secure_node", "running_cluster", "own_database"}
)


class Marks:
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if not uses_database(item):
                item.add_marker("once")
            if is_real(item):
                # pytest-rerunfailures repeats such a test once. See reruns.py.
                item.add_marker(pytest.mark.flaky(reruns=1))
            for shared in SHARED_FIXTURES & set(getattr(item, "fixturenames", ())):
                item.add_marker(pytest.mark.xdist_group(f"{shared}-{item.path.stem}"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workerinput"):  # a process of pytest-xdist
            session.items[:] = spread(session.items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        for vendor in ("postgresql", "sqlite"):
            if item.get_closest_marker(vendor) and connection.vendor != vendor:
                pytest.skip(
                    f"only on {vendor}: DATABASE_URL points to another database"
                )

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self) -> Iterator[None]:
        return (yield from _skipped_if_missing())

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self) -> Iterator[None]:
        return (yield from _skipped_if_missing())


def _skipped_if_missing() -> Iterator[None]:
    """Without a service that it needs, a test skips on a laptop and fails in CI."""
    try:
        return (yield)
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def uses_database(item: pytest.Item) -> bool:
    return bool(
        item.get_closest_marker("django_db")
        or DATABASE_FIXTURES & set(getattr(item, "fixturenames", ()))
    )


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """An order in which several processes run these tests in little time.

    Long tests come first, so that none is left for the end. After them tests that wait for
    processes and tests that compute alternate, so that the cores are never idle.
    """
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    waiting = [item for item in rest if is_real(item)]
    computing = [item for item in rest if not is_real(item)]
    placed = [
        (number / len(kind), item)
        for kind in (waiting, computing)
        for number, item in enumerate(kind)
    ]
    return long + [item for _, item in sorted(placed, key=lambda pair: pair[0])]


def is_real(item: pytest.Item) -> bool:
    """Whether the test depends on processes, brokers or browsers, and so on their timing."""
    parameters = getattr(item, "callspec", None)
    return bool(
        item.get_closest_marker("real")
        or REAL_FIXTURES & set(getattr(item, "fixturenames", ()))
        or (parameters and parameters.params.get("transport") == "rabbitmq")
    )
