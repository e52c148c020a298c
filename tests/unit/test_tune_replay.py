"""`rewarm tune --replay` on a tiny model: thirteen short runs, a law, a share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.planning.plan import load_plan
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder
from tests.unit.test_tune import KNOWN, RECIPE

TOKENS = ["--tokens", "2048"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("tune-replay"))
    recipe = RECIPE.format(name="t", pretraining=KNOWN)
    (folder / "t.toml").write_text(recipe)
    only_new = recipe.replace("new = 0.75, old = 0.25", "new = 1.0")
    only_new = only_new[: only_new.index("until = { fraction = 0.5 }")]
    (folder / "only.toml").write_text(only_new.replace('"t"', '"only"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "t.toml"]) == 0
        assert main(["tune", "t.toml", "--replay", *TOKENS]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def found_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs/t/tune/replay.json").read_text())
    return found


def test_the_runs_are_the_recipe_in_small(folder: Path) -> None:
    found = found_in(folder)
    assert len(found["runs"]) == len(found["trials"]) == 13
    sizes = [(trial["replay"], trial["num_tokens"]) for trial in found["trials"]]
    assert sizes[:4] == [(0.0, 512), (0.05, 512), (0.25, 512), (0.75, 512)]
    assert sizes[-1] == (0.1, 4096)
    assert found["tokens_spent"] == 4 * (512 + 1024 + 2048) + 4096
    for place, (replay, tokens) in zip(found["runs"], sizes, strict=True):
        science = load_plan(folder / "runs/t" / place / "plan.json").science
        names = [source.name for source in science.sources]
        # Both phases of the recipe, at the same fractions, each with this share of old text.
        assert [phase.end_step / science.num_steps for phase in science.phases] == [0.5, 1.0]
        for phase in science.phases:
            shares = dict(zip(names, phase.weights, strict=True))
            assert shares.get("old", 0) == pytest.approx(65_536 * replay, abs=1)
        assert science.num_tokens == tokens
        assert not RunFolder(folder / "runs/t" / place).checkpoints.exists()


def test_figures_are_the_records_own(folder: Path) -> None:
    found = found_in(folder)
    for place, trial in zip(found["runs"], found["trials"], strict=True):
        run = RunFolder(folder / "runs/t" / place)
        last = max(record.step for record in run.evals())
        by_place = {(r.step, r.domain): r.value for r in run.evals()}
        for side in ("old", "new"):
            change = by_place[last, side] - by_place[0, side]
            assert trial[side]["loss"] == pytest.approx(change)
            assert 0 < trial[side]["standard_error"] < 0.1
        assert trial["new"]["share"] == pytest.approx(1 - trial["replay"])


def test_what_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "t.toml").read_text()
    first = (folder / "runs/t/tune/replay.json").read_text()
    assert main(["tune", "t.toml", "--replay", *TOKENS, "--tolerance", "10"]) == 2
    assert "10 bits per byte cannot be meant" in capsys.readouterr().err
    assert main(["tune", "t.toml", "--replay", *TOKENS]) == 0
    told = capsys.readouterr().out
    assert told.index("Rule: the change in bits per byte") < told.index("run 1 of 13")
    # What is done is not made again, and comes to the same.
    assert told.count("was made before") == 13
    assert (folder / "runs/t/tune/replay.json").read_text() == first
    assert "18.4k tokens, 46% of the budget" in told
    assert "The shortest has 4 steps: old loss jumps within the first 40" in told
    assert "The run that the law had not seen (replay 10%, 4.1k tokens): old text" in told
    # A model that knows nothing forgets nothing: no replay is needed.
    assert found_in(folder)["finding"]["share"] == 0.0
    assert "weights = { new = 1 }" in told
    assert (folder / "t.toml").read_text() == before
    svg = (folder / "runs/t/tune/replay.svg").read_text()
    assert svg.startswith("<svg")
    assert "share of old text in the run" in svg


def test_a_rate_of_its_own_tolerance_is_asked_of_the_same_runs(folder: Path) -> None:
    assert main(["tune", "t.toml", "--replay", *TOKENS, "--tolerance", "0"]) == 0
    assert found_in(folder)["finding"]["tolerance"] == 0.0


def test_what_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "t.toml"]) == 2
    assert "--replay (thirteen" in capsys.readouterr().err
    assert main(["tune", "t.toml", "--lr", "--replay", "--around", "1e-3"]) == 2
    said = capsys.readouterr().err
    assert "it tunes one thing at a time" in said
    assert "--around" in said
    assert main(["tune", "t.toml", "--lr", "--tolerance", "0.1"]) == 2
    assert "it is for --replay" in capsys.readouterr().err
    assert main(["tune", "only.toml", "--replay", *TOKENS]) == 2
    assert "no phase shows old text" in capsys.readouterr().err
    assert main(["tune", "t.toml", "--replay", "--tokens", "600"]) == 2
    assert "not four steps of 128" in capsys.readouterr().err
    given = ["-o", "schedule.match_area=0.1"]
    assert main(["tune", "t.toml", "--replay", *TOKENS, *given]) == 2
    assert "short runs have a smaller area" in capsys.readouterr().err
