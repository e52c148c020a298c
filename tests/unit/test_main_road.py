"""The verbs one after the other, as a person gives them, on a tiny model; and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from rewarm.cli import main
from rewarm.planning.amendments import Amendments, append_amendment
from rewarm.planning.plan import Placement, load_plan
from rewarm.records.probe_trial import TrialReply, TrialRequest
from rewarm.records.run_folder import RunFolder
from rewarm.stages import probe_trial
from tests.support.road import make_reader_folder

FLAGS = [
    *("--base", "my-model", "--text", "my-text", "--replay", "my-old-text"),
    *("--budget", "20k", "--peak-lr", "1e-2", "--final-lr", "1e-3"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder in which `short.toml` has two steps behind it."""
    folder = make_reader_folder(tmp_path_factory.mktemp("reader"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "short.toml", *FLAGS]) == 0
        named = 'name = "short"\n'
        text = (folder / "short.toml").read_text()
        text = text.replace(named, named + 'prepared_folder = "elsewhere"\n')
        (folder / "short.toml").write_text(text)
        assert main(["prepare", "short.toml"]) == 0
        assert main(["train", "short.toml", "--until-step", "2"]) == 0
    recipe = (folder / "short.toml").read_text().replace('name = "short"', 'name = "r"')
    (folder / "r.toml").write_text(recipe)
    (folder / "hub.toml").write_text(recipe.replace('path = "my-model"', 'path = "org/absent"'))
    (folder / "bad.toml").write_text('budgett = 1\nname = "x"\n')
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_the_whole_road(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "recipe.toml", *FLAGS]) == 0
    assert "It plans 156 steps" in capsys.readouterr().out

    assert main(["train", "recipe.toml"]) == 2
    told = capsys.readouterr().err
    assert "sources.new: it is not prepared" in told
    assert "sources.replay: it is not prepared" in told

    assert main(["plan", "recipe.toml"]) == 0
    assert "token counts are estimated from a sample" in capsys.readouterr().out
    assert main(["prepare", "recipe.toml"]) == 0
    assert "Data ledger" in capsys.readouterr().out
    assert main(["plan", "recipe.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"] is True

    assert main(["train", "recipe.toml", "--until-step", "20"]) == 0
    assert "go on: rewarm train recipe.toml" in capsys.readouterr().out
    assert main(["train", "recipe.toml"]) == 0
    told = capsys.readouterr().out
    assert "resumed from step-00000020" in told
    assert "finished after 156 steps" in told

    run = RunFolder(folder / "runs" / "recipe")
    steps = run.steps()
    assert [record.step for record in steps] == list(range(156))
    plan = load_plan(run.plan)
    for record in steps:
        assert record.lr == plan.science.lr(record.step)
    assert {record.step for record in run.evals()} == set(plan.conduct.evaluation_steps)
    assert steps[-1].loss < steps[0].loss

    assert main(["evaluate", "recipe.toml"]) == 0
    assert "improved" in capsys.readouterr().out
    assert main(["evaluate", "runs/recipe", "--model", "my-model"]) == 0
    assert "kept" in capsys.readouterr().out

    assert main(["report", "recipe.toml"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "recipe" in run.report.read_text(encoding="utf-8")

    assert main(["export", "runs/recipe"]) == 0
    assert "exported and verified" in capsys.readouterr().out
    assert main(["trace", "short.toml", "--step", "7"]) == 0
    assert "left out" not in capsys.readouterr().out
    short = RunFolder(folder / "runs" / "short")
    chain = Amendments(load_plan(short.plan).fingerprint).with_skip(7, 8, "a test")
    append_amendment(short.amendments, chain)
    assert main(["trace", "short.toml", "--step", "7"]) == 0
    assert "left out by an amendment" in capsys.readouterr().out
    short.amendments.unlink()
    assert main(["trace", "short.toml", "--step", "7", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tokens = sum(row["last"] - row["first"] for row in rows)
    assert tokens == plan.science.tokens_per_step
    assert all("my-" in row["document"] for row in rows)

    assert main(["run", "recipe.toml", "--yes"]) == 0
    told = capsys.readouterr().out
    assert "step-" not in told

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run.export)
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    inputs = tokenizer("the model trains on", return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + 5


def test_a_trial_takes_real_steps_and_leaves_the_run_alone(folder: Path, tmp_path: Path) -> None:
    run = RunFolder(folder / "runs" / "short")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    (tmp_path / "plan.json").write_bytes(run.plan.read_bytes())
    request = TrialRequest(
        folder=str(tmp_path), micro_batch_sequences=1, checkpointing="full", measures_all=True
    )
    (tmp_path / "request.json").write_text(request.model_dump_json())
    probe_trial.main(tmp_path / "request.json")
    reply = TrialReply.model_validate_json((tmp_path / "reply.json").read_text())
    trial = reply.trial
    assert (trial.micro_batch_sequences, trial.checkpointing, trial.fits) == (1, "full", True)
    assert Placement.model_validate(reply.placement).checkpointing == "full"
    assert 4 <= trial.num_steps <= 40
    assert 0 < trial.step_s <= trial.slowest_step_s
    assert 0 < trial.process_bytes < trial.peak_bytes <= reply.limit_bytes
    assert trial.steps_bytes == trial.peak_bytes - trial.process_bytes
    assert trial.evaluation_tokens > 0
    assert trial.evaluation_s > 0
    # Weights and two moments in float32, and what lies beside them.
    num_parameters = load_plan(run.plan).conduct.model.num_parameters
    assert 12 * num_parameters < trial.checkpoint_bytes < 14 * num_parameters + 200_000
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


@pytest.mark.slow
def test_a_plan_stands_on_a_probe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = ["-o", 'name="probed"', "-o", "training.micro_batch_sequences=1"]
    named += ["-o", 'training.activation_checkpointing="selective"']
    assert main(["plan", "r.toml", "--probe", *named]) == 0
    said = capsys.readouterr()
    assert "tokens/s, peak" in said.err
    assert "measured on" in said.out
    run = RunFolder(folder / "runs" / "probed")
    placement = Placement.model_validate_json(run.placement.read_text())
    assert (placement.micro_batch_sequences, placement.checkpointing) == (1, "selective")
    assert main(["train", "r.toml", "--until-step", "2", *named]) == 0
    trained = Placement.model_validate_json(run.placement.read_text())
    assert trained.model_copy(update={"provenance": placement.provenance}) == placement


def test_a_changed_plan_does_not_touch_a_run_that_has_begun(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "runs" / "short" / "plan.json").read_bytes()
    assert main(["train", "short.toml", "-o", "seed=2"]) == 2
    told = capsys.readouterr().err
    assert "this run has begun under another plan: seed: 1 → 2" in told
    assert "give the changed recipe another name" in told
    assert (folder / "runs" / "short" / "plan.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "absent.toml"], "the recipe cannot be read (No such file or directory)"),
        (["train", "my-text"], "there is no plan.json, so this is not a run folder yet"),
        (["evaluate", "my-model"], "rewarm evaluate RECIPE --model my-model` measures a model"),
        (["plan", "bad.toml"], "no such key\n    → did you mean 'budget'?"),
        (["plan", "r.toml", "-o", "base.path=./nowhere"], "there is no folder"),
        (["plan", "r.toml", "-o", "base.path=my-text/000.txt"], "is a file"),
        (["plan", "r.toml", "-o", "base.path=my-text"], "config.json: it is not there"),
        (["plan", "r.toml", "-o", "sources.new.path=absent"], "'absent' matches no file"),
        (["trace", "short.toml", "--step", "10000"], "10000 is not a step of this plan"),
        (["evaluate", "r.toml"], "there is no plan.json"),
        (["init", "r.toml", *FLAGS], "there is a file already"),
        (["init", "x.toml"], "3 problems"),
        (["init", "x.toml", *FLAGS[:-6], "--budget", "many"], "'many' is not a count"),
        (["export", "short.toml", "--dtype", "int3", "--output", "e"], "'int3' is not known"),
        (["train", "short.toml", "--sink", "tensorbord"], "did you mean tensorboard"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_mistake_is_one_message_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert "Traceback" not in captured.err + captured.out


def test_a_hub_that_cannot_be_reached_is_the_machines_fault(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "hub.toml"]) == 1
    told = capsys.readouterr().err
    assert "the hub cannot be reached for 'org/absent'" in told
    assert "give its folder as base.path" in told


def test_refusals_of_the_hub_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    response = Mock()
    for error, told in (
        (errors.GatedRepoError("gated", response=response), "is gated: its owner grants access"),
        (errors.RepositoryNotFoundError("gone", response=response), "neither a folder"),
        (errors.RevisionNotFoundError("gone", response=response), "has no revision"),
    ):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        assert main(["plan", "hub.toml"]) == 2
        assert told in capsys.readouterr().err


def test_a_fault_of_ours_prints_no_traceback_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import rewarm.stages.plan

    def break_down(*_: object, **__: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(rewarm.stages.plan, "plan_job", break_down)
    assert main(["plan", "short.toml"]) == 1
    told = capsys.readouterr().err
    assert "unexpected fault: KeyError: 'a fault'" in told
    assert "Traceback" not in told
    monkeypatch.setenv("REWARM_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["plan", "short.toml"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_no_memory_is_told_in_words(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import rewarm.stages.train

    monkeypatch.setattr(rewarm.stages.train, "train_plan", Mock(side_effect=error))
    assert main(["train", "short.toml"]) == 1
    told = capsys.readouterr().err
    assert "error: no memory: " in told
    assert "training.micro_batch_sequences" in told
    assert "unexpected fault" not in told


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_base_that_is_gone_is_told_to_whoever_goes_on_with_the_run(
    folder: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = folder / "my-model"
    model.rename(folder / "elsewhere-model")
    try:
        assert main([verb, "runs/short"]) == 2
    finally:
        (folder / "elsewhere-model").rename(model)
    assert "restore the base where it was" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["plan", "prepare", "train", "evaluate", "run"])
def test_a_key_press_in_any_verb_is_answered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rewarm.stages.job.load_recipe", press)
    assert main([verb, "short.toml"]) == 130
    told = capsys.readouterr().err
    assert "stopped by the keyboard; the same command goes on where it was" in told
