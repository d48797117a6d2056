"""What is written as JSON, and how."""

import json

import pytest

from jobs import values

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "value",
    [
        0,
        -(2**63),
        True,
        1.5,
        "",
        'é "\\" \n',
        [],
        [1, "two", 'th"ree'],
        (1, "two"),
        [1, None],
        [True, False],
        [[1], {"two": 2}],
        {},
        {"one": [1, "é"]},
    ],
    ids=repr,
)
def test_json_is_written_as_the_standard_library_writes_it(value: object) -> None:
    assert values.as_json(value) == json.dumps(value)


def test_none_is_written_as_null_of_the_database() -> None:
    assert values.as_json(None) is None
