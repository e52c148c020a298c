"""An experiment that is written down anew, where its results were known, says so."""

from __future__ import annotations

from typing import Any

import pytest

from rewarm.comparison.registration import registered_again
from rewarm.records.comparison import Registration
from rewarm.reporting.effects import stated, written_down

FIRST, LATER = "2026-11-26T16:17:30+00:00", "2026-11-27T10:35:16+00:00"


def registration(time: str, *, before_runs: bool = True, **claims: Any) -> Registration:
    return Registration(
        file_sha256=f"{hash(time):x}",
        file_name="one.toml",
        time=time,
        before_runs=before_runs,
        claims={"hypothesis": "less is forgotten", "seeds": 3, **claims},
    )


def test_a_new_folder_s_registration_keeps_the_first_one_s_time() -> None:
    first, fresh = registration(FIRST), registration(LATER)
    found = registered_again(first, fresh, 93)
    assert (found.time, found.file_sha256, found.before_runs) == (FIRST, first.file_sha256, True)
    (again,) = found.again
    assert (again.time, again.num_runs, again.changed) == (LATER, 93, ())
    assert stated(found) == (
        "First stated 2026-11-26 16:17 before the first run; registered again 2026-11-27 10:35 "
        "with the same claims, when 93 earlier runs were known"
    )
    assert "registered again 2026-11-27 10:35" in written_down(found)


def test_another_claim_was_not_stated_before_the_runs_that_were_known() -> None:
    fresh = registration(LATER, hypothesis="more is forgotten", contrasts=[])
    found = registered_again(registration(FIRST), fresh, 9)
    assert not found.before_runs
    assert found.again[0].changed == ("hypothesis", "contrasts")
    assert found.claims["hypothesis"] == "more is forgotten"
    told = stated(found)
    assert told.startswith("First stated 2026-11-26 16:17; registered again")
    assert "with other claims (hypothesis, contrasts), when 9 earlier runs were known" in told
    assert "before the first run" not in written_down(found)


@pytest.mark.parametrize("is_first", [True, False])
def test_the_same_registration_is_told_once(is_first: bool) -> None:
    first, fresh = registration(FIRST), registration(LATER)
    found = registered_again(first, fresh, 9)
    assert registered_again(found, first if is_first else fresh, 12) == found


def test_what_was_stated_once_is_told_as_before() -> None:
    assert stated(registration(FIRST)) == "Stated beforehand"
    late = registration(FIRST, before_runs=False)
    assert stated(late) == "First stated 2026-11-26 16:17 AFTER runs had begun"
    assert not registered_again(late, registration(LATER), 9).before_runs
