"""The part of a checkpoint that is no tensor: where the run stood, and under which plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from rewarm.artifacts import MANIFEST_NAME, read_json
from rewarm.errors import CheckpointError, RunFolderError
from rewarm.planning.plan import Plan, Science, science_diff
from rewarm.records.facts import Record

__all__ = [
    "STATE_FILE",
    "GuardMemory",
    "SavedState",
    "SettlingMemory",
    "check_plan",
    "is_checkpoint",
    "read_saved_state",
]

STATE_FILE = "state.json"


class GuardMemory(Record):
    """What the guard compares the next loss with: accepted losses of one phase, the last ones."""

    phase: str = ""
    losses: tuple[float, ...] = ()


class SettlingMemory(Record):
    """Sums of the layers' gradient norms: of this interval so far, and of the one before."""

    sums: tuple[float, ...] = ()
    before: tuple[float, ...] = ()


class SavedState(Record):
    """`state.json`: all of the state that is no tensor."""

    format: Literal[2] = 2
    step: int = Field(ge=0, description="updates taken")
    num_samples: int = Field(description="sequences consumed")
    num_tokens: int = Field(description="input tokens consumed")
    plan: str = Field(description="fingerprint of the science")
    science: dict[str, Any] = Field(description="the science itself, to tell what differs")
    amendments_head: str = Field("", description="last amendment when the step was reached")
    guard: GuardMemory = Field(default_factory=GuardMemory)
    settling: SettlingMemory = Field(default_factory=SettlingMemory)
    optimizer_steps: dict[str, int] = Field(description="updates by parameter")
    num_ranks: int = Field(1, ge=1, description="ranks that wrote it; any number can read it")
    versions: dict[str, str]


def is_checkpoint(folder: Path) -> bool:
    """Tell whether a folder is of the form of a checkpoint of rewarm, sound or not."""
    return all((folder / name).is_file() for name in (STATE_FILE, MANIFEST_NAME))


def read_saved_state(folder: Path) -> SavedState:
    """Return a checkpoint's JSON part; raises CheckpointError naming the file."""
    path = folder / STATE_FILE
    value = read_json(path, what="the saved state", error=CheckpointError)
    try:
        return SavedState.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError.one(
            str(path),
            f"{where}: {first['msg']}",
            "it was written by another version of rewarm; resume with that one",
        ) from error


def check_plan(saved: SavedState, science: Science, *, where: Path) -> None:
    """Raise RunFolderError, with what differs, where a state belongs to another plan."""
    if saved.plan == Plan.science_fingerprint(science):
        return
    try:
        differences = science_diff(Science.model_validate(saved.science), science)
    except ValidationError:
        differences = ["the saved plan has another format"]
    raise RunFolderError.one(
        str(where),
        "it was trained under another plan: " + "; ".join(differences),
        "undo the change, or give the changed recipe a run folder of its own",
    )
