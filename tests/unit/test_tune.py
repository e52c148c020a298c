"""`rewarm tune --lr` on a tiny model: three short runs, one rule, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.planning.plan import load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.stages.train import train_plan
from rewarm.training.step import NonFiniteStep
from tests.support.road import make_reader_folder

RECIPE = """\
name = "{name}"
seed = 3
budget = {{ tokens = "40k" }}
batch = {{ tokens = 128 }}
base = {{ path = "my-model"{pretraining} }}
evaluation = {{ max_bytes_per_domain = 6000, stride_fraction = 1.0 }}
sources.new = {{ path = "my-text", role = "new", held_out = 0.06 }}
sources.old = {{ path = "my-old-text", role = "replay", held_out = 0.06 }}

[[phases]]
name = "general"
weights = {{ new = 0.75, old = 0.25 }}
until = {{ fraction = 0.5 }}

[[phases]]
name = "old"
weights = {{ old = 1.0 }}
"""
KNOWN = ", pretraining = { peak_lr = 1e-2, final_lr = 0 }"
FLAGS = ["--lr", "--tokens", "1024"]
TRAIN = "rewarm.stages.short_run.train_plan"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_reader_folder(tmp_path_factory.mktemp("tune"))
    (folder / "unprepared.toml").write_text(
        RECIPE.format(name="unprepared", pretraining=KNOWN).replace(
            "seed", 'prepared_folder="x"\nseed'
        )
    )
    for name, pretraining in (("t", KNOWN), ("cut", KNOWN), ("bad", KNOWN), ("unknown", "")):
        recipe = RECIPE.format(name=name, pretraining=pretraining)
        (folder / f"{name}.toml").write_text(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "t.toml"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def runs_of(folder: Path, name: str) -> list[RunFolder]:
    found = json.loads((folder / "runs" / name / "tune" / "lr.json").read_text())
    return [RunFolder(folder / "runs" / name / place) for place in found["runs"]]


def test_three_short_runs_and_one_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "t.toml").read_text()
    assert main(["tune", "t.toml", *FLAGS]) == 0
    told = capsys.readouterr().out
    # What is assumed, what is done and by which rule, before anything is done.
    assert "around 1e-3 (the base's final rate is 0; peak × 0.1 is offered instead)" in told
    assert "8 steps (1.02k tokens) of the blend of phase 'general'" in told
    assert told.index("Rule: a rate's score") < told.index("run 1 of 3")
    assert told.count("no phase shows") == 0
    assert (folder / "t.toml").read_text() == before

    found = json.loads((folder / "runs/t/tune/lr.json").read_text())
    assert [trial["rate"] for trial in found["trials"]] == [3.16e-4, 1e-3, 3.16e-3]
    assert found["rule"].startswith("Rule:")
    runs = runs_of(folder, "t")
    for run, trial in zip(runs, found["trials"], strict=True):
        steps = run.steps()
        assert len(steps) == 8
        assert {record.lr for record in steps} == {trial["rate"]}
        assert {record.step for record in run.evals()} == {0, 4, 8}
        assert {record.metric for record in run.evals()} == {"bits_per_byte"}
        # An independent road to the figures: the records' own values.
        by_place = {(r.step, r.domain): r.value for r in run.evals()}
        assert trial["old"] == pytest.approx(by_place[8, "old"] - by_place[0, "old"])
        assert trial["new"] == pytest.approx(by_place[8, "new"] - by_place[0, "new"])
        assert trial["score"] == pytest.approx((trial["old"] + trial["new"]) / 2)
        assert not run.checkpoints.exists()  # a measured run needs no weights
    # A random model learns faster the higher the rate: the best lies above.
    assert found["outcome"] == "above"
    assert "beyond these three. Next: 3.16e-3, 0.01, 0.0316" in " ".join(told.split())
    assert "rewarm tune t.toml --lr --around 0.01 --tokens 1024" in told


def test_they_begin_as_the_recipes_own_run_does(folder: Path) -> None:
    """Same base, same first samples: the loss before any update is the same to the bit."""
    if not (folder / "runs/t/tune/lr.json").exists():
        assert main(["tune", "t.toml", *FLAGS]) == 0
    assert main(["train", "t.toml", "--until-step", "1"]) == 0
    own = RunFolder(folder / "runs" / "t").steps()[0]
    for run in runs_of(folder, "t"):
        assert run.steps()[0].loss == own.loss
        assert run.steps()[0].samples == own.samples


def test_what_is_done_is_not_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "t.toml", *FLAGS]) == 0
    before = {run.path: run.steps_log.read_bytes() for run in runs_of(folder, "t")}
    first = (folder / "runs/t/tune/lr.json").read_text()
    capsys.readouterr()
    assert main(["tune", "t.toml", *FLAGS]) == 0
    assert capsys.readouterr().out.count("was made before") == 3
    assert (folder / "runs/t/tune/lr.json").read_text() == first
    assert {path: RunFolder(path).steps_log.read_bytes() for path in before} == before


def test_other_settings_are_other_runs(folder: Path) -> None:
    assert main(["tune", "t.toml", *FLAGS]) == 0
    before = {run.path for run in runs_of(folder, "t")}
    assert main(["tune", "t.toml", *FLAGS, "-o", "evaluation.max_bytes_per_domain=3000"]) == 0
    assert before.isdisjoint(run.path for run in runs_of(folder, "t"))


def test_one_that_was_cut_off_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut_off(*arguments: Any, **options: Any) -> int:
        train_plan(*arguments, **options, until_step=5)
        return 130

    monkeypatch.setattr(TRAIN, cut_off)
    assert main(["tune", "cut.toml", *FLAGS]) == 130
    told = capsys.readouterr().out
    assert "go on: rewarm tune cut.toml --lr --tokens 1024" in told
    assert not (folder / "runs/cut/tune/lr.json").exists()
    monkeypatch.setattr(TRAIN, train_plan)
    assert main(["tune", "cut.toml", *FLAGS]) == 0
    assert "resumed from step-00000005" in capsys.readouterr().out
    lowest = runs_of(folder, "cut")[0]
    assert [record.step for record in lowest.steps()] == list(range(8))
    assert load_plan(lowest.plan).conduct.evaluation_steps == (0, 4, 8)


def test_a_rate_that_diverges_is_an_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(plan: Any, *arguments: Any, **options: Any) -> int:
        if plan.science.lr(0) > 2e-3:
            raise NonFiniteStep(3, "loss", float("nan"), "rewarm trace x")
        return train_plan(plan, *arguments, **options)

    monkeypatch.setattr(TRAIN, explode)
    assert main(["tune", "bad.toml", *FLAGS]) == 0
    told = capsys.readouterr().out
    assert "diverged" in told
    found = json.loads((folder / "runs/bad/tune/lr.json").read_text())
    assert [trial["diverged"] for trial in found["trials"]] == [False, False, True]
    assert found["rate"] == 1e-3  # better than the lowest, and the next one up diverges
    assert "peak_lr = 0.001" in told
    assert main(["tune", "bad.toml", *FLAGS]) == 0
    assert "constant rate 3.16e-3 was made before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["nothing to tune is named", "add --lr (three short runs"]),
        (["--lr"], ["no recipe is named"]),
        (["no.toml", "--lr"], ["the recipe cannot be read"]),
        (
            ["t.toml", "--lr", "--around", "7", "--tokens", "many"],
            ["--around: 7 is not a learning rate", "--tokens: 'many' is not a count"],
        ),
        (["t.toml", "--lr", "--around", "nan"], ["--around: nan is not a learning rate"]),
        (
            ["t.toml", "--lr", "--around", "0.9", "--tokens", "many"],
            [
                "--around: with 0.9 in the middle one of the three rates is 2.85",
                "--tokens: 'many' is not a count",
            ],
        ),
        (["t.toml", "--lr", "--tokens", "128"], ["128 tokens do not pay for two steps of 128"]),
        (["unprepared.toml", "--lr"], ["sources.new: it is not prepared"]),
        (
            ["unknown.toml", "--lr"],
            ["needs the base's final learning rate", "--around: the recipe leads to no rate"],
        ),
        (
            ["t.toml", *FLAGS, "-o", "sources.new.held_out=0", "-o", "sources.old.held_out=0"],
            ["is not prepared"],
        ),
    ],
)
def test_bad_inputs_are_answered(
    arguments: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    said = capsys.readouterr().err
    for part in told:
        assert part in said
    assert "Traceback" not in said


def test_text_of_which_none_is_held_out_cannot_be_weighed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing = ["-o", "sources.new.held_out=0", "-o", "sources.old.held_out=0"]
    assert main(["prepare", "t.toml", *nothing]) == 0
    assert main(["tune", "t.toml", *FLAGS, *nothing]) == 2
    assert "none of them holds out any text" in capsys.readouterr().err


def test_a_base_of_which_nothing_is_known_is_looked_at_around_a_given_rate(folder: Path) -> None:
    assert main(["tune", "unknown.toml", *FLAGS, "--around", "2e-3"]) == 0
    found = json.loads((folder / "runs/unknown/tune/lr.json").read_text())
    assert found["why"] == "as --around says"
    assert [trial["rate"] for trial in found["trials"]] == [6.32e-4, 2e-3, 6.32e-3]


def test_a_short_run_leaves_out_what_is_laid_out_over_the_whole_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A preset's schedule and phases are replaced, so it is not claimed; no layer freezes."""
    settings = ("preset=rewarm", "freezing.kind=freezeout", "parameters.train=['mlp']")
    overrides = [part for setting in settings for part in ("-o", setting)]
    assert main(["tune", "t.toml", *FLAGS, *overrides]) == 0
    told = capsys.readouterr().out
    assert "preset" not in told
    for run in runs_of(Path(), "t"):
        plan = load_plan(run.plan)
        assert plan.preset is None
        assert len(plan.science.stages) == 1
        assert plan.science.parameters.train == ["mlp"]
        assert len({record.lr for record in run.steps()}) == 1


@pytest.mark.parametrize("action", ["replay", "stop"])
def test_a_short_run_does_nothing_about_what_is_forgotten(action: str) -> None:
    """All rates see the same data to the end, however much one of them forgets on its way."""
    rule = "evaluation.on_forgetting"
    eager = (f"{rule}.action={action}", f"{rule}.above=1e-9", f"{rule}.patience=1")
    settings = (*eager, f"{rule}.after_steps=0", f"name={action}")
    overrides = [part for setting in settings for part in ("-o", setting)]
    assert main(["tune", "t.toml", *FLAGS, "--around", "0.3", *overrides]) == 0
    runs = runs_of(Path(), action)
    forgotten = []
    for run in runs:
        old = {r.step: r.value for r in run.evals() if r.domain == "old"}
        forgotten.append(old[4] > old[0])
        assert run.amended() == []
        assert len(run.steps()) == 8
    assert any(forgotten)  # half-way, where the rule would have acted


def test_a_cap_on_the_whole_runs_evaluation_is_not_a_short_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ["-o", "name=capped", "-o", "evaluation.max_share=0.01", "-o", "budget.tokens=400M"]
    sources = ["-o", "sources.new.max_epochs=1e6", "-o", "sources.old.max_epochs=1e6"]
    reasons = [f"sources.{name}.max_epochs_reason=tiny" for name in ("new", "old")]
    why = [part for reason in reasons for part in ("-o", reason)]
    command = ["t.toml", *settings, *sources, *why]
    assert main(["plan", *command]) == 0, capsys.readouterr().err
    assert main(["tune", *command, *FLAGS]) == 0
    for run in runs_of(Path(), "capped"):
        # Of all the text that the whole run would be measured on.
        assert load_plan(run.plan).conduct.evaluation.max_bytes_per_domain == 6000


def test_the_default_share_of_the_budget_is_as_stated(capsys: pytest.CaptureFixture[str]) -> None:
    """A fiftieth of 40,000 tokens is less than 40 steps of 128; of 4M tokens it is 625 steps."""
    from rewarm.errors import Problems
    from rewarm.recipe.load import load_recipe
    from rewarm.stages.tune import num_tokens_of

    small = load_recipe(Path("t.toml"))
    large = load_recipe(Path("t.toml"), ["budget.tokens=4M"])
    tiny = load_recipe(Path("t.toml"), ["budget.tokens=3000"])
    assert num_tokens_of(small, None, Problems()) == 40 * 128
    assert num_tokens_of(large, None, Problems()) == 80_000
    assert num_tokens_of(tiny, None, Problems()) == 3000
