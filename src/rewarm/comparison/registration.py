"""What is claimed, written down before the first run and held to afterwards.

`experiment.json` in the comparison's folder holds the claims and the SHA-256 of the file.
Before any run has begun it is written anew whenever the file changed. From then on the claims are
fixed: a changed hypothesis, metric, expectation, contrast, seed or recipe of an arm is refused,
while how the runs are carried out ([run]), descriptions and comments may change.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rewarm.artifacts import canonical_json, write_json
from rewarm.comparison.arms import Arm
from rewarm.comparison.experiment import WrittenExperiment
from rewarm.errors import Problem, RunFolderError
from rewarm.records.comparison import Primary, RegisteredAgain, Registration
from rewarm.records.reading import record_or_none

__all__ = ["Written", "claims_of", "register", "registered_again"]


class Written(Protocol):
    """An experiment's file, and where its claims are put down."""

    @property
    def path(self) -> Path:
        """Return the file."""

    @property
    def sha256(self) -> str:
        """Return that of the file's bytes."""

    @property
    def registration(self) -> Path:
        """Return the file of the claims."""


def claims_of(written: WrittenExperiment, arms: Sequence[Arm]) -> dict[str, Any]:
    """Return all that the experiment claims and all that its results hang on."""
    experiment = written.experiment
    explored = [list(pair) for pair in experiment.explored()]
    return {
        "name": experiment.name,
        "hypothesis": experiment.hypothesis,
        "primary": [
            Primary(metric=p.metric, expect=p.expect, within=p.within).model_dump(mode="json")
            for p in experiment.primary
        ],
        "control": experiment.control,
        "contrasts": [[arm, against, dict(expect)] for arm, against, expect in experiment.pairs()],
        # Left out where there are none, as before there were any.
        **({"exploratory": explored} if explored else {}),
        "noise_floor": experiment.noise_floor,
        "seeds": list(experiment.seed_list),
        "arms": {arm.name: arm.claim() for arm in arms},
    }


def register(
    written: Written, claims: Mapping[str, Any], *, has_begun: bool, write: bool = True
) -> Registration:
    """Return what stands on record, writing it down first where nothing has begun.

    Raises RunFolderError, a problem for each claim that is another one now, once a run has begun.
    Where runs have begun and nothing (or nothing that can be read) was written down before them,
    that is on record from then on.
    """
    path = written.registration
    known = record_or_none(path, Registration)
    if has_begun and known is not None:
        _check_same(known, claims, written)
        return known
    if known is not None and canonical_json(known.claims) == canonical_json(claims):
        return known
    fresh = Registration(
        file_sha256=written.sha256,
        file_name=written.path.name,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        before_runs=not has_begun,
        claims=dict(claims),
    )
    if write:
        write_json(path, fresh.model_dump(mode="json"))
    return fresh


def registered_again(known: Registration, fresh: Registration, num_runs: int) -> Registration:
    """Return a fresh registration of an experiment of which a result was known, as what it is.

    A new folder has no runs, and registers as before them. `known` is that of the result, which
    has `num_runs` runs: its time stays, and what is claimed was stated before runs only where all
    of it was claimed then. What is known already comes back as it is.
    """
    if fresh.time in (known.time, *(one.time for one in known.again)):
        return known
    before, now = known.claims, fresh.claims
    changed = [
        key
        for key in dict.fromkeys([*now, *before])
        if canonical_json(before.get(key)) != canonical_json(now.get(key))
    ]
    one = RegisteredAgain(
        file_sha256=fresh.file_sha256, time=fresh.time, num_runs=num_runs, changed=tuple(changed)
    )
    return fresh.model_copy(
        update={
            "file_sha256": known.file_sha256,
            "time": known.time,
            "before_runs": known.before_runs and fresh.before_runs and not changed,
            "again": (*known.again, one),
        }
    )


def _check_same(known: Registration, claims: Mapping[str, Any], written: Written) -> None:
    """Raise with every claim that differs from what was written down."""
    before, now = known.claims, claims
    fix = "undo the change, or give the changed experiment another name: its runs then begin anew"
    problems = [
        Problem(
            key,
            f"it was {_short(before.get(key))} when the runs began ({known.time}), and is "
            f"{_short(now.get(key))} now",
            fix,
        )
        for key in dict.fromkeys([*now, *before])
        if key != "arms" and canonical_json(before.get(key)) != canonical_json(now.get(key))
    ]
    written_down = before.get("arms")
    arms = {
        name: arm
        for name, arm in (written_down.items() if isinstance(written_down, dict) else ())
        if isinstance(arm, dict)
    }
    for name in dict.fromkeys([*arms, *now["arms"]]):
        if name not in now["arms"]:
            problems.append(Problem(f"arms.{name}", "it is gone since the runs began", fix))
        elif name not in arms:
            problems.append(Problem(f"arms.{name}", "it was not there when the runs began", fix))
        elif canonical_json(arms[name]) != canonical_json(now["arms"][name]):
            changed = [
                key for key in now["arms"][name] if arms[name].get(key) != now["arms"][name][key]
            ]
            what = f"its {', '.join(changed)} changed since the runs began"
            problems.append(Problem(f"arms.{name}", what, fix))
    if problems:
        raise RunFolderError(problems)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return f"“{text}”" if len(text) <= 80 else f"“{text[:77]}…”"
