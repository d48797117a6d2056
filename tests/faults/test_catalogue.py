"""The catalogue is whole: each fault has a test that is named for it, or a reason."""

import re
from pathlib import Path

import pytest

from jobs import crashpoints
from tests.faults.catalogue import AT_A_CRASH_POINT, FAULTS, NOT_SHOWN

pytestmark = pytest.mark.once

TESTS = Path(__file__).parent.parent


def shown() -> set[str]:
    return AT_A_CRASH_POINT.keys() | {
        code.upper()
        for file in TESTS.rglob("test_*.py")
        for code in re.findall(
            r"^ *def test_([wbdpvn]\d+)_", file.read_text(), re.MULTILINE
        )
    }


def test_every_fault_has_a_test_or_a_reason_why_there_is_none() -> None:
    assert FAULTS.keys() - shown() - NOT_SHOWN.keys() == set()


def test_no_test_is_named_for_a_fault_that_is_not_in_the_catalogue() -> None:
    assert shown() - FAULTS.keys() == set()


def test_what_is_shown_is_not_excused() -> None:
    assert shown() & NOT_SHOWN.keys() == set()


def test_every_crash_point_that_shows_a_fault_exists() -> None:
    assert set(AT_A_CRASH_POINT.values()) <= set(crashpoints.NAMES)
