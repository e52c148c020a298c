"""`rewarm evaluate`: what was learned and what was forgotten, of a run or of any model folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from rewarm.errors import BaseModelError, Problems
from rewarm.model.load import load_base
from rewarm.model.weight_folder import other_tokens
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.terminal import verdict_table
from rewarm.stages.against import note_against, note_weights, open_others
from rewarm.stages.bench import Bench
from rewarm.stages.harness import harness_of
from rewarm.stages.job import open_run
from rewarm.stages.measuring import suite_of
from rewarm.stages.train import open_views
from rewarm.stages.trained import load_planned_base
from rewarm.training.lock import hold_lock
from rewarm.training.placement import choose_placement

__all__ = ["run_evaluate", "show_verdicts"]


def run_evaluate(
    path: Path,
    overrides: Iterable[str],
    *,
    model: Path | None,
    control: Path | None = None,
    joint: Path | None = None,
) -> None:
    """Measure the run's newest checkpoint (or `model`) and the base; print the verdicts, how far
    the weights have gone, and what the run comes to beside a control and beside joint training.

    What is already on record is not measured again. Figures of another model folder are shown
    against the base and not recorded: they are not of this run. Raises RunFolderError where a
    launch under way writes the records.
    """
    if model is not None and not model.is_dir():
        fix = "name a model's folder in Hugging Face format"
        raise BaseModelError.one("--model", f"{model} is no folder", fix)
    plan, run = open_run(path, overrides)
    others = open_others(plan, run, control, joint)
    console = Console()
    open_views(plan)
    # As in training: the same device and the same precision, so that figures can be compared.
    placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
    bench = Bench(plan, run, suite_of(plan), placement, console, harness_of(plan))
    for warning in bench.suite.warnings:
        bench.say(f"warning: {warning}")
    if model is not None:
        base = bench.recorded(0) or bench.measured(
            load_planned_base(plan, device=placement.device), 0
        )
        _check_vocabulary(model, plan)
        other = load_base(model, device=placement.device)
        records = bench.measured(other, max(plan.science.num_steps, 1))
        console.print(verdict_table([*base, *records]))
        return
    with hold_lock(run.lock, bench.say):
        bench.record_base()
        trained = bench.record_newest()
        show_verdicts(run, console)
        note_weights(plan, run, trained, console)
        note_against(run, others, console)


def _check_vocabulary(folder: Path, plan: Plan) -> None:
    """Raise BaseModelError where a model does not read the ids that the plan's text is made of.

    Its embedding has fewer rows, or its tokenizer is another one: another file that gives every id
    the same token is the same tokenizer, saved by another program.
    """
    facts, base = read_model_facts(folder), plan.conduct.model
    problems = Problems()
    if facts.tokenizer_fingerprint != plan.science.tokenizer:
        others, _ = other_tokens(Path(plan.conduct.base_folder), folder)
        if others:
            problems.add(
                str(folder),
                f"its tokenizer ({facts.tokenizer_fingerprint[:12]}) is not the one that the run's "
                f"text was prepared with ({plan.science.tokenizer[:12]}): {len(others)} ids are "
                f"other tokens ({others[0]})",
                "name a model that has the base's tokenizer, or plan a run from this one",
            )
    if facts.vocab_size < base.vocab_size:
        problems.add(
            str(folder),
            f"its embedding has {facts.vocab_size} rows, and the text was prepared for "
            f"{base.vocab_size}",
            "name a model that was made from the run's base",
        )
    problems.raise_as(BaseModelError)


def show_verdicts(run: RunFolder, console: Console) -> None:
    """Print the verdict table of what is on record."""
    console.print(verdict_table(run.evals()))
