"""How often each source is seen, and whether it is large enough for its share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rewarm.errors import Problems
from rewarm.planning.plan import PlannedPhase, PlannedSource, Science
from rewarm.recipe.sources import OLD_ROLES, SourceRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.units import format_count

__all__ = ["Shown", "epochs_of", "note_exposure", "shown_by_phase"]

# About 2 epochs of QA data are what the paper shows; beyond about 3.5 it saw harm.
_QA_EPOCHS_THAT_HURT = 3.5


def epochs_of(sources: Sequence[PlannedSource], phases: Sequence[PlannedPhase]) -> dict[str, float]:
    """Return by source how many times its windows are seen over all phases."""
    totals = [sum(phase.samples[i] for phase in phases) for i in range(len(sources))]
    return {
        source.name: source.epochs(total) for source, total in zip(sources, totals, strict=True)
    }


class Shown(NamedTuple):
    """What a phase (or the whole run) shows of a source."""

    phase: str
    num_tokens: int
    num_first_time: int
    """Of these, tokens that the run shows for the first time."""
    epochs: float

    @property
    def num_repeated(self) -> int:
        """Tokens that the run has shown before."""
        return self.num_tokens - self.num_first_time


def shown_by_phase(science: Science, index: int) -> list[Shown]:
    """Return what each phase that shows a source shows of it; one that does not is left out.

    A subset that is drawn anew for each epoch shows windows again by chance: their expected number
    is given.
    """
    source, length = science.sources[index], science.sequence_length
    found: list[Shown] = []
    before = 0
    for phase in science.phases:
        count = phase.samples[index]
        if count:
            first_time = _num_distinct(source, before + count) - _num_distinct(source, before)
            epochs = source.epochs(count)
            found.append(Shown(phase.name, count * length, first_time * length, epochs))
        before += count
    return found


def _num_distinct(source: PlannedSource, num_samples: int) -> int:
    """Return how many different windows the first samples of a source are."""
    if not source.redrawn or source.num_stored is None:
        return min(num_samples, source.num_windows)
    # Each epoch draws n of N windows: one is still unseen after it with probability 1 − n/N.
    stored = source.num_stored
    epochs, rest = divmod(num_samples, source.num_windows)
    unseen = (1 - source.num_windows / stored) ** epochs * (1 - rest / stored)
    return round(stored * (1 - unseen))


def note_exposure(
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    recipes: Mapping[str, SourceRecipe],
    corpora: Mapping[str, CorpusFacts],
    *,
    sequence_length: int,
    asked_by: str,
    problems: Problems,
) -> list[str]:
    """Note sources above their epoch cap as problems; return the warnings.

    `asked_by` says whose phases they are.
    """
    warnings: list[str] = []
    epochs_by_source = epochs_of(sources, phases)
    for index, source in enumerate(sources):
        name, epochs = source.name, epochs_by_source[source.name]
        cap = recipes[name].max_epochs
        corpus = corpora[name]
        if epochs > cap:
            asked = sum(phase.samples[index] for phase in phases) * sequence_length
            part = math.floor(1000 * cap / epochs) / 1000
            problems.add(
                f"sources.{name}",
                f"{asked_by} ask {format_count(asked)} tokens of {_of_which(source, corpus)}: "
                f"{epochs:.2f} epochs, above its cap of {cap:g}",
                f"bring its share of the blends, or budget.tokens, down to {part:g} of what it is, "
                f'add text, deal by weights = "unimax" (which keeps to caps), or set '
                f"sources.{name}.max_epochs with a max_epochs_reason",
            )
        elif corpus.role == "qa" and epochs > _QA_EPOCHS_THAT_HURT:
            warnings.append(
                f"source {name!r}: {epochs:.2f} epochs of QA data; beyond about "
                f"{_QA_EPOCHS_THAT_HURT} Parmar et al. 2024 saw it hurt"
            )
    if not any(corpora[source.name].role in OLD_ROLES for source in sources):
        warnings.append(
            "no phase shows text of the old domain (role general, quality or replay): expect "
            "forgetting; Ibrahim et al. 2024 replay 5 % for a weak shift and 25 % for a strong one"
        )
    return warnings


def _of_which(source: PlannedSource, corpus: CorpusFacts) -> str:
    if source.num_stored is None or source.redrawn:
        return f"its {format_count(corpus.num_tokens)}"
    share = source.num_windows / source.num_stored
    return f"a subset of {format_count(round(share * corpus.num_tokens))}"
