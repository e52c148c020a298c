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

from pydantic import ValidationError

from rewarm.artifacts import canonical_json, parse_json, write_json
from rewarm.comparison.arms import Arm
from rewarm.comparison.experiment import WrittenExperiment
from rewarm.errors import Problem, RunFolderError
from rewarm.records.comparison import Primary, Registration

__all__ = ["Written", "claims_of", "register"]

_FILE = "experiment.json"


class Written(Protocol):
    """An experiment's file, and where everything of it is written."""

    @property
    def path(self) -> Path:
        """Return the file."""

    @property
    def sha256(self) -> str:
        """Return that of the file's bytes."""

    @property
    def folder(self) -> Path:
        """Return where everything of the experiment is written."""


def claims_of(written: WrittenExperiment, arms: Sequence[Arm]) -> dict[str, Any]:
    """Return all that the experiment claims and all that its results hang on."""
    experiment = written.experiment
    return {
        "name": experiment.name,
        "hypothesis": experiment.hypothesis,
        "primary": [
            Primary(metric=p.metric, expect=p.expect, within=p.within).model_dump(mode="json")
            for p in experiment.primary
        ],
        "control": experiment.control,
        "contrasts": [[arm, against, dict(expect)] for arm, against, expect in experiment.pairs()],
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
    path = written.folder / _FILE
    known = _known(path)
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


def _known(path: Path) -> Registration | None:
    try:
        return Registration.model_validate(parse_json(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


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
        for key in now
        if key != "arms" and canonical_json(before.get(key)) != canonical_json(now[key])
    ]
    arms = before.get("arms", {})
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
