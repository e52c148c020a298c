"""What goes on from a run that raised its replay: trace, branch and extend know what was dealt."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.planning.amendments import append_amendment, read_amendments
from rewarm.planning.plan import load_plan
from rewarm.records.run_folder import RunFolder
from tests.support.road import make_reader_folder

RECIPE = """
name = "trunk"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 2560 }
batch = { tokens = 128, sequence_length = 32 }
sources.new = { path = "my-text", role = "new", held_out = 0.1 }
sources.old = { path = "my-old-text", role = "replay", held_out = 0.1 }
phases = [{ name = "all", weights = { new = 0.5, old = 0.5 } }]
checkpoints = { every_steps = 2, keep = 20 }
training = { num_threads = 1 }
schedule = { kind = "constant" }
[evaluation]
every_steps = 10
max_bytes_per_domain = 1000
on_forgetting = { action = "replay", above = 100, after_steps = 3, ceiling = 0.75 }
"""
# Four sequences a step, two of each source; from step 8 on three of four are old text.
SHOWN_BY_14 = {"new": 8 * 2 + 6 * 1, "old": 8 * 2 + 6 * 3}


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps, trained to 14, whose replay was raised before step 8 was taken."""
    folder = make_reader_folder(tmp_path_factory.mktemp("raised") / "reader")
    recipe = folder / "trunk.toml"
    recipe.write_text(RECIPE)
    assert main(["prepare", str(recipe)]) == 0
    assert main(["train", str(recipe), "--until-step", "8"]) == 0
    run = RunFolder(folder / "runs" / "trunk")
    chain = read_amendments(run.amendments, load_plan(run.plan).fingerprint)
    append_amendment(run.amendments, chain.with_replay(8, 20, 0.75, "a test"))
    assert main(["train", str(recipe), "--until-step", "14"]) == 0
    return folder


def shown(run: Path, steps: range) -> Counter[str]:
    names = [source.name for source in load_plan(run / "plan.json").science.sources]
    found: Counter[str] = Counter()
    for record in RunFolder(run).steps():
        if record.step in steps:
            found.update(dict(zip(names, record.samples, strict=True)))
    return found


def traced(run: Path, step: int, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["trace", str(run), "--step", str(step), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_trace_tells_what_a_raised_run_was_dealt(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trunk / "runs" / "trunk"
    assert shown(run, range(14)) == SHOWN_BY_14
    for step, old in ((7, 2), (8, 3), (13, 3)):
        rows = traced(run, step, capsys)
        sources = {(row["sequence"], row["source"]) for row in rows}
        assert Counter(source for _, source in sources)["old"] == old
    capsys.readouterr()
    assert main(["trace", str(run), "--step", "8"]) == 0
    assert "phase all, replay 0.75" in " ".join(capsys.readouterr().out.split())


def test_a_branch_of_a_raised_run_saw_what_it_saw_and_keeps_its_blend(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, branch = trunk / "runs" / "trunk", trunk / "runs" / "b"
    asked = ["branch", str(run), "--anneal", "512", "--at-step", "14", "--name", "b"]
    assert main(asked) == 0
    for step in (0, 7, 8, 13):
        assert traced(branch, step, capsys) == traced(run, step, capsys)
    assert shown(branch, range(14)) == SHOWN_BY_14
    assert shown(branch, range(14, 18)) == {"new": 4, "old": 12}
    # No window that the trunk has shown comes again while there are others.
    rows = [row for step in range(18) for row in traced(branch, step, capsys)]
    windows = {(row["source"], row["window"]) for row in rows}
    assert len(windows) == sum(SHOWN_BY_14.values()) + 16
    # Its own amendments are none; what the rule counts begins with it.
    assert not RunFolder(branch).amendments.exists()
    plan = load_plan(branch / "plan.json")
    assert plan.conduct.evaluation.on_forgetting.after_steps == 14 + 3
    # Its blend is at the ceiling already, which is nobody's mistake.
    assert plan.conduct.evaluation.on_forgetting.action == "warn"
    (why,) = [found for found in plan.reasons if found.field == "evaluation.on_forgetting"]
    assert "as much as the run's ceiling allows" in why.reason


def test_a_blend_below_the_ceiling_is_raised_in_a_branch_too(trunk: Path) -> None:
    asked = ["branch", str(trunk / "runs" / "trunk"), "--anneal", "512", "--at-step", "14"]
    asked += ["--plan-only", "--weights"]
    for name, weights, action in (("w1", "new=0.5,old=0.5", "replay"), ("w2", "new=1", "warn")):
        assert main([*asked, weights, "--name", name]) == 0
        plan = load_plan(trunk / "runs" / name / "plan.json")
        assert plan.conduct.evaluation.on_forgetting.action == action


def test_an_extension_counts_what_a_raised_run_has_shown(trunk: Path) -> None:
    """By hand: 34 samples of `old` are shown by step 14, its cap is 44: 10 more, the rest new."""
    run = trunk / "runs" / "trunk"
    science = load_plan(run / "plan.json").science
    windows = {source.name: source.num_windows for source in science.sources}
    capped = f'path = "my-old-text", max_epochs = {44 / windows["old"]!r},'
    (trunk / "even.toml").write_text(
        RECIPE.replace("{ new = 0.5, old = 0.5 }", '"unimax"')
        .replace('path = "my-old-text",', capped)
        .replace('action = "replay"', 'action = "warn"')
    )
    asked = ["extend", str(run), "--at-step", "14", "--plan-only", "--budget", "+2560"]
    assert main([*asked, "--recipe", str(trunk / "even.toml"), "--name", "even"]) == 0
    plan = load_plan(trunk / "runs" / "even" / "plan.json").science
    names = [source.name for source in plan.sources]
    by_phase = [dict(zip(names, phase.samples, strict=True)) for phase in plan.phases]
    before = {name: sum(phase[name] for phase in by_phase[:-1]) for name in names}
    assert before == SHOWN_BY_14
    assert 9 <= by_phase[-1]["old"] <= 10
    assert sum(by_phase[-1].values()) == 80


def test_a_raised_run_whose_amendments_are_gone_goes_on_nowhere(
    trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(trunk / "runs" / "trunk")
    kept = run.path / "kept.jsonl"
    shutil.move(run.amendments, kept)
    try:
        asked = ["branch", str(run.path), "--anneal", "512", "--at-step", "14", "--name", "lost"]
        assert main([*asked, "--plan-only"]) == 2
        assert "reached under amendments that this run does not have" in capsys.readouterr().err
    finally:
        shutil.move(kept, run.amendments)
