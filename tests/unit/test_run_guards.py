"""What keeps a run folder one run: its plan, its base, its checkpoints, its export."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rewarm.cli import main
from rewarm.errors import EnvironmentFault
from rewarm.planning.plan import Plan, load_plan
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import Job, keep_plan
from rewarm.training.lock import hold_lock
from rewarm.training.state import read_weights
from tests.support.road import make_reader_folder

FLAGS = [
    *("--base", "my-model", "--text", "my-text", "--replay", "my-old-text"),
    *("--budget", "2k", "--peak-lr", "1e-2", "--final-lr", "1e-3"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder with a prepared recipe `r.toml` of 15 steps."""
    folder = make_reader_folder(tmp_path / "reader", num_documents=60)
    monkeypatch.chdir(folder)
    assert main(["init", "r.toml", *FLAGS]) == 0
    assert main(["prepare", "r.toml"]) == 0
    return folder


def run_of(folder: Path) -> RunFolder:
    return RunFolder(folder / "runs" / "r")


def test_a_plan_is_not_written_under_a_launch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "r.toml"]) == 0
    run = run_of(folder)
    before = run.plan.read_bytes()
    # As at the evaluation of step 0: locked, and nothing of a training on the disk yet.
    with hold_lock(run.lock, lambda message: None):
        for verb in ("plan", "train"):
            assert main([verb, "r.toml", "-o", "seed=2"]) == 2
            assert "it is in use by process" in capsys.readouterr().err
            assert run.plan.read_bytes() == before
        assert main(["plan", "r.toml"]) == 0
        assert main(["train", "r.toml"]) == 2
    assert main(["plan", "r.toml", "-o", "seed=2"]) == 0
    assert load_plan(run.plan).science.seed == 2


def test_a_plan_that_changed_before_the_lock_was_held_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def overtaken(plan: Plan, job: Job) -> None:
        keep_plan(plan, job)
        assert main(["plan", "r.toml", "-o", "seed=2"]) == 0

    monkeypatch.setattr("rewarm.stages.train.keep_plan", overtaken)
    assert main(["train", "r.toml"]) == 2
    assert "planned this run anew in the meantime" in capsys.readouterr().err
    assert not run_of(folder).has_begun()


def test_a_damaged_plan_is_made_again_and_only_for_the_same_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    run = run_of(folder)
    whole = run.plan.read_bytes()
    run.plan.write_bytes(whole[:-30])
    assert main(["train", "runs/r"]) == 2
    assert "make it again with the command that wrote it" in capsys.readouterr().err
    assert main(["train", "r.toml", "-o", "seed=2"]) == 2, "the checkpoint knows its own"
    assert "seed: 1 → 2" in capsys.readouterr().err
    assert main(["train", "r.toml", "--until-step", "4"]) == 0
    assert "resumed from step-00000002" in capsys.readouterr().out
    assert load_plan(run.plan).science.seed == 1
    assert (run.path / "plan.damaged.json").read_bytes() == whole[:-30]


def test_text_that_went_from_under_a_run_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    before = run_of(folder).plan.read_bytes()
    shutil.rmtree(folder / "prepared")
    assert main(["plan", "r.toml"]) == 2
    assert "its text is no longer prepared as it was" in capsys.readouterr().err
    assert run_of(folder).plan.read_bytes() == before
    assert main(["prepare", "r.toml"]) == 0
    assert main(["train", "r.toml", "--until-step", "4"]) == 0


@pytest.mark.parametrize("verb", ["train", "evaluate", "export"])
def test_another_base_under_the_plan_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    weights = folder / "my-model" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 0.5 for name, tensor in tensors.items()}, weights)
    capsys.readouterr()
    assert main([verb, "runs/r"]) == 2
    assert "its weights changed since the plan" in capsys.readouterr().err
    assert run_of(folder).steps()[-1].step == 1


def test_a_damaged_checkpoint_is_named_by_every_verb(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    assert main(["train", "r.toml", "--until-step", "4"]) == 0
    newest = run_of(folder).checkpoints / "step-00000004" / "model.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[-1] ^= 1
    newest.write_bytes(raw)
    for verb in ("evaluate", "export"):
        capsys.readouterr()
        assert main([verb, "runs/r"]) == 0
        assert "passed over step-00000004: model.safetensors" in capsys.readouterr().out


def test_the_export_of_an_earlier_step_is_put_aside(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    assert main(["export", "r.toml"]) == 0
    assert main(["export", "r.toml"]) == 0
    assert "exported already" in capsys.readouterr().out
    run = run_of(folder)
    early = load_file(run.export / "model.safetensors")
    assert main(["run", "r.toml", "--yes"]) == 0
    assert run.report.exists()
    aside = run.path / "export-step-00000002"
    kept, last = load_file(aside / "model.safetensors"), load_file(run.export / "model.safetensors")
    assert all(torch.equal(early[name], kept[name]) for name in early)
    assert not all(torch.equal(early[name], last[name]) for name in early)
    # Two types of one step: the first is kept too.
    assert main(["export", "r.toml", "--dtype", "bfloat16"]) == 0
    assert (run.path / "export-step-00000015").is_dir()
    # What cannot be made takes nothing away.
    assert main(["export", "r.toml", "--dtype", "int8"]) == 2
    assert (run.export / "config.json").exists()
    # A damaged one is named, kept, and made again.
    (run.export / "README.md").write_text("completed by its owner")
    capsys.readouterr()
    assert main(["export", "r.toml"]) == 0
    assert "exported already" in capsys.readouterr().out
    (run.export / "model.safetensors").write_bytes(b"")
    (run.export / "config.json").unlink()
    assert main(["export", "r.toml"]) == 0
    said = capsys.readouterr().out
    assert "is damaged: config.json is missing; model.safetensors has 0 bytes" in said
    assert (run.path / "export-step-00000015-damaged" / "README.md").exists()
    again = load_file(run.export / "model.safetensors")
    assert again["model.norm.weight"].dtype == torch.float32  # the base's own
    # What is not of this run is never moved.
    shutil.rmtree(run.export)
    run.export.mkdir()
    (run.export / "mine.txt").write_text("mine")
    assert main(["export", "r.toml"]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert (run.export / "mine.txt").read_text() == "mine"


def test_held_out_text_that_another_source_trains_on_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        shutil.copy(folder / "my-text" / f"{number:03d}.txt", folder / "my-old-text" / f"c{number}")
        (folder / "my-old-text" / f"c{number}").rename(folder / "my-old-text" / f"c{number}.txt")
    assert main(["prepare", "r.toml"]) == 0, "with one share, copies fall on one side"
    capsys.readouterr()
    shares = ["-o", "sources.new.held_out=0.4", "-o", "sources.replay.held_out=0.01"]
    shares += ["-o", "sources.replay.curate.decontaminate=false"]
    assert main(["prepare", "r.toml", *shares]) == 2
    told = capsys.readouterr().err
    assert "sources.replay" in told
    assert "also held out by source 'new'" in told
    assert "the same held_out" in told
    assert main(["train", "r.toml", *shares]) == 2
    assert "also held out by source 'new'" in capsys.readouterr().err
    assert not run_of(folder).has_begun()


def test_one_text_in_two_groups_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(1)
    rows = [{"text": f"pair {n} {rng.random()}", "group": f"g{n}"} for n in range(60)]
    rows += [{"text": rows[n]["text"], "group": f"h{n}"} for n in range(60)]
    (folder / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = [
        *("-o", "sources.new.path=groups.jsonl", "-o", "sources.new.group_field=group"),
        *("-o", "sources.new.held_out=0.3", "-o", "sources.new.curate.decontaminate=false"),
    ]
    capsys.readouterr()
    assert main(["prepare", "r.toml", *changed]) == 2
    assert "held out too, under another group" in capsys.readouterr().err


def test_bases_that_end_documents_differently_share_no_tokens(folder: Path) -> None:
    assert main(["plan", "r.toml"]) == 0
    first = load_plan(run_of(folder).plan)
    other = folder / "my-other-model"
    shutil.copytree(folder / "my-model", other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "</s>"
    config["eos_token"] = "<s>"
    (other / "tokenizer_config.json").write_text(json.dumps(config))
    changed = ["-o", "base.path=my-other-model", "-o", "name=other"]
    assert main(["prepare", "r.toml", *changed]) == 0
    assert main(["plan", "r.toml", *changed]) == 0
    second = load_plan(RunFolder(folder / "runs" / "other").plan)
    assert first.conduct.corpora["new"].end_tokens == ("</s>",)
    assert second.conduct.corpora["new"].end_tokens == ("<s>",)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ('run_folder="a\\u0000b"', "run_folder: 'a\\x00b' holds a NUL character"),
        ('sources.new.path=["a\\u0000b"]', "sources.new.path: 'a\\x00b' holds a NUL character"),
        ('run_folder="r.toml"', "r.toml is not a folder"),
        ('run_folder="r.toml/below"', "r.toml is not a folder"),
        ('prepared_folder="my-model/config.json"', "config.json is not a folder"),
        ("budget.tokens=9999999999999999999999T", "is above 10^18"),
        ("budget.tokens=99999999999999999999", "is above 10^18"),
        ('evaluation.tasks.exam.path="absent.jsonl"', "absent.jsonl: cannot be read"),
        ('evaluation.tasks.new.path="absent.jsonl"', "a source is called 'new' too"),
        ("training.micro_batch_sequences=7", "7 does not divide the step's"),
    ],
)
def test_a_plan_tells_what_training_would_stumble_over(
    folder: Path, capsys: pytest.CaptureFixture[str], override: str, told: str
) -> None:
    capsys.readouterr()
    assert main(["plan", "r.toml", "-o", override, "-o", "batch.tokens=256"]) == 2
    assert told in capsys.readouterr().err


def test_init_writes_what_it_was_told(folder: Path) -> None:
    text = folder / "new \N{GRINNING FACE} \N{NO-BREAK SPACE}\x7f\ttext"
    shutil.copytree(folder / "my-text", text)
    flags = [
        "--base",
        "my-model",
        "--text",
        text.name,
        "--budget",
        "2k",
        "--peak-lr",
        "1.2345678e-4",
    ]
    assert main(["init", "odd.toml", *flags]) == 0
    assert main(["plan", "odd.toml"]) == 0
    plan = load_plan(RunFolder(folder / "runs" / "odd").plan)
    assert plan.conduct.base_pretraining.peak_lr == 1.2345678e-4
    assert plan.conduct.corpora["new"].num_documents > 0


def test_only_a_plan_on_measured_facts_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "prepared")
    assert main(["plan", "r.toml"]) == 0
    capsys.readouterr()
    assert main(["train", "runs/r"]) == 2
    assert "it stands on estimates of the text" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "evaluate", "export"])
def test_a_shard_that_changed_since_prepare_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    (shard,) = (folder / "prepared").glob("new-*/shard-00000.bin")
    raw = bytearray(shard.read_bytes())
    raw[0] ^= 1
    shard.write_bytes(raw)
    capsys.readouterr()
    assert main([verb, "runs/r"]) == 2
    assert "shard-00000.bin: it changed since prepare" in capsys.readouterr().err
    assert main(["prepare", "r.toml"]) == 0  # as the message says
    assert main([verb, "runs/r"]) in (0, 130)


@pytest.mark.parametrize("verb", ["plan", "prepare", "train"])
def test_a_file_in_two_sources_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert main([verb, "r.toml", "-o", "sources.replay.path=my-text"]) == 2
    assert "also read by source 'new'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["plan", "prepare", "run"])
def test_mistakes_in_base_text_tasks_and_arithmetic_are_told_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    changes = {
        "base.path": "./nowhere",
        "sources.new.path": "no-text",
        "evaluation.tasks.t.path": "no-task.jsonl",
        "schedule.peak_lr": "7",
        "budget.tokens": "10",
    }
    overrides = [f"{key}={value}" for key, value in changes.items()]
    assert main([verb, "r.toml", *(part for o in overrides for part in ("-o", o))]) == 2
    said = capsys.readouterr().err
    assert "there is no folder" in said
    assert "sources.new.path: 'no-text' matches no file" in said
    assert "evaluation.tasks.t.path: " in said
    assert "no-task.jsonl: cannot be read (No such file or directory)" in said
    if verb != "prepare":  # it works for any rate and budget
        assert "schedule.peak_lr: 7 is beyond any learning rate" in said
        assert "10 tokens do not pay for one step" in said


@pytest.mark.parametrize("key", ["base.path", "run_folder", "prepared_folder", "sources.new.path"])
def test_a_path_that_no_system_holds_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    assert main(["plan", "r.toml", "-o", f"{key}={'x' * 5000}"]) == 2
    assert key in capsys.readouterr().err


@pytest.mark.parametrize("key", ["schedule.peak_lr=1e30", "schedule.match_area=1e300"])
def test_rates_beyond_all_measure_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    assert main(["plan", "r.toml", "-o", key]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"rewarm: error: {key.partition('=')[0]}: ")
    assert "beyond any learning rate" in told


def test_changed_text_under_a_run_that_began_is_told_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    first = min((folder / "my-text").iterdir())
    first.write_bytes(first.read_bytes() * 2)
    assert main(["prepare", "r.toml"]) == 0
    capsys.readouterr()
    assert main(["train", "r.toml"]) == 2
    assert "the text of source 'new', or how it is read, changed" in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_hides_no_mistake(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> Path:
        raise EnvironmentFault("the hub cannot be reached", "check the network")

    monkeypatch.setattr("rewarm.stages.survey.find_base", unreachable)
    assert main(["plan", "r.toml"]) == 1
    assert "the hub cannot be reached" in capsys.readouterr().err
    assert main(["plan", "r.toml", "-o", "sources.new.path=no-text"]) == 2
    said = capsys.readouterr().err
    assert "the hub cannot be reached" in said
    assert "matches no file" in said


def test_the_line_that_resumes_says_everything_that_was_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["-o", "name=other-run", "-o", "sources.new.licence=my own", "--sink"]
    assert main(["train", "r.toml", *given, "tensorboard", "--until-step", "2"]) == 0
    said = capsys.readouterr().out
    line = said.partition("go on: ")[2].splitlines()[0]
    words = shlex.split(line)
    assert words[:3] == ["rewarm", "train", "r.toml"]
    assert main([*words[1:], "--until-step", "4"]) == 0
    assert RunFolder(folder / "runs" / "other-run").steps()[-1].step == 3
    assert not (folder / "runs" / "r" / "checkpoints").exists()


def test_nobody_evaluates_into_the_records_of_a_launch_under_way(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    run = run_of(folder)
    logged = run.evals_log.read_bytes()
    with hold_lock(run.lock, lambda message: None):
        assert main(["evaluate", "r.toml"]) == 2
        assert "is in use by process" in capsys.readouterr().err
        assert main(["evaluate", "r.toml", "--model", "my-model"]) == 0
    assert run.evals_log.read_bytes() == logged


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_looked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    run = run_of(folder)
    newest = run.checkpoints / "step-00000002"
    read = read_weights

    def prune_before(path: Path, *rest: Any) -> int:
        if newest.exists():
            assert main(["train", "r.toml", "-o", "checkpoints.keep=1", "--until-step", "4"]) == 0
        return read(path, *rest)

    monkeypatch.setattr("rewarm.stages.trained.read_weights", prune_before)
    assert main(["export", "r.toml"]) == 0
    mark = json.loads((run.export / "rewarm.json").read_text())
    assert (mark["step"], newest.exists()) == (4, False)


def test_nobody_trains_without_a_yes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "r.toml"]) == 2
    assert "the plan wants a yes, and nobody can be asked here" in capsys.readouterr().err
    assert not run_of(folder).has_begun()


def test_what_is_on_record_is_not_measured_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "r.toml"]) == 0
    run = run_of(folder)
    logged = run.evals_log.read_bytes()
    assert main(["evaluate", "r.toml"]) == 0
    assert run.evals_log.read_bytes() == logged


def test_choices_are_measured_at_both_ends_alone(folder: Path) -> None:
    wanted = ["-o", "evaluation.matched_continuation_items=6", "-o", "evaluation.every_steps=5"]
    assert main(["train", "r.toml", *wanted]) == 0
    steps: dict[str, set[int]] = {}
    for record in run_of(folder).evals():
        steps.setdefault(record.metric, set()).add(record.step)
    assert steps["matched_continuation"] == {0, 15}
    assert steps["bits_per_byte"] == {0, 1, 2, 4, 5, 10, 15}


def test_modes_follow_the_umask(folder: Path) -> None:
    script = "import os; os.umask(0o077); from rewarm.cli import main; main()"
    command = [sys.executable, "-c", script, "train", "r.toml", "--until-step", "2"]
    subprocess.run(command, cwd=folder, check=False, capture_output=True)
    written = [path for path in run_of(folder).path.rglob("*") if path.parent.name != "runs"]
    assert len(written) > 8
    assert all(path.stat().st_mode & 0o077 == 0 for path in written)


def test_records_are_flushed_before_the_checkpoint_that_vouches_for_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        done.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    assert main(["train", "r.toml", "--until-step", "2"]) == 0
    named = done.index("step-00000002")
    assert {"steps.jsonl", "evals.jsonl", "events.jsonl"} <= set(done[:named])


def test_documents_without_any_frame_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = ["-o", "tokenizer.document_begin=[]", "-o", "tokenizer.document_end=[]"]
    capsys.readouterr()
    for verb in ("plan", "prepare"):
        assert main([verb, "r.toml", *bare]) == 2
        assert "neither a first nor a last token" in capsys.readouterr().err
