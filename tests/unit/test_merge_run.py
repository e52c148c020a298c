"""`rewarm merge` on a run: its checkpoints, the sweep on its held-out text, and its report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from rewarm.cli import main
from rewarm.errors import UserError
from rewarm.evaluation.statistics import paired_bootstrap
from rewarm.evaluation.trade_off import choose_weight
from rewarm.model.load import load_base
from rewarm.planning.plan import load_plan
from rewarm.records.merging import MergeSweep
from rewarm.records.run_folder import RunFolder
from rewarm.stages.bench import Bench
from rewarm.stages.measuring import suites_of
from rewarm.stages.merge import MergeRequest, run_merge
from rewarm.stages.merge_inputs import find_inputs
from rewarm.training.checkpoint import CheckpointStore
from rewarm.training.lock import hold_lock
from rewarm.training.placement import choose_placement
from tests.support.forgetful_run import make_forgetful_run
from tests.support.html_page import Page

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_forgetful_run(folder)
    return folder


@pytest.fixture
def here(road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The road as its author left it, to be written into."""
    folder = Path(shutil.copytree(road, tmp_path / "road"))
    for plan in folder.glob("runs/*/plan.json"):  # paths of the base and the text are absolute
        plan.write_text(plan.read_text().replace(str(road), str(folder)))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(here: Path) -> RunFolder:
    return RunFolder(here / "runs" / "run")


def sweep_of(run: RunFolder) -> MergeSweep:
    return MergeSweep.model_validate_json(run.merge_sweep.read_text())


def measured(run: RunFolder, model: Path) -> dict[str, float]:
    """Bits per byte by domain of a model folder, as `rewarm evaluate` measures them."""
    plan = load_plan(run.plan)
    placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
    bench = Bench(plan, run, suites_of(plan).light, placement, QUIET)
    return {r.domain: r.value for r in bench.measured(load_base(model), 1)}


# The sweep


def test_the_sweep_from_end_to_end(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "--model", "runs/run", "--sweep", "--grid", "0.5,0.25"]) == 0
    told = capsys.readouterr().out
    assert told.index("rule: the knee") < told.index("evaluating weight")
    assert "adaptation" in told
    assert "chosen:" in told
    assert "merged and verified" in told

    sweep = sweep_of(run)
    assert [point.weight for point in sweep.points] == [0.0, 0.25, 0.5, 1.0]
    assert (sweep.old_domains, sweep.new_domains, sweep.step) == (("old",), ("new",), 24)
    first, *_, last = sweep.points
    assert first.forgetting.value == first.adaptation.value == 0.0
    # Weight 1 is the run itself: what was measured when it ended, to the digit.
    at_end = {r.domain: r for r in run.evals() if r.step == 24 and r.metric == "bits_per_byte"}
    at_zero = {r.domain: r for r in run.evals() if r.step == 0 and r.metric == "bits_per_byte"}
    assert last.forgetting.value == at_end["old"].value - at_zero["old"].value
    assert last.adaptation.value == at_zero["new"].value - at_end["new"].value
    old = paired_bootstrap(
        at_end["old"].item_values,
        at_zero["old"].item_values,
        at_end["old"].item_weights,
        seed=0,
    )
    per_bit = 1 / torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
    assert last.forgetting.low == pytest.approx(old.low * per_bit, rel=1e-12)
    assert last.forgetting.high == pytest.approx(old.high * per_bit, rel=1e-12)
    assert last.forgetting.low is not None
    assert last.forgetting.low > 0.5  # it forgot, or there is nothing to trade
    assert last.adaptation.low is not None
    assert last.adaptation.low > 0.5

    chosen = choose_weight(sweep.points)
    assert (sweep.chosen, sweep.reason) == chosen
    # What was measured in memory is what was written.
    in_sweep = next(point for point in sweep.points if point.weight == sweep.chosen)
    found = measured(run, run.merged)
    assert found["old"] - at_zero["old"].value == pytest.approx(in_sweep.forgetting.value, abs=1e-9)
    assert at_zero["new"].value - found["new"] == pytest.approx(in_sweep.adaptation.value, abs=1e-9)

    card = (run.merged / "README.md").read_text(encoding="utf-8")
    assert "## How the weight was chosen" in card
    assert "| old | general | bits per byte of text" in card
    assert "| chat format | general | bits per byte of answers in a chat" in card
    for page in (run.report, run.merge_report):
        assert f"weight {sweep.chosen:g}: " in page.read_text(encoding="utf-8")
    assert "merging" in Page(run.report.read_text(encoding="utf-8")).ids
    assert run.merge_figure.read_text(encoding="utf-8").startswith("<svg")


def test_a_sweep_that_was_stopped_goes_on_where_it_was(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    measure = Bench.measured

    def interrupted(self: Bench, model: torch.nn.Module, step: int, what: str = "") -> object:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(what)
        return measure(self, model, step, what)

    request = MergeRequest(models=("runs/run",), sweep=True, grid="0.25,0.5,0.75")
    monkeypatch.setattr(Bench, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_merge(request, QUIET)
    assert not run.merge_sweep.exists()

    def counted(self: Bench, model: torch.nn.Module, step: int, what: str = "") -> object:
        taken.append(what)
        return measure(self, model, step, what)

    monkeypatch.setattr(Bench, "measured", counted)
    run_merge(request, QUIET)
    assert taken == ["weight 0.25", "weight 0.5", "weight 0.75", "weight 1"]
    run_merge(request, QUIET)
    assert len(taken) == 4
    # Another method, and another type, are other models.
    run_merge(MergeRequest("slerp", models=("runs/run",), sweep=True, grid="0.5"), QUIET)
    assert taken[4:] == ["weight 0.5", "weight 1"]
    run_merge(MergeRequest(models=("runs/run",), sweep=True, grid="0.5", dtype="bfloat16"), QUIET)
    assert taken[6:] == ["weight 0.5", "weight 1"]


def test_a_tolerance_that_nothing_meets_chooses_the_base(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["merge", "--model", "runs/run", "--sweep", "--grid", "0.5", "--tolerance", "0"]
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "rule: the most adaptation whose forgetting lies below 0 bits per byte" in told
    assert "nothing was written: the chosen model is the base itself" in told
    assert sweep_of(run).chosen == 0.0
    assert not run.merged.exists()


def test_a_sweep_measures_against_the_runs_own_base(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "--model", "runs/run", "--base", "raw", "--sweep"]) == 2
    told = capsys.readouterr()
    assert "raw is not the base of" in told.err
    assert "runs/run@24 was not continued from raw" in told.out


def test_nobody_sweeps_into_the_records_of_a_launch_under_way(run: RunFolder) -> None:
    with (
        hold_lock(run.lock, lambda message: None),
        pytest.raises(UserError, match="it is in use by"),
    ):
        run_merge(MergeRequest(models=("runs/run",), sweep=True), QUIET)


def test_a_run_without_old_text_has_no_trade_off(run: RunFolder) -> None:
    plan = json.loads(run.plan.read_text())
    plan["conduct"]["corpora"]["old"]["role"] = "qa"
    run.plan.write_text(json.dumps(plan))
    with pytest.raises(UserError, match="it holds out no old text"):
        run_merge(MergeRequest(models=("runs/run",), sweep=True), QUIET)


# Checkpoints


def test_steps_of_a_run_and_all_that_it_keeps(
    here: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [path.name for path in sorted(run.checkpoints.iterdir())]
    assert steps == ["step-00000016", "step-00000020", "step-00000024"]
    assert main(["merge", "--method", "average", "--model", "runs/run@all"]) == 0
    parts = [load_file(run.checkpoints / step / "model.safetensors") for step in steps]
    for name, tensor in load_file(run.merged / "model.safetensors").items():
        mean = torch.stack([part[name].double() for part in parts]).mean(0)
        assert torch.allclose(tensor, mean.float(), rtol=1e-7, atol=0), name
    assert "| model | run, step 16 | 1 |" in (run.merged / "README.md").read_text(encoding="utf-8")

    given = ["merge", "--method", "average", "--model", "run.toml@16", "--model", "runs/run@20"]
    assert main([*given, "--output", "two"]) == 0
    capsys.readouterr()
    assert main([*given[:-1], "runs/before"]) == 2
    assert "--output: it is missing, and 2 runs are merged" in capsys.readouterr().err
    assert main([*given, "--model", "runs/run@5", "--output", "three"]) == 2
    told = capsys.readouterr().err
    assert "'5' is no step of which" in told
    assert "name one of: 16, 20, 24" in told
    for one in ("--weight 0.5", "--sweep", "--method slerp", "--method chat-vector --instruct raw"):
        assert main(["merge", "--model", "runs/run@all", *one.split()]) == 2
        assert "--model: 3 were given, and " in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (16, 24):
        path = run.checkpoints / f"step-000000{step}" / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    assert main(["merge", "--model", "runs/run@24"]) == 2
    assert "model.safetensors was altered" in capsys.readouterr().err
    assert main(["merge", "--model", "runs/run"]) == 0
    told = capsys.readouterr().out
    assert "passed over step-00000024" in told
    assert "runs/run@20" in told
    # Of all, one is left, which is no average.
    assert main(["merge", "--method", "average", "--model", "runs/run@all"]) == 2
    told = capsys.readouterr().out
    assert told.count("passed over") == 2


def test_another_base_under_the_run_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(here / "raw" / "model.safetensors", here / "base" / "model.safetensors")
    assert main(["merge", "--model", "runs/run"]) == 2
    assert "its weights changed since the plan" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_checkpoint_in_parts_is_the_whole_one(here: Path, run: RunFolder) -> None:
    """As many ranks write it: the tensors in DCP's shards."""
    parted = RunFolder(Path(shutil.copytree(run.path, here / "runs" / "parted")))
    shutil.rmtree(parted.checkpoints)
    whole = run.checkpoints / "step-00000024"
    tensors = {
        f"{group}.{name}": tensor
        for group in ("model", "optimizer")
        for name, tensor in load_file(whole / f"{group}.safetensors").items()
    }

    def write(folder: Path) -> None:
        save(tensors, storage_writer=FileSystemWriter(folder), no_dist=True)
        shutil.copy(whole / "state.json", folder)

    CheckpointStore(parted.checkpoints, keep=1).save(24, write)
    for name in ("run", "parted"):
        assert main(["merge", "--model", f"runs/{name}", "--weight", "0.5"]) == 0
    one, other = (load_file(folder.merged / "model.safetensors") for folder in (run, parted))
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())
    (found,) = find_inputs("runs/parted@24", "--model", QUIET)
    assert found.name == "run, step 24"


def test_a_run_with_adapters_is_merged_as_it_is_exported(here: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    adapter = 'parameters.adapter={ kind = "lora", rank = 4, alpha = 8, targets = ["attention"] }'
    given = ["run.toml", "-o", "name=lora", "-o", adapter, "-o", f"budget.tokens={512 * 8}"]
    assert main(["train", *given]) == 0
    run = RunFolder(here / "runs" / "lora")
    assert main(["export", "runs/lora"]) == 0
    assert main(["merge", "--model", "runs/lora", "--sweep", "--grid", "0.5"]) == 0
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".merging-")]
    assert main(["merge", "--model", "runs/lora", "--weight", "1", "--output", "whole"]) == 0
    exported = load_file(run.export / "model.safetensors")
    for name, tensor in load_file(here / "whole" / "model.safetensors").items():
        assert torch.equal(exported[name], tensor), name
    last = sweep_of(run).points[-1]
    base, end = measured(run, here / "base")["old"], measured(run, run.export)["old"]
    assert last.forgetting.value == pytest.approx(end - base, abs=1e-9)


@pytest.mark.parametrize(
    "parameters",
    [
        'parameters={ train = ["layers.1"] }',
        'parameters={ freeze = ["embeddings", "norms"] }',
    ],
)
def test_what_a_run_never_trained_is_taken_from_its_base(here: Path, parameters: str) -> None:
    """Its checkpoints do not hold it."""
    given = ["run.toml", "-o", "name=part", "-o", parameters, "-o", f"budget.tokens={512 * 8}"]
    assert main(["train", *given]) == 0
    run = RunFolder(here / "runs" / "part")
    assert main(["export", "runs/part"]) == 0
    assert main(["merge", "--model", "runs/part", "--sweep", "--grid", "0.5"]) == 0
    for weight, same in ((1, run.export), (0, here / "base")):
        output = here / f"at-{weight}"
        given = ["--weight", str(weight), "--output", str(output)]
        assert main(["merge", "--model", "runs/part", *given]) == 0
        expected = load_file(same / "model.safetensors")
        for name, tensor in load_file(output / "model.safetensors").items():
            assert torch.equal(expected[name], tensor), name
    kept = len(list(run.checkpoints.glob("step-*")))
    assert kept > 1
    everything = ["--method", "average", "--model", "runs/part@all", "--output", "averaged"]
    assert main(["merge", *everything]) == 0


# The run's own place for it


def test_an_earlier_merge_is_put_aside(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    def merged(weight: str) -> str:
        assert main(["merge", "--model", "runs/run", "--weight", weight]) == 0
        return capsys.readouterr().out

    merged("0.5")
    assert "merged already" in merged("0.5")
    first = load_file(run.merged / "model.safetensors")
    assert "the earlier merge is now merged-" in merged("0.25")
    (aside,) = run.path.glob("merged-*")
    kept = load_file(aside / "model.safetensors")
    assert all(torch.equal(first[name], tensor) for name, tensor in kept.items())
    # One that is damaged does not count, and is not thrown away.
    (run.merged / "tokenizer.json").write_text("{}")
    told = merged("0.25")
    assert "the earlier merge is damaged: tokenizer.json" in told
    assert "-damaged" in told
    # What is no merge at all is nobody's to move.
    shutil.rmtree(run.merged)
    run.merged.mkdir()
    assert main(["merge", "--model", "runs/run", "--weight", "0.5"]) == 2
    assert "there is something already" in capsys.readouterr().err


# The chat format of a base that carries one


def test_what_is_kept_of_the_chat_format_is_on_record(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = [record for record in run.evals() if record.metric == "chat_bits_per_byte"]
    assert {record.step for record in chat} == {record.step for record in run.evals()}
    assert {(record.domain, record.role) for record in chat} == {("chat format", "general")}
    assert chat[-1].value > chat[0].value  # numbers are no chat
    assert main(["evaluate", "runs/run"]) == 0
    assert "chat format" in capsys.readouterr().out
    assert main(["report", "runs/run"]) == 0
    assert "Forgot" in run.report.read_text(encoding="utf-8")
    assert main(["plan", "run.toml"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the base carries a chat template" in told
    assert "rewarm merge --method chat-vector" in told


@pytest.fixture
def messages(here: Path) -> Path:
    path = here / "messages.jsonl"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "the text"}]
    path.write_text((json.dumps({"messages": turns}) + "\n") * 8)
    return path


def test_a_recipes_own_messages_take_the_place_of_the_built_in_ones(
    here: Path, run: RunFolder, messages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["-o", f"evaluation.chat={messages.name}"]
    assert main(["prepare", "run.toml", *given]) == 0  # other text is measured on
    assert main(["plan", "run.toml", *given]) == 0
    assert main(["evaluate", "run.toml", *given]) == 0
    chat = [record for record in run.evals() if record.metric == "chat_bits_per_byte"]
    assert {r.step for r in chat if len(r.item_values) == 8} == {0, 24}
    messages.write_text('{"messages": []}\n')
    capsys.readouterr()
    assert main(["plan", "run.toml", *given]) == 2
    told = capsys.readouterr().err
    assert "evaluation.chat: " in told
    assert "messages.jsonl:1: messages is not a list of one or more" in told
