"""The comparison with others: who takes part, and that figures are shown as they were measured."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import evidence, report
from benchmarks.contender import CONTENDERS, label
from benchmarks.workloads import WORKLOADS

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def test_each_contender_is_a_class_of_the_module_that_is_named() -> None:
    for _, path in CONTENDERS.values():
        module, _, name = path.rpartition(".")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()

        assert re.search(rf"^class {name}\(", source, re.MULTILINE), path


def test_each_contender_takes_part_and_jobsite_in_all() -> None:
    taking_part = [set(workload.jobs) for workload in WORKLOADS.values()]

    assert set.union(*taking_part) == set(CONTENDERS)
    assert all("jobsite" in names for names in taking_part)


def test_a_contender_fills_an_empty_database_and_is_measured(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.run",
            "jobsite",
            "drain",
            "one_insert",
            "30",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
            "RABBITMQ_URL": "",
        },
        capture_output=True,
        text=True,
    )

    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout.splitlines()[-1])
    assert measured["figures"]["jobs/s"] > 0
    assert "django" in measured["versions"]
    assert "runworker" in measured["workers"][0]


def test_a_job_that_ran_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence._file.cache_clear()
    with evidence.Evidence() as found:
        for number in (1, 2, 2):
            evidence.leave(number)

        assert found.count() == 3
        with pytest.raises(AssertionError, match=r"more than once: \[2\]"):
            found.starts()
    evidence._file.cache_clear()


def runs(*rates: float) -> list[dict[str, Any]]:
    return [{"figures": {"jobs/s": rate}} for rate in rates]


def test_a_ratio_is_the_median_of_those_of_each_round() -> None:
    ours, theirs = runs(100, 1000, 400), runs(10, 50, 400)

    summary = report.summary(theirs, ours)

    assert summary["jobs/s"] == {
        "median": 50,
        "min": 10,
        "max": 400,
        "values": [10, 50, 400],
        "jobsite": 10,
    }


def result(figure: str = "jobs/s") -> dict[str, Any]:
    """One workload, in which Celery does half of what Jobsite does, and huey twice as much."""
    ours = [{"figures": {figure: rate}} for rate in (900.0, 1000.0, 1100.0)]
    measured = {"jobsite": ours}
    for name, factor in ("celery-safe", 0.5), ("huey", 2):
        measured[name] = [
            {"figures": {figure: run["figures"][figure] * factor}} for run in ours
        ]
    return {
        "measured": "2026-11-23",
        "rounds": 3,
        "machine": {"CPU": "2 cores of a kind", "PostgreSQL": "15.1"},
        "contenders": {
            name: {
                "figures": report.summary(each, ours),
                "versions": {"django": "5.2"},
            }
            for name, each in measured.items()
        },
    }


def test_the_table_has_the_best_first_with_spread_and_ratio() -> None:
    assert report.table(result()).splitlines()[2:] == [
        "| huey, fsync | 2,000 (1,800 to 2,200) | 0.50 |",
        "| **Jobsite** | 1,000 (900 to 1,100) |  |",
        "| Celery, safe | 500 (450 to 550) | 2.00 |",
    ]


def test_of_times_the_shortest_is_the_best() -> None:
    first = report.table(result("started, p50, ms")).splitlines()[2]

    assert first.startswith("| Celery, safe | 500")


def test_the_page_names_the_machine_the_rounds_and_the_releases() -> None:
    page = report.tables({"drain": result()})

    assert "2026-11-23, rounds: 3" in page
    assert "2 cores of a kind, PostgreSQL 15.1" in page
    assert "Releases: django 5.2." in page


def test_what_is_written_stays_between_its_marks() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"

    written = report.put(page, "new")

    assert written == f"before\n{report.BEGIN}\n\nnew\n{report.END}\nafter\n"
    assert report.put(written, "new") == written


def test_the_chart_has_a_bar_as_long_as_each_median() -> None:
    drawn = report.chart({"drain": result()})
    chart = ElementTree.fromstring(drawn)  # noqa: S314 - our own

    bars = [each for each in chart.iter(f"{SVG}rect") if each.get("rx") == "2"]
    lengths = [float(each.get("width", 0)) for each in bars]
    texts = [each.text for each in chart.iter(f"{SVG}text")]
    assert [each.get("class") for each in bars] == ["bar", "bar jobsite", "bar"]
    assert lengths == pytest.approx(
        [report.BARS * n / 2200 for n in (2000, 1000, 500)], abs=0.1
    )
    assert {label(name) for name in result()["contenders"]} <= {*texts}


def test_the_page_and_the_chart_say_what_was_saved() -> None:
    results = report.results()

    assert (
        report.put(report.PAGE.read_text(), report.tables(results))
        == report.PAGE.read_text()
    )
    assert report.CHART.read_text() == report.chart(results)
    assert report.CHART.name in report.PAGE.read_text()
