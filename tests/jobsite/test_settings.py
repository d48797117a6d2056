"""The site's settings: every variable of the environment is shown and explained."""

import itertools
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent.parent


def test_env_example_lists_every_variable() -> None:
    read = set(
        re.findall(r'\benv(?:\.\w+)?\(\s*"(\w+)"', text_of("jobsite/settings.py"))
    )
    interpolated = set(re.findall(r"\$\{(\w+)", text_of("docker-compose.yml")))
    shown = re.findall(r"^(?:# )?([A-Z_]+)=", text_of(".env.example"), re.MULTILINE)

    assert sorted(shown) == sorted(read | interpolated | {"PORT"})


def test_env_example_explains_every_variable_in_a_comment() -> None:
    lines = text_of(".env.example").splitlines()
    variable = re.compile(r"(# )?[A-Z_]+=")

    for comment, line in itertools.pairwise(lines):
        if variable.match(line):
            assert comment.startswith("# "), line
            assert not variable.match(comment), line


def text_of(name: str) -> str:
    return (ROOT / name).read_text()
