"""Which documents of a source are kept, where the recipe keeps the best of them, or the nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from rewarm.corpus.mining import NeighbourScores
from rewarm.corpus.neighbours import Embedding
from rewarm.corpus.quality import reference_scorer
from rewarm.corpus.scores import (
    DocumentScorer,
    EachAlone,
    ScoresMaker,
    Scoring,
    load_selected,
    score_source,
)
from rewarm.corpus.selection import selected_estimate
from rewarm.corpus.tokenize import open_encoder
from rewarm.corpus.views import View
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import CorpusFacts
from rewarm.reporting.selections import selection_table
from rewarm.stages.console import ScoreConsole
from rewarm.stages.job import Job
from rewarm.stages.survey import Survey

__all__ = [
    "MakeBaseScorer",
    "OpenEmbedding",
    "ScoringModels",
    "select_documents",
    "show_selections",
    "with_selections",
]

MakeBaseScorer = Callable[[Job, Scoring, View], DocumentScorer]
"""Makes what scores documents by the base's own loss: that needs torch, and planning does not."""

OpenEmbedding = Callable[[Job, Path], Embedding]
"""Opens the folder of a model that embeds texts, which needs torch too."""


@dataclass(frozen=True, slots=True)
class ScoringModels:
    """What scoring asks of models; handed in by whoever may load torch."""

    base_scorer: MakeBaseScorer
    open_embedding: OpenEmbedding


_MOST_WINDOW_TOKENS = 1024


def with_selections(
    recipe: Recipe,
    corpora: Mapping[str, CorpusFacts],
    found: Survey,
    *,
    estimates_allowed: bool,
) -> dict[str, CorpusFacts]:
    """Return the facts of every source with what is kept of it, from scores that are there.

    Where they are not, what will be kept is estimated, or (where that is not allowed) noted among
    the problems of what was `found`, as is what is wrong with them. No text is read.
    """
    problems = found.problems
    selections: dict[str, CorpusFacts] = {}
    for name, facts in corpora.items():
        keep = recipe.sources[name].keep
        if keep is None:
            selections[name] = facts
            continue
        scoring = _scoring(recipe, name, corpora, found)
        try:
            selected = None if scoring is None else load_selected(scoring)
        except CorpusError as error:
            problems.extend(error.problems)
            continue
        if selected is None and not estimates_allowed:
            problems.add(
                f"sources.{name}.keep",
                "its documents are not scored, or text or reference changed since",
                "run `rewarm prepare` with this recipe",
            )
        selections[name] = selected or selected_estimate(facts, keep)
    return selections


def select_documents(
    job: Job, corpora: Sequence[CorpusFacts], found: Survey, models: ScoringModels
) -> list[CorpusFacts]:
    """Return the measured facts of every source with what is kept of it, scoring what is left.

    Sources that fail do not stop the others; their problems are raised together (CorpusError).
    """
    by_name = {facts.name: facts for facts in corpora}
    problems = Problems()
    selected: list[CorpusFacts] = []
    with ScoreConsole() as console:
        for facts in corpora:
            scoring = _scoring(job.recipe, facts.name, by_name, found)
            if scoring is None:
                selected.append(facts)
                continue
            say = partial(console.say, facts.name)
            try:
                selected.append(
                    score_source(
                        scoring,
                        partial(_maker, job, scoring, found, models, say),
                        progress=console.update,
                    )
                )
            except CorpusError as error:
                problems.extend(error.problems)
    problems.raise_as(CorpusError)
    return selected


def _maker(
    job: Job,
    scoring: Scoring,
    found: Survey,
    models: ScoringModels,
    say: Callable[[str], None],
    view: View,
) -> ScoresMaker:
    if scoring.keep.nearest is not None:
        return _neighbours(job, scoring, found, models, say)
    if scoring.keep.score == "base-loss":
        say("loading the base, whose loss is the score")
        return EachAlone(models.base_scorer(job, scoring, view))
    return EachAlone(reference_scorer(scoring, view, say))


def _neighbours(
    job: Job, scoring: Scoring, found: Survey, models: ScoringModels, say: Callable[[str], None]
) -> NeighbourScores:
    assert found.base_folder is not None
    encoder = open_encoder(found.base_folder, job.recipe.tokenizer, vocab_size=scoring.vocab_size)
    embedding = None
    if scoring.source.name in found.embeddings:
        say(f"loading {scoring.keep.embedding}")
        embedding = models.open_embedding(job, found.embeddings[scoring.source.name].folder)
    return NeighbourScores(scoring, encoder, embedding, say)


def _scoring(
    recipe: Recipe, name: str, corpora: Mapping[str, CorpusFacts], found: Survey
) -> Scoring | None:
    """Return what decides the scores of a source; None where it keeps everything, or where its text
    or what it is held against is not prepared yet, or not there."""
    keep, model = recipe.sources[name].keep, found.model
    if keep is None or model is None or not corpora[name].measured:
        return None
    reference = None if keep.compared_with is None else corpora.get(keep.compared_with)
    if keep.compared_with is not None and (reference is None or not reference.measured):
        return None
    embedding = found.embeddings.get(name)
    if keep.embedding_model is not None and embedding is None:
        return None
    return Scoring(
        source=corpora[name],
        keep=keep,
        reference=reference,
        base_weights=model.weights_fingerprint,
        vocab_size=model.vocab_size,
        window_tokens=min(model.max_positions, _MOST_WINDOW_TOKENS),
        embedding=None if embedding is None else embedding.fingerprint,
    )


def show_selections(corpora: Sequence[CorpusFacts], console: Console) -> None:
    """Print what is kept of each source that is not kept whole."""
    chosen = [facts for facts in corpora if facts.selection is not None]
    if chosen:
        console.print("", selection_table(chosen))
