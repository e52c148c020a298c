"""Finds the moments that a base's pretraining left, and what can be known without opening a pickle.

Names, shapes and types stand in the headers of safetensors files. An `optimizer.pt` and the parts
of many ranks are read by torch, before the first step; here they are only seen to be there.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from rewarm.artifacts import canonical_json, file_sha256, parse_json
from rewarm.errors import BaseModelError, CheckpointError, Problems, remedy_of
from rewarm.planning.plan import Plan
from rewarm.planning.weight_files import (
    FLOAT_BYTES,
    WeightTensor,
    read_weight_file,
    read_weight_files,
    weights_fingerprint,
)
from rewarm.recipe.base import BaseRecipe
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.records.facts import OptimizerStateFacts
from rewarm.training.saved import SavedState, is_checkpoint, read_saved_state

__all__ = ["check_planned_optimizer_state", "find_optimizer_state"]

_WHERE = "base.optimizer_state"
_PARTS = ".metadata"
_TORCH_NAME = "optimizer.pt"
_SAFETENSORS = "optimizer*.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_END_BYTES = 2**20


def find_optimizer_state(
    base: BaseRecipe, recipe_folder: Path, base_folder: Path | None
) -> OptimizerStateFacts | None:
    """Return the facts of the state that a recipe names; None where it names none.

    `base_folder` is where the base's weights are, whose shapes the moments must have; None: they
    are not compared. Raises BaseModelError with everything found wrong.
    """
    if base.optimizer_state is None:
        return None
    path = recipe_folder / os.path.expanduser(base.optimizer_state)
    # os.path, unlike Path, answers False where a name is too long.
    if not os.path.exists(path):
        raise BaseModelError.one(
            _WHERE,
            f"there is no {path}",
            "give a rewarm checkpoint, a file of moments by name, an optimizer.pt or a DCP folder; "
            "leave it out for fresh moments",
        )
    problems = Problems()
    try:
        facts = _facts_of(path.resolve(), base_folder, problems)
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror})", remedy_of(error))
    problems.raise_as(BaseModelError)
    return facts


def check_planned_optimizer_state(plan: Plan) -> None:
    """Raise BaseModelError where a plan's optimizer state is not what was planned with, or damaged.

    An `optimizer.pt` has a checksum of each record, which torch does not look at in a mapped file:
    all of it is read once.
    """
    planned = plan.conduct.optimizer_state
    if planned is None:
        return
    problems = Problems()
    path = Path(planned.path)
    found = _facts_of(path, None, problems) if path.exists() else None
    problems.raise_as(BaseModelError)
    if found is None or found.fingerprint != plan.science.optimizer_state:
        what = "it is gone" if found is None else "it changed since the plan"
        raise BaseModelError.one(
            planned.path, what, "restore it, or plan a run of another name from what is there now"
        )
    damaged = _damaged_record(Path(found.path)) if found.kind == "torch" else None
    if damaged is not None:
        what = f"it is damaged: {damaged} was altered"
        raise BaseModelError.one(planned.path, what, "restore it from a copy")


def _facts_of(
    path: Path, base_folder: Path | None, problems: Problems
) -> OptimizerStateFacts | None:
    """Return the facts of a file or folder; None, with problems noted, where it is of no kind."""
    folder = path.parent if path.name == "optimizer.safetensors" else path
    if is_checkpoint(folder):
        return _checkpoint_facts(folder, base_folder, problems)
    if path.is_file() and path.suffix != ".safetensors":
        return _torch_facts(path, problems)
    if (path / _PARTS).is_file():
        return _facts(path, "dcp", _prints_of_parts(path))
    files = [path] if path.is_file() else sorted(path.glob(_SAFETENSORS))
    if files:
        return _safetensors_facts(path, files, base_folder, problems)
    if (path / _TORCH_NAME).is_file():
        return _torch_facts(path / _TORCH_NAME, problems)
    problems.add(
        str(path),
        f"it holds no {_SAFETENSORS}, no {_TORCH_NAME} and no {_PARTS} of a DCP folder",
        "name the folder or file that holds the moments",
    )
    return None


def _facts(path: Path, kind: str, prints: Sequence[object]) -> OptimizerStateFacts:
    digest = hashlib.sha256(canonical_json([kind, *prints]).encode()).hexdigest()
    return OptimizerStateFacts.model_validate(
        {"path": str(path), "kind": kind, "fingerprint": digest}
    )


def _checkpoint_facts(
    folder: Path, base_folder: Path | None, problems: Problems
) -> OptimizerStateFacts | None:
    """Return the facts of a checkpoint of rewarm, whole or in parts, of 8 bits or 32."""
    before = len(problems)
    try:
        saved = read_saved_state(folder)
    except CheckpointError as error:
        problems.extend(error.problems)
        return None
    counts = saved.optimizer_steps.values()
    prints: list[object] = [saved.optimizer_steps]
    if (folder / _PARTS).is_file():
        prints += _prints_of_parts(folder)
    else:
        file = read_weight_file(folder / "optimizer.safetensors", problems)
        if file is not None:
            prints.append(weights_fingerprint([file]))
            if base_folder is not None:
                _compare_shapes(folder, file.tensors, base_folder, problems)
    if len(problems) > before:
        return None
    more = {"num_updates": (min(counts), max(counts)), "betas": _betas_of(saved)}
    return _facts(folder, "checkpoint", prints).model_copy(update=more)


def _betas_of(saved: SavedState) -> tuple[float, float] | None:
    try:
        return OptimizerRecipe.model_validate(saved.science.get("optimizer")).betas
    except ValidationError:
        return None


def _safetensors_facts(
    path: Path, files: Sequence[Path], base_folder: Path | None, problems: Problems
) -> OptimizerStateFacts | None:
    before = len(problems)
    read = [file for name in files if (file := read_weight_file(name, problems)) is not None]
    tensors = [tensor for file in read for tensor in file.tensors]
    if len(problems) == before:
        _check_tensors(path, tensors, problems)
        if base_folder is not None:
            _compare_shapes(path, tensors, base_folder, problems)
    if len(problems) > before:
        return None
    return _facts(path, "safetensors", [weights_fingerprint(read)])


def _check_tensors(path: Path, tensors: Sequence[WeightTensor], problems: Problems) -> None:
    """Note what is no moment, has no partner, no count of updates, or no floating type."""
    fix = "keep exp_avg.<parameter>, exp_avg_sq.<parameter> and step alone (docs/optimizer.md)"
    names = Counter(tensor.name for tensor in tensors)
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        kind, _, name = tensor.name.partition(".")
        if names[tensor.name] > 1:
            problems.add(str(path), f"tensor {tensor.name} stands in two files", fix)
        if kind == "step" and not tensor.shape:
            continue
        if kind not in _MOMENTS or not name:
            problems.add(str(path), f"tensor {tensor.name} is no moment of a parameter", fix)
            continue
        if tensor.dtype not in FLOAT_BYTES:
            what = f"tensor {tensor.name} is {tensor.dtype}, no floating-point numbers"
            problems.add(str(path), what, fix)
        partner = f"{_MOMENTS[1 - _MOMENTS.index(kind)]}.{name}"
        if partner not in names:
            problems.add(str(path), f"{tensor.name} stands without {partner}", fix)
    if not any(name.partition(".")[0] == "step" for name in names):
        problems.add(
            str(path),
            "nothing says how many updates the moments have had, which the bias correction counts",
            "add a tensor step (one number), or give the whole rewarm checkpoint",
        )


def _compare_shapes(
    path: Path, tensors: Iterable[WeightTensor], base_folder: Path, problems: Problems
) -> None:
    """Note moments of another shape than the base's tensor of that name.

    Names that the base does not have are left to the launch: transformers may rename on loading.
    """
    files = read_weight_files(base_folder, Problems())
    shapes = {tensor.name: tensor.shape for file in files for tensor in file.tensors}
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        kind, _, name = tensor.name.partition(".")
        if kind in _MOMENTS and shapes.get(name, tensor.shape) != tensor.shape:
            problems.add(
                str(path),
                f"{tensor.name} is {list(tensor.shape)}, the base's {name} {list(shapes[name])}",
                "give the optimizer state of this very base",
            )


def _torch_facts(path: Path, problems: Problems) -> OptimizerStateFacts | None:
    """Return the facts of a file of torch.save, by the directory of its archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [[entry.filename, entry.file_size, entry.CRC] for entry in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        entries = []
    if not any(str(name).endswith("/data.pkl") for name, _, _ in entries):
        problems.add(
            str(path),
            "it is neither safetensors nor an archive of torch.save",
            "give the optimizer.pt of a Trainer, or save the moments as safetensors "
            "(docs/optimizer.md); bare pickles are not opened",
        )
        return None
    updates = _trainer_steps(path.parent / "trainer_state.json")
    facts = _facts(path, "torch", [path.stat().st_size, entries])
    return facts.model_copy(update={"num_updates": updates})


def _damaged_record(path: Path) -> str | None:
    """Return a record of an archive that does not have its checksum, or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        return str(error)


def _trainer_steps(path: Path) -> tuple[int, int] | None:
    """Return the updates that a Trainer says it has made, beside its optimizer.pt."""
    try:
        steps = parse_json(path.read_bytes())["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (steps, steps) if type(steps) is int else None


def _prints_of_parts(folder: Path) -> list[object]:
    """Return what tells DCP folders apart: the metadata, names, sizes and ends of the parts."""
    prints: list[object] = [file_sha256(folder / _PARTS)]
    for part in sorted(folder.glob("*.distcp")):
        with part.open("rb") as file:
            head = file.read(_END_BYTES)
            file.seek(max(0, part.stat().st_size - _END_BYTES))
            ends = hashlib.sha256(head + file.read(_END_BYTES)).hexdigest()
        prints.append([part.name, part.stat().st_size, ends])
    return prints
