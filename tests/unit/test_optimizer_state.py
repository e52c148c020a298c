"""What a plan sees of the base's optimizer state, and that a run keeps to it."""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rewarm.artifacts import write_json
from rewarm.cli import main
from rewarm.errors import BaseModelError, EnvironmentFault
from rewarm.model.load import load_base
from rewarm.planning.plan import load_plan
from rewarm.recipe.base import BaseRecipe
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.records.facts import OptimizerStateFacts
from rewarm.records.run_folder import RunFolder
from rewarm.stages.optimizer_state import find_optimizer_state
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.saved import read_saved_state
from tests.support.model_folders import LLAMA_SHAPES, write_model, write_safetensors
from tests.support.road import make_reader_folder
from tests.support.tiny_plans import new_tiny_model, train_tiny

MOMENTS = {
    f"{moment}.{name}": shape
    for name, shape in LLAMA_SHAPES.items()
    for moment in ("exp_avg", "exp_avg_sq")
}


def found(folder: Path, name: str) -> OptimizerStateFacts:
    base = folder / "base"
    if not base.exists():
        write_model(base)
    facts = find_optimizer_state(BaseRecipe(path="base", optimizer_state=name), folder, base)
    assert facts is not None
    return facts


def refused(folder: Path, name: str) -> list[str]:
    with pytest.raises(BaseModelError) as caught:
        found(folder, name)
    return [problem.what for problem in caught.value.problems]


def test_none_is_named() -> None:
    assert find_optimizer_state(BaseRecipe(path="base"), Path(), None) is None


def test_moments_by_name_in_a_file_or_in_several(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "moments.safetensors", {**MOMENTS, "step": []})
    facts = found(tmp_path, "moments.safetensors")
    assert (facts.kind, facts.path) == ("safetensors", str(tmp_path / "moments.safetensors"))
    folder = tmp_path / "in two"
    folder.mkdir()
    names = list(MOMENTS)
    for number, part in enumerate((names[:3], names[3:])):
        shapes: dict[str, Sequence[int]] = {name: MOMENTS[name] for name in part}
        write_safetensors(folder / f"optimizer-{number}.safetensors", {**shapes, "step": []})
    (told,) = set(refused(tmp_path, "in two"))
    assert told == "tensor step stands in two files"
    write_safetensors(folder / "optimizer-1.safetensors", {n: MOMENTS[n] for n in names[3:]})
    assert found(tmp_path, "in two").kind == "safetensors"


def test_everything_that_a_header_shows_is_told_at_once(tmp_path: Path) -> None:
    shapes: dict[str, Sequence[int]] = dict(MOMENTS)
    del shapes["exp_avg.lm_head.weight"]
    shapes["exp_avg.model.norm.weight"] = [9]
    shapes["state1.model.norm.weight"] = [8]
    types = {"exp_avg_sq.model.norm.weight": "U8"}
    write_safetensors(tmp_path / "m.safetensors", shapes, dtypes=types)
    assert refused(tmp_path, "m.safetensors") == [
        "exp_avg_sq.lm_head.weight stands without exp_avg.lm_head.weight",
        "tensor exp_avg_sq.model.norm.weight is U8, no floating-point numbers",
        "tensor state1.model.norm.weight is no moment of a parameter",
        "nothing says how many updates the moments have had, which the bias correction counts",
        "exp_avg.model.norm.weight is [9], the base's model.norm.weight [8]",
    ]


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state": {}}))


def other_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing")


@pytest.mark.parametrize("write", [bare_pickle, other_archive, Path.touch])
def test_what_is_no_file_of_torch_is_not_opened(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "optimizer.pt")
    told = "it is neither safetensors nor an archive of torch.save"
    assert refused(tmp_path, "optimizer.pt") == [told]


def test_what_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path, "x" * 5000)[0].startswith("there is no ")
    (tmp_path / "empty").mkdir()
    (told,) = refused(tmp_path, "empty")
    assert told.startswith("it holds no optimizer*.safetensors, no optimizer.pt and no .metadata")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    assert refused(tmp_path, "cut.safetensors")[0].startswith("truncated")


def test_a_trainers_folder_tells_its_steps(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    torch.save({"state": {}}, folder / "optimizer.pt")
    assert found(tmp_path, "checkpoint-7").num_updates is None
    write_json(folder / "trainer_state.json", {"global_step": 7})
    facts = found(tmp_path, "checkpoint-7")
    assert (facts.kind, facts.num_updates) == ("torch", (7, 7))
    assert facts.path == str(folder / "optimizer.pt")


def test_a_checkpoint_of_ours_by_its_folder_or_its_file(tmp_path: Path) -> None:
    train_tiny(tmp_path / "run", until_step=5)
    folder = RunFolder(tmp_path / "run").checkpoints / "step-00000005"
    facts = found(tmp_path, str(folder))
    assert (facts.kind, facts.num_updates, facts.betas) == ("checkpoint", (5, 5), (0.9, 0.95))
    assert found(tmp_path, str(folder / "optimizer.safetensors")) == facts


@pytest.mark.parametrize("name", ["checkpoint", "moments.safetensors", "optimizer.pt", "parts"])
def test_the_fingerprint_is_of_the_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "checkpoint":
        train_tiny(tmp_path / "run", until_step=5)
        (RunFolder(tmp_path / "run").checkpoints / "step-00000005").rename(path)
        inside = path / "optimizer.safetensors"
    elif name == "parts":
        path.mkdir()
        (path / ".metadata").write_bytes(b"metadata")
        inside = path / "__0_0.distcp"
        inside.write_bytes(bytes(100))
    elif name == "optimizer.pt":
        torch.save(torch.zeros(100), path)
        inside = path
    else:
        write_safetensors(path, {**MOMENTS, "step": []})
        inside = path
    before = found(tmp_path, name).fingerprint
    assert found(tmp_path, name).fingerprint == before
    if name == "optimizer.pt":
        torch.save(torch.ones(100), path)
    else:
        data = bytearray(inside.read_bytes())
        data[-1] ^= 1
        inside.write_bytes(data)
    assert found(tmp_path, name).fingerprint != before


RECIPE = """
name = "{name}"
budget = {{ tokens = "2k" }}
batch = {{ sequence_length = 64, tokens = 256 }}
sources.new = {{ path = "my-text", role = "new", held_out = 0.1 }}
phases = [{{ name = "general", weights = {{ new = 1 }} }}]
evaluation = {{ max_bytes_per_domain = 2000 }}
[base]
path = "{base}"
pretraining = {{ peak_lr = 1e-2, final_lr = 1e-3 }}
{more}
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a first run is trained and exported, and a second one goes on from it."""
    folder = make_reader_folder(tmp_path_factory.mktemp("reader"))
    (folder / "first.toml").write_text(RECIPE.format(name="first", base="my-model", more=""))
    for verb in ("prepare", "train", "export"):
        assert main([verb, str(folder / "first.toml")]) == 0
    (left,) = (folder / "runs/first/checkpoints").glob("step-00000007")
    left.rename(folder / "left")
    return folder


def second(reader: Path, name: str, more: str = 'optimizer_state = "left"') -> Path:
    path = reader / f"{name}.toml"
    path.write_text(RECIPE.format(name=name, base="runs/first/export", more=more))
    return path


def test_a_run_goes_on_with_the_moments_of_another(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = second(reader, "second")
    assert main(["plan", str(recipe)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "taken over, 7 updates" in shown
    assert "the schedule is this plan's" in shown.replace("│ ", "")
    assert main(["prepare", str(recipe)]) == 0
    capsys.readouterr()
    assert main(["train", str(recipe)]) == 0
    assert "the base's optimizer state is taken over, 7 updates" in capsys.readouterr().out
    run = RunFolder(reader / "runs/second")
    plan = load_plan(run.plan)
    assert plan.conduct.optimizer_state is not None
    assert plan.science.optimizer_state == plan.conduct.optimizer_state.fingerprint
    saved = read_saved_state(max(run.checkpoints.glob("step-*")))
    assert set(saved.optimizer_steps.values()) == {7 + plan.science.num_steps}


def test_moments_make_the_run_another(reader: Path) -> None:
    """Same base, text and rate: the second update already differs."""
    fresh, again = second(reader, "fresh", ""), second(reader, "again")
    losses = []
    for recipe in (fresh, again):
        assert main(["prepare", str(recipe)]) == 0
        assert main(["train", str(recipe), "--until-step", "3"]) == 0
        losses.append([r.loss for r in RunFolder(reader / "runs" / recipe.stem).steps()])
    assert losses[0][0] == losses[1][0]
    assert losses[0][1:] != losses[1][1:]


def test_a_changed_state_is_refused(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the recipe, and by the run folder, whose plan does not look again before it trains."""
    recipe = second(reader, "changing", 'optimizer_state = "moments.safetensors"')
    tensors = load_file(reader / "left" / "optimizer.safetensors") | {"step": torch.tensor(7)}
    path = reader / "moments.safetensors"
    save_file(tensors, path)
    assert main(["prepare", str(recipe)]) == 0
    assert main(["plan", str(recipe)]) == 0
    tensors["exp_avg.model.norm.weight"] *= 2
    save_file(tensors, path)
    capsys.readouterr()
    assert main(["train", str(reader / "runs/changing")]) == 2
    assert "moments.safetensors: it changed since the plan" in capsys.readouterr().err
    path.unlink()
    assert main(["train", str(reader / "runs/changing")]) == 2
    assert "moments.safetensors: it is gone" in capsys.readouterr().err
    # Planned anew with what is there now, it runs; from then on the plan stays.
    save_file(tensors, path)
    assert main(["train", str(recipe), "--until-step", "2"]) == 0
    tensors["exp_avg.model.norm.weight"] *= 2
    save_file(tensors, path)
    capsys.readouterr()
    assert main(["train", str(recipe)]) == 2
    assert "optimizer_state:" in capsys.readouterr().err


def test_a_flipped_bit_of_a_torch_file_is_noticed(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Moments of it would be finite still: the archive's checksums tell."""
    model = load_base(reader / "my-model")
    peer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    peer.step()
    path = reader / "flipped.pt"
    torch.save(peer.state_dict(), path)
    content = bytearray(path.read_bytes())
    place = content.index(peer.state[next(model.parameters())]["exp_avg"].numpy().tobytes())
    content[place + 1] ^= 1
    path.write_bytes(content)
    recipe = second(reader, "flipped", 'optimizer_state = "flipped.pt"')
    assert main(["prepare", str(recipe)]) == 0
    capsys.readouterr()
    assert main(["train", str(recipe), "--until-step", "1"]) == 2
    assert "flipped.pt: it is damaged: flipped/data/" in capsys.readouterr().err


def test_rates_and_betas_that_differ_are_warned_of(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = 'optimizer_state = "left"\n[schedule]\npeak_lr = 4e-3\n[optimizer]\nbetas = [0.9, 0.99]'
    assert main(["plan", str(second(reader, "warned", more))]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "formed at a rate of about 0.001; this run's peak is 4 times that" in shown
    assert "They fit again after some 100 updates" in shown
    assert "taken with betas [0.9, 0.95], this run goes on with [0.9, 0.99]" in shown


def test_a_missing_torchao_is_told_by_the_plan(
    reader: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = second(reader, "eight", '[optimizer]\nkind = "adamw8bit"')
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["plan", str(recipe)]) == 2
    told = capsys.readouterr().err
    assert "optimizer.kind: adamw8bit is torchao's, which is not installed" in told
    assert "pip install torchao" in told


def test_a_missing_torchao_is_no_traceback_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(EnvironmentFault, match="cannot be imported"):
        build_optimizer(trainable_parameters(new_tiny_model()), OptimizerRecipe(kind="adamw8bit"))


def test_eight_bits_are_planned_with_less_memory(
    reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    sizes = []
    for name, kind in (("thirty-two", "adamw"), ("eight", "adamw8bit")):
        recipe = second(reader, name, f'[optimizer]\nkind = "{kind}"')
        assert main(["plan", str(recipe)]) == 0
        plan = load_plan(RunFolder(reader / "runs" / name).plan)
        (memory,) = (e for e in plan.estimates if e.name == "weights, gradients and moments")
        sizes.append(memory.value / plan.conduct.model.num_parameters)
    assert sizes == [16, pytest.approx(10.03, abs=0.01)]
