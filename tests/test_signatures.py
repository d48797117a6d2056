"""What a task function takes, and what a job's arguments are held against."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import pytest

from jobs import InvalidJob, signatures, task

VALUES = ["x", 1, 1.5, True, None, [1], {"a": 1}]
ANNOTATIONS: list[Any] = [
    str,
    int,
    float,
    bool,
    list,
    dict,
    None,
    list[int],
    int | None,
    str | bool,
    float | list[str],
    Any,
    object,
    "Later",
    Literal["x", 1],
]


def function(
    first: int, /, second: str, *rest: bool, third: str = "", **more: int
) -> int:
    return 0


full = task(function)


@pytest.mark.parametrize(
    ("annotation", "value"), [*itertools.product(ANNOTATIONS, VALUES)], ids=str
)
def test_checks_by_type_and_by_value_agree(annotation: Any, value: Any) -> None:
    """Only a Literal depends on more than the type: by type alone it never fits."""
    by_type = signatures._fits(annotation, type(value))
    by_value = signatures._fits(annotation, type(value), value)

    if annotation == Literal["x", 1]:
        assert not by_type
        assert by_value == (value in ("x", 1))
    else:
        assert by_type == by_value


@pytest.mark.parametrize(
    ("annotation", "fitting"),
    [
        (str, ["x"]),
        (int, [1]),
        (float, [1, 1.5]),
        (bool, [True]),
        (int | None, [1, None]),
        (list[int], [[1]]),
        (dict, [{"a": 1}]),
        (Any, VALUES),
    ],
    ids=str,
)
def test_each_annotation_takes_its_json_values(
    annotation: Any, fitting: list[Any]
) -> None:
    fit = [v for v in VALUES if signatures._fits(annotation, type(v), v)]

    assert [(type(v), v) for v in fit] == [(type(v), v) for v in fitting]


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        ([], {}, "missing a required argument: 'first'"),
        ([1], {}, "missing a required argument: 'second'"),
        (["x", "x"], {}, "first cannot be 'x'"),
        ([1, "x", 5], {}, "rest cannot be 5"),
        ([1, "x"], {"third": 5}, "third cannot be 5"),
        ([1, "x"], {"other": "x"}, "more cannot be 'x'"),
    ],
    ids=str,
)
def test_a_call_that_does_not_fit_is_refused_with_a_sentence(
    args: list[Any], kwargs: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidJob, match=sentence):
        signatures.check_call(full, args, kwargs)


def test_a_call_that_fits_is_taken() -> None:
    signatures.check_call(full, [1, "x", True], {"third": "y", "other": 3})


def test_words_of_a_command_line_become_arguments() -> None:
    args, kwargs = signatures.read_arguments(
        full, ["1", "2", "true", "false"], {"third": "3", "other": "4"}
    )

    assert args == [1, "2", True, False]
    assert kwargs == {"third": "3", "other": 4}


def test_arguments_are_named_by_their_parameters() -> None:
    named = signatures.name_arguments(full, [1, "x", True], {"third": "y"})

    assert named == [("first", 1), ("second", "x"), ("[2]", True), ("third", "y")]


def test_arguments_of_an_unknown_task_are_named_by_their_place() -> None:
    named = signatures.name_arguments(None, [1, "x"], {"third": "y"})

    assert named == [("[0]", 1), ("[1]", "x"), ("third", "y")]


def test_a_summary_shows_the_parameters() -> None:
    assert signatures.summary(full) == (
        "function(first: int, /, second: str, *rest: bool, third: str = '', **more: int)"
    )


def test_the_context_is_not_part_of_the_call() -> None:
    with_context = task(takes_context=True)(contextual)

    assert signatures.summary(with_context) == "contextual(text: str)"


def contextual(context: Any, text: str) -> None:
    pass
