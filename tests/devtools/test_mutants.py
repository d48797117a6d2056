"""Every mutant can be made, and names tests that exist."""

from __future__ import annotations

import re

import pytest

from devtools.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_can_be_made(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text()

    assert source.count(mutant.whole) == 1
    compile(source.replace(mutant.whole, mutant.broken), mutant.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_test_of_a_mutant_exists(mutant: Mutant) -> None:
    for test in mutant.tests:
        path, *names = test.partition("[")[0].split("::")
        source = (ROOT / path).read_text()
        for name in names:
            assert re.search(rf"\b(def|class) {name}\b", source), test
