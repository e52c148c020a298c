"""`rewarm prepare`: text to token shards, once for all recipes that share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rewarm.corpus.bins import ensure_packing
from rewarm.corpus.chat import OpenChat
from rewarm.corpus.executors import Executor
from rewarm.corpus.overlap import check_held_out_apart
from rewarm.corpus.prepare import PrepareProgress, prepare_source
from rewarm.errors import BaseModelError, CorpusError, Problems, UserError
from rewarm.planning.blends import used_sources
from rewarm.planning.size import sequence_length_of
from rewarm.records.facts import CorpusFacts
from rewarm.stages.console import PrepareConsole, ledger_table
from rewarm.stages.curating import HarnessTexts, curate_documents
from rewarm.stages.job import Job, open_job
from rewarm.stages.plan import plan_job
from rewarm.stages.selecting import ScoringModels, select_documents, show_selections
from rewarm.stages.survey import note_unmade, survey

__all__ = ["ModelTools", "prepare_job", "run_prepare"]


@dataclass(frozen=True, slots=True)
class ModelTools:
    """What preparing asks of the base itself.

    It needs torch and transformers, which `rewarm prepare` does not load where nothing asks for
    them: so whoever calls hands it in.
    """

    open_chat: OpenChat
    scoring: ScoringModels
    harness_texts: HarnessTexts


def run_prepare(path: Path, overrides: Iterable[str], tools: ModelTools) -> None:
    """Prepare every source of the recipe and show the ledger; see `prepare_job`."""
    job = open_job(path, overrides)
    facts = prepare_job(job, tools)
    console = Console()
    console.print(ledger_table(facts))
    show_selections(facts, console)
    _show_exposure(job, console)
    console.print(
        f"tokens are in {job.prepared_root}", markup=False, highlight=False, soft_wrap=True
    )


def _show_exposure(job: Job, console: Console) -> None:
    """Show what the plan would show of each source: first time, repeats, epochs."""
    from rewarm.reporting.blend_terminal import exposure_table

    try:
        plan = plan_job(job, estimates_allowed=False)
    except UserError as error:
        # The text is prepared; how often it may be shown is the plan's to say.
        console.print(
            f"\nit cannot be planned yet:\n{error}", markup=False, highlight=False, soft_wrap=True
        )
    else:
        console.print("", exposure_table(plan))


def prepare_job(job: Job, tools: ModelTools) -> list[CorpusFacts]:
    """Return the measured facts of every source, preparing what is not prepared yet.

    Documents are scored where the recipe keeps some of them by a score, and packed for the recipe's
    sequence length.

    Raises UserError with every mistake in base and files before the work begins. Sources that fail
    later do not stop the others; their problems are raised together at the end.
    """
    found = survey(job)
    for rehearsal in found.unmade():
        note_unmade(rehearsal, found.problems)
    found.raise_as(CorpusError)
    assert found.model is not None
    problems = Problems()
    facts: list[CorpusFacts] = []
    executor = Executor(job.recipe.prepare)
    with PrepareConsole() as console:
        for text in found.texts:

            def show(progress: PrepareProgress) -> None:
                console.update(progress)

            try:
                facts.append(
                    prepare_source(
                        text,
                        prepared_root=job.prepared_root,
                        vocab_size=found.model.vocab_size,
                        progress=show,
                        open_chat=tools.open_chat,
                        executor=executor,
                    )
                )
            except (CorpusError, BaseModelError) as error:
                problems.extend(error.problems)
    problems.raise_as(CorpusError)
    facts = curate_documents(job, facts, found, tools.harness_texts)
    facts = select_documents(job, facts, found, tools.scoring)
    _pack(facts, sequence_length_of(job.recipe, found.model))
    trained = set(used_sources(job.recipe))
    check_held_out_apart(facts, trained)
    return facts


def _pack(corpora: Sequence[CorpusFacts], sequence_length: int | None) -> None:
    """Make the bins of what is kept of each source; raises CorpusError with all that fail."""
    if sequence_length is None:
        return
    problems = Problems()
    for facts in corpora:
        try:
            ensure_packing(facts, sequence_length, verified=True)
        except CorpusError as error:
            problems.extend(error.problems)
    problems.raise_as(CorpusError)
