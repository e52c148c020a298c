"""The mutation checks, which take long, still name lines that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

import rewarm
from tests.mutation.test_promises import MUTATIONS, Mutation

PACKAGE = Path(rewarm.__file__).parent
TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.promise)
def test_the_line_and_its_test_are_there(mutation: Mutation) -> None:
    assert (PACKAGE / mutation.file).read_text(encoding="utf-8").count(mutation.old) == 1
    file, _, name = mutation.test.partition("::")
    text = (TESTS.parent / file).read_text(encoding="utf-8")
    assert not name or f"def {name.partition('[')[0]}(" in text
