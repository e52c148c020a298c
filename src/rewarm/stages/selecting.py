"""Which documents of a source are kept, where the recipe keeps the best by a score of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rich.console import Console

from rewarm.corpus.quality import reference_scorer
from rewarm.corpus.scores import DocumentScorer, Scoring, load_selected, score_source
from rewarm.corpus.selection import selected_estimate
from rewarm.corpus.views import View
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import CorpusFacts, ModelFacts
from rewarm.reporting.selections import selection_table
from rewarm.stages.console import ScoreConsole
from rewarm.stages.job import Job
from rewarm.stages.survey import Survey

__all__ = ["MakeBaseScorer", "select_documents", "show_selections", "with_selections"]

MakeBaseScorer = Callable[[Job, Scoring, View], DocumentScorer]
"""Makes what scores documents by the base's own loss: that needs torch, and planning does not."""

_MOST_WINDOW_TOKENS = 1024


def with_selections(
    recipe: Recipe,
    corpora: Mapping[str, CorpusFacts],
    model: ModelFacts,
    problems: Problems,
    *,
    estimates_allowed: bool,
) -> dict[str, CorpusFacts]:
    """Return the facts of every source with what is kept of it, from scores that are there.

    Where they are not, what will be kept is estimated, or (where that is not allowed) noted as a
    problem. No text is read.
    """
    found: dict[str, CorpusFacts] = {}
    for name, facts in corpora.items():
        keep = recipe.sources[name].keep
        if keep is None:
            found[name] = facts
            continue
        scoring = _scoring(recipe, name, corpora, model)
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
        found[name] = selected or selected_estimate(facts, keep)
    return found


def select_documents(
    job: Job, corpora: Sequence[CorpusFacts], found: Survey, base_scorer: MakeBaseScorer
) -> list[CorpusFacts]:
    """Return the measured facts of every source with what is kept of it, scoring what is left.

    Sources that fail do not stop the others; their problems are raised together (CorpusError).
    """
    assert found.model is not None
    by_name = {facts.name: facts for facts in corpora}
    problems = Problems()
    selected: list[CorpusFacts] = []
    with ScoreConsole() as console:
        for facts in corpora:
            scoring = _scoring(job.recipe, facts.name, by_name, found.model)
            if scoring is None:
                selected.append(facts)
                continue
            say = partial(console.say, facts.name)
            try:
                selected.append(
                    score_source(
                        scoring,
                        partial(_scorer, job, scoring, base_scorer, say),
                        progress=console.update,
                    )
                )
            except CorpusError as error:
                problems.extend(error.problems)
    problems.raise_as(CorpusError)
    return selected


def _scorer(
    job: Job,
    scoring: Scoring,
    base_scorer: MakeBaseScorer,
    say: Callable[[str], None],
    view: View,
) -> DocumentScorer:
    if scoring.keep.score == "base-loss":
        say("loading the base, whose loss is the score")
        return base_scorer(job, scoring, view)
    return reference_scorer(scoring, view, say)


def _scoring(
    recipe: Recipe, name: str, corpora: Mapping[str, CorpusFacts], model: ModelFacts
) -> Scoring | None:
    """Return what decides the scores of a source; None where it keeps everything, or where its text
    or its reference is not prepared yet."""
    keep = recipe.sources[name].keep
    if keep is None or not corpora[name].measured:
        return None
    reference = None if keep.reference is None else corpora.get(keep.reference)
    if keep.reference is not None and (reference is None or not reference.measured):
        return None
    return Scoring(
        source=corpora[name],
        keep=keep,
        reference=reference,
        base_weights=model.weights_fingerprint,
        vocab_size=model.vocab_size,
        window_tokens=min(model.max_positions, _MOST_WINDOW_TOKENS),
    )


def show_selections(corpora: Sequence[CorpusFacts], console: Console) -> None:
    """Print what is kept of each source that is not kept whole."""
    chosen = [facts for facts in corpora if facts.selection is not None]
    if chosen:
        console.print("", selection_table(chosen))
