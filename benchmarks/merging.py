"""What merging does to the demo's runs: base with run, and checkpoints along a run.

The demo is run from nothing; its `naive` arm (new text only, so that it forgets) is swept between
base and run, linearly and spherically. A run like it at a constant rate keeps ten checkpoints,
whose average stands beside its last one, beside `naive`, which decayed its rate, and beside the arm
that replays old text.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from record import Figure, write_results

from rewarm.artifacts import read_json
from rewarm.errors import RunFolderError
from rewarm.evaluation.forgetting import domain_verdicts
from rewarm.evaluation.trade_off import mean_change, new_verdicts, old_verdicts
from rewarm.model.load import load_base
from rewarm.records.merging import MergeSweep
from rewarm.records.run_folder import RunFolder
from rewarm.stages.bench import Bench
from rewarm.stages.job import open_run
from rewarm.stages.measuring import suites_of
from rewarm.training.placement import choose_placement

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "recipes" / "merging.svg"
VERSUS = "the base at step 0; one seed, 2.2M parameters, 82k tokens"
_CONSTANT = ("constant.toml", "constant")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name)
        rewarm("demo", "--folder", str(folder))
        (work,) = folder.glob("demo-*")
        naive = RunFolder(work / "runs" / "naive")
        figures = [*swept(naive, "slerp"), *swept(naive, "linear")]
        PICTURE.write_bytes(naive.merge_figure.read_bytes())
        figures += averaged(work)
    write_results("merging", figures)


def rewarm(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "rewarm", *arguments], check=True)


def swept(run: RunFolder, method: str) -> list[Figure]:
    rewarm("merge", "--method", method, "--model", str(run.path), "--sweep")
    value = read_json(run.merge_sweep, what="the sweep", error=RunFolderError)
    sweep = MergeSweep.model_validate(value)
    figures = []
    for point in sweep.points:
        chosen = " (chosen: the knee)" if point.weight == sweep.chosen else ""
        figures += [
            change(f"{method}, weight {point.weight:g}{chosen}: old", point.forgetting.value),
            change(f"{method}, weight {point.weight:g}{chosen}: new", -point.adaptation.value),
        ]
    return figures


def averaged(work: Path) -> list[Figure]:
    """Train `naive` at a constant rate, average what it kept, and measure both."""
    recipe, name = _CONSTANT
    text = (work / "naive.toml").read_text(encoding="utf-8")
    text = text.replace('name = "naive"', f'name = "{name}"', 1)
    text = text.replace('final_lr = "peak/10"\n', 'kind = "constant"\n', 1)
    text = text.replace(
        "[checkpoints]\nevery_steps = 20", "[checkpoints]\nkeep = 10\nevery_steps = 2"
    )
    (work / recipe).write_text(text, encoding="utf-8")
    rewarm("train", str(work / recipe))
    run = work / "runs" / name
    rewarm("merge", "--method", "average", "--model", f"{run}@all")
    return [
        *measured("last checkpoint at a constant rate", run, None),
        *measured("average of its last ten", run, run / "merged"),
        *measured("the same steps with a decayed rate", work / "runs" / "naive", None),
        *measured("a quarter replayed instead (rewarm)", work / "runs" / "rewarm", None),
    ]


def measured(name: str, path: Path, model: Path | None) -> list[Figure]:
    plan, run = open_run(path)
    records = [record for record in run.evals() if record.metric == "bits_per_byte"]
    if model is not None:
        from rich.console import Console

        placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
        bench = Bench(plan, run, suites_of(plan).light, placement, Console(quiet=True))
        merged = bench.measured(load_base(model), plan.science.num_steps)
        records = [*(record for record in records if record.step == 0), *merged]
    verdicts = domain_verdicts(records)
    figures = []
    for what, found in (("old", old_verdicts(verdicts)), ("new", new_verdicts(verdicts))):
        mean = mean_change(found)
        assert mean is not None
        figures.append(change(f"{name}: {what}", mean.change))
    return figures


def change(name: str, value: float) -> Figure:
    return Figure(name, value + 0.0, "bits per byte", "lower", versus=VERSUS)


if __name__ == "__main__":
    main()
