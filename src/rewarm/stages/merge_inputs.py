"""The models that `rewarm merge` is given: folders, hub ids, runs, and single steps of runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from rewarm.artifacts import MANIFEST_NAME, fingerprint, read_json, temporary_folder
from rewarm.distributed.tensor_files import fill, place_of, read_headers
from rewarm.distributed.world import ALONE
from rewarm.errors import CheckpointError, EnvironmentFault, Problems, RunFolderError
from rewarm.export.card import hub_id_of
from rewarm.model.adapter import merge_adapters
from rewarm.model.load import save_weights, tensor_places
from rewarm.model.weight_folder import WeightFolder
from rewarm.model.weight_stream import Header, StoredWeights, Weights
from rewarm.planning.plan import Plan, load_plan
from rewarm.planning.weight_files import read_weight_files
from rewarm.records.run_folder import RunFolder
from rewarm.stages.base import find_model, looks_like_hub_id
from rewarm.stages.job import open_run
from rewarm.stages.trained import check_planned_base, load_planned_base, newest_checkpoint
from rewarm.training.checkpoint import CheckpointStore, checkpoint_problems, step_of
from rewarm.training.saved import check_plan, read_saved_state
from rewarm.training.state import names_in_checkpoint, read_weights

__all__ = ["Input", "RunStep", "base_of_run", "find_inputs"]

_ALL = "all"
_GROUP = "model"  # of a checkpoint's tensors

Option = Literal["--base", "--model", "--instruct"]


class RunStep(NamedTuple):
    """A verified checkpoint of a run."""

    run: RunFolder
    plan: Plan
    checkpoint: Path

    @property
    def step(self) -> int:
        """Updates that it has had."""
        return step_of(self.checkpoint)


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """A model to merge; `form` gives names, shapes, config and tokenizer, a run's being its base's.

    `name` is for people and holds no local path; `label` is what was given on the command line.
    """

    label: str
    name: str
    form: WeightFolder
    fingerprint: str
    hub_id: str | None = None
    at: RunStep | None = None

    def open(self, stack: ExitStack) -> Weights:
        """Return its tensors, which can be read until the stack is closed."""
        if self.at is None:
            return stack.enter_context(self.form.open(self.label))
        folder = self.at.checkpoint
        if self.at.plan.science.parameters.adapter is not None:
            return _with_adapters_merged(self, self.at, stack)
        if place_of(folder, _GROUP) == folder:
            return self._with_frozen(_PartedWeights(self.label, folder), self.at, stack)
        problems = Problems()
        files = read_weight_files(folder, problems)
        problems.raise_as(CheckpointError)
        names = {tensor.name: tensor.name for file in files for tensor in file.tensors}
        trained = stack.enter_context(StoredWeights(self.label, files, names))
        return self._with_frozen(trained, self.at, stack)

    def _with_frozen(self, trained: Weights, at: RunStep, stack: ExitStack) -> Weights:
        """Return a checkpoint's weights with those that no stage trains, which the base holds."""
        frozen = self.form.places.keys() - names_in_checkpoint(self.form.skeleton, at.plan.science)
        if not frozen:
            return trained
        base = stack.enter_context(self.form.open(self.label))
        return _WithFrozen(trained, base, frozenset(frozen))


def _with_adapters_merged(one: Input, at: RunStep, stack: ExitStack) -> Weights:
    """Return the weights that a run with low-rank matrices comes to, from a folder beside it.

    They are written in float32, as others' checkpoints are; until then the model is in memory.
    """
    model = load_planned_base(at.plan)
    read_weights(at.checkpoint, model, at.plan.science)
    merge_adapters(model)
    try:
        folder = stack.enter_context(temporary_folder(at.run.path, ".merging-"))
        save_weights(model, folder)
    except OSError as error:
        raise EnvironmentFault(
            f"{at.run.path} cannot be written ({error.strerror or error})",
            "free some space or make the run folder writable, then run the command again",
        ) from error
    problems = Problems()
    files = read_weight_files(folder, problems)
    problems.raise_as(CheckpointError)
    places = tensor_places(one.form.skeleton, files).of_tensor
    names = {name: where[0][1] for name, where in places.items()}
    return stack.enter_context(StoredWeights(one.label, files, names))


class _WithFrozen:
    """The weights of a checkpoint, and those that its run never trained as the base has them."""

    def __init__(self, trained: Weights, base: Weights, frozen: frozenset[str]) -> None:
        self._trained = trained
        self._base = base
        self._frozen = frozen
        self._headers = {**trained.headers, **{name: base.headers[name] for name in frozen}}

    @property
    def label(self) -> str:
        """What to call the model before a person."""
        return self._trained.label

    @property
    def headers(self) -> Mapping[str, Header]:
        """Type and shape of every tensor."""
        return self._headers

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Return numbers [start, stop) of a flattened tensor in its stored type."""
        return (self._base if name in self._frozen else self._trained).read(name, start, stop)


class _PartedWeights:
    """The weights of a checkpoint that many ranks wrote; one tensor of it is held at a time."""

    def __init__(self, label: str, folder: Path) -> None:
        self._label = label
        self._folder = folder
        self._headers = {
            name: Header(found.dtype, found.shape)
            for name, found in read_headers(folder, _GROUP).items()
        }
        self._name = ""
        self._flat = torch.empty(0)

    @property
    def label(self) -> str:
        """What to call the model before a person."""
        return self._label

    @property
    def headers(self) -> Mapping[str, Header]:
        """Type and shape of every tensor."""
        return self._headers

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Return numbers [start, stop) of a flattened tensor in its stored type."""
        if name != self._name:
            header = self._headers[name]
            whole = torch.empty(header.shape, dtype=header.dtype)
            fill(self._folder, {_GROUP: {name: whole}}, ALONE)
            self._name, self._flat = name, whole.view(-1)
        return self._flat[start:stop]


def base_of_run(one: Input) -> Input:
    """Return the base that a run continued, which was found to be the planned one."""
    assert one.at is not None
    conduct = one.at.plan.conduct
    hub_id = hub_id_of(conduct)
    name = hub_id or Path(conduct.base_folder).name
    return Input(conduct.base_name, name, one.form, one.form.facts.weights_fingerprint, hub_id)


# What the command line gave


def find_inputs(given: str, option: Option, console: Console) -> list[Input]:
    """Return the models that an argument names; only `RUN@all` names several.

    It may be a folder in Hugging Face format, a hub id (`org/model`, `org/model@revision`), a run
    by its folder or its recipe (its newest verified checkpoint), or `RUN@step`. Raises a UserError
    for whatever cannot be used.
    """
    if not os.path.isdir(os.path.expanduser(given)) and "@" in given:
        head, _, tail = given.rpartition("@")
        run = _find_run(head)
        if run is not None:
            return _of_run(head, run, tail, option, console)
        if looks_like_hub_id(head):
            return [_of_folder(given, head, tail, option)]
    run = _find_run(given)
    if run is not None:
        return _of_run(given, run, "", option, console)
    return [_of_folder(given, given, None, option)]


def _find_run(given: str) -> RunFolder | None:
    """Return the run of a run folder or of a recipe; None where it is neither."""
    path = Path(os.path.expanduser(given))
    if os.path.isfile(path / "plan.json"):
        return RunFolder(path.resolve())
    if path.suffix == ".toml" and os.path.isfile(path):
        return open_run(path)[1]
    return None


def _of_folder(given: str, path: str, revision: str | None, option: Option) -> Input:
    local = os.path.isdir(os.path.expanduser(path))
    folder = find_model(path, revision, Path.cwd(), where=option)
    form = WeightFolder.read(folder)
    name = folder.name if local else given
    hub_id = None if local else path
    return Input(given, name, form, form.facts.weights_fingerprint, hub_id)


def _of_run(
    given: str, run: RunFolder, which: str, option: Option, console: Console
) -> list[Input]:
    plan = load_plan(run.plan)
    check_planned_base(plan)
    form = WeightFolder.read(Path(plan.conduct.base_folder))
    if which == _ALL:
        checkpoints = _kept(run, console)
    elif which:
        checkpoints = [_checkpoint_of(run, which, option)]
    else:
        checkpoints = [newest_checkpoint(run, console)]
    inputs = []
    for checkpoint in checkpoints:
        check_plan(read_saved_state(checkpoint), plan.science, where=run.path)
        at = RunStep(run, plan, checkpoint)
        label = f"{given}@{at.step}"
        name = f"{plan.name}, step {at.step:,}"
        inputs.append(Input(label, name, form, _fingerprint(checkpoint), at=at))
    return inputs


def _kept(run: RunFolder, console: Console) -> list[Path]:
    """Return all verified checkpoints, the oldest first, telling which damaged ones are not."""
    newest = newest_checkpoint(run, console)
    verified = [newest]
    for path in CheckpointStore(run.checkpoints, keep=1).paths():
        if step_of(path) >= step_of(newest):
            continue  # it, or told already
        problems = checkpoint_problems(path, step_of(path))
        if problems:
            told = f"passed over {path.name}: {'; '.join(problems)}"
            console.print(told, markup=False, highlight=False, soft_wrap=True)
        else:
            verified.append(path)
    return verified[::-1]


def _checkpoint_of(run: RunFolder, which: str, option: Option) -> Path:
    paths = {step_of(path): path for path in CheckpointStore(run.checkpoints, keep=1).paths()}
    kept = ", ".join(str(step) for step in sorted(paths)) or "none"
    step = int(which) if which.isascii() and which.isdigit() and len(which) <= 18 else None
    if step is None or step not in paths:
        raise RunFolderError.one(
            option,
            f"{which!r} is no step of which {run.path} keeps a checkpoint",
            f"name one of: {kept}; `@all` names all of them, and checkpoints.keep says how many "
            "a run keeps",
        )
    problems = checkpoint_problems(paths[step], step)
    if problems:
        raise CheckpointError.one(
            str(paths[step]), "; ".join(problems), f"restore it, or name another of: {kept}"
        )
    return paths[step]


def _fingerprint(checkpoint: Path) -> str:
    manifest = read_json(checkpoint / MANIFEST_NAME, what="the manifest", error=CheckpointError)
    return fingerprint(manifest["files"])
