"""`rewarm rehearse`: the base makes up the text of the sources that are to be made so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import nn

from rewarm.corpus.place import SourceText
from rewarm.corpus.prefixes import FilePrefixes, NoPrefix, Prefixes, SourcePrefixes
from rewarm.corpus.prepare import PrepareProgress, prepare_source
from rewarm.corpus.rehearsed import Rehearsal
from rewarm.corpus.tokenize import Encoder
from rewarm.corpus.views import open_view
from rewarm.errors import CorpusError, Problems, RecipeError
from rewarm.model.chat_template import chat_renderer
from rewarm.model.load import load_base
from rewarm.records.facts import CorpusFacts, RehearsalFacts
from rewarm.retention.batch_maker import Sampler
from rewarm.retention.rehearsal import rehearse
from rewarm.stages.console import PrepareConsole, RehearseConsole
from rewarm.stages.job import Job, open_job
from rewarm.stages.survey import survey
from rewarm.training.placement import choose_device
from rewarm.units import format_count, format_duration

__all__ = ["rehearsal_table", "rehearse_job", "run_rehearse", "show_rehearsals"]

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def run_rehearse(path: Path, overrides: Iterable[str]) -> None:
    """Sample the text of every source of the recipe that the base makes up; show what came of it.

    Raises RecipeError where the recipe has no such source.
    """
    job = open_job(path, overrides)
    if not _is_wanted(job):
        raise RecipeError.one(
            "sources",
            "none is made up by the base, so there is nothing to sample",
            'add one, e.g. [sources.rehearsed] with role = "replay" and rehearse = '
            '{ tokens = "10M" }',
        )
    made = rehearse_job(job)
    console = Console()
    show_rehearsals(console, made)
    console.print(
        f"tokens are in {job.prepared_root}; `rewarm prepare` takes them over",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _is_wanted(job: Job) -> bool:
    return any(source.rehearse is not None for source in job.recipe.sources.values())


def rehearse_job(job: Job) -> dict[str, RehearsalFacts]:
    """Return the facts of every source that the base makes up, sampling what is not there yet.

    Raises UserError with every mistake in base and files before the work begins. Sources that fail
    later do not stop the others; their problems are raised together at the end.
    """
    if not _is_wanted(job):
        return {}
    found = survey(job)
    found.raise_as(CorpusError)
    unmade = {rehearsal.name for rehearsal in found.unmade()}
    _prepare_prefixes(job, found.unmade())
    problems = Problems()
    made: dict[str, RehearsalFacts] = {}
    with RehearseConsole() as console:
        for rehearsal in found.rehearsals:
            say = partial(console.say, rehearsal.name)
            if rehearsal.name not in unmade:
                say("sampled already, nothing to do")
            try:
                made[rehearsal.name] = rehearse(
                    rehearsal, _sampler(job, rehearsal), say=say, progress=console.update
                )
            except CorpusError as error:
                problems.extend(error.problems)
    problems.raise_as(CorpusError)
    return made


def _prepare_prefixes(job: Job, unmade: Iterable[Rehearsal]) -> None:
    """Prepare the sources whose documents samples will begin like."""
    with PrepareConsole() as console:
        for rehearsal in unmade:
            if isinstance(rehearsal.prefixes, SourceText):
                _prepared(job, rehearsal, rehearsal.prefixes, console.update)


def _prepared(
    job: Job,
    rehearsal: Rehearsal,
    text: SourceText,
    progress: Callable[[PrepareProgress], None] | None = None,
) -> CorpusFacts:
    return prepare_source(
        text,
        prepared_root=job.prepared_root,
        vocab_size=rehearsal.vocab_size,
        progress=progress,
        open_chat=chat_renderer,
    )


def _sampler(job: Job, rehearsal: Rehearsal) -> Sampler:
    training = job.recipe.training
    device = choose_device(training.device)
    num_threads = training.num_threads or torch.get_num_threads()
    dtype = _DTYPES[rehearsal.recipe.precision]

    def load_model() -> nn.Module:
        torch.set_num_threads(num_threads)
        return load_base(rehearsal.base_folder, dtype=dtype, device=str(device))

    name = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
    placement = (
        f"{name}, {rehearsal.recipe.precision}, {num_threads} threads, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
    return Sampler(load_model, partial(_prefixes, job, rehearsal), placement)


def _prefixes(job: Job, rehearsal: Rehearsal, encoder: Encoder) -> Prefixes:
    """Return what samples begin with."""
    wanted = rehearsal.prefixes
    num_tokens = rehearsal.recipe.prefix_tokens
    if wanted is None:
        return NoPrefix()
    if isinstance(wanted, SourceText):
        return SourcePrefixes(open_view(_prepared(job, rehearsal, wanted)), encoder, num_tokens)
    return FilePrefixes(wanted, encoder, num_tokens)


def show_rehearsals(console: Console, made: Mapping[str, RehearsalFacts]) -> None:
    """Print what came of sampling, and what a person should know of it."""
    if not made:
        return
    console.print(rehearsal_table(made))
    for name, facts in made.items():
        for warning in facts.warnings:
            console.print(
                f"{name}: warning: {warning}", markup=False, highlight=False, soft_wrap=True
            )


def rehearsal_table(made: Mapping[str, RehearsalFacts]) -> Table:
    """Return a column per source: samples, what was dropped and why, tokens, rate, variety."""
    table = Table(title="Sampled from the base", title_justify="left", box=None, show_header=True)
    table.add_column("")
    for name in made:
        table.add_column(name, justify="right", header_style="bold")
    reasons = sorted({reason for facts in made.values() for reason in facts.dropped})
    rows: list[tuple[str, list[str]]] = [
        ("samples", [f"{facts.num_samples:,}" for facts in made.values()]),
        ("kept", [_share(facts.num_documents, facts) for facts in made.values()]),
        *(
            (
                f"  {reason}",
                [_share(facts.dropped.get(reason, 0), facts) for facts in made.values()],
            )
            for reason in reasons
        ),
        ("  more than asked for", [_share(facts.num_surplus, facts) for facts in made.values()]),
        ("tokens kept", [format_count(facts.num_tokens) for facts in made.values()]),
        ("tokens sampled", [format_count(facts.num_sampled_tokens) for facts in made.values()]),
        ("tokens/s", [_rate(facts) for facts in made.values()]),
        ("time", [format_duration(facts.elapsed_s) for facts in made.values()]),
        ("ended by the base", [_of(facts.num_ended, facts) for facts in made.values()]),
        ("different 4-token runs", [f"{facts.distinct_share:.1%}" for facts in made.values()]),
        ("perplexity of the base", [_perplexity(facts) for facts in made.values()]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _share(count: int, facts: RehearsalFacts) -> str:
    return f"{count:,} ({count / facts.num_samples:.1%})"


def _of(count: int, facts: RehearsalFacts) -> str:
    return f"{count / facts.num_documents:.1%}"


def _rate(facts: RehearsalFacts) -> str:
    return f"{facts.num_sampled_tokens / max(facts.elapsed_s, 1e-9):,.0f}"


def _perplexity(facts: RehearsalFacts) -> str:
    return f"{math.exp(facts.nats_per_token):,.1f}"
