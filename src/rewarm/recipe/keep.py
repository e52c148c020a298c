"""Which of a source's documents are kept: the best by a score, or the nearest to questions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rewarm.recipe.section import Count, Section

__all__ = ["LSA", "TF_IDF", "KeepRecipe", "Queries", "Score"]

Score = Literal["perplexity", "classifier", "base-loss"]
"""perplexity: per token, under an n-gram model of a reference; classifier: log-odds of being the
reference's rather than this source's; base-loss: bits per byte under the base itself."""

Queries = Literal["questions", "questions-and-answers"]

TF_IDF, LSA = "tf-idf", "lsa"
"""Embeddings that need no model: weighted words, and those reduced by a truncated SVD."""

_OF_SCORES = frozenset({"reference", "reference_tokens", "ngram"})
_OF_NEIGHBOURS = frozenset({"neighbours", "queries", "max_queries", "embedding", "max_similarity"})


class KeepRecipe(Section):
    """The best of a source's documents, by a score of each or as neighbours of questions, in place
    of all of them.

    Documents are taken best first until they hold what is asked for; held-out ones never are.
    """

    lowest: Score | None = Field(
        None, description="keep what scores lowest: perplexity, classifier or base-loss"
    )
    highest: Score | None = Field(None, description="or what scores highest")
    nearest: str | None = Field(
        None,
        description="or what lies nearest to the training questions of this source, in the space "
        "of an embedding; of a source without questions, to its documents",
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="until they hold this share of its training tokens"
    )
    tokens: Count | None = Field(
        None, description="or so many tokens; with nearest, neither means all neighbours"
    )
    reference: str | None = Field(
        None,
        description="for perplexity and classifier: the source whose training documents are what "
        "good text looks like; no phase has to show it",
    )
    reference_tokens: Count = Field(
        10_000_000, description="of a larger reference, documents of about so many are drawn"
    )
    ngram: int | None = Field(
        None, ge=2, le=8, description="perplexity: tokens that a run has; default 5"
    )
    neighbours: int = Field(
        50, gt=0, le=1000, description="nearest: documents that each question may bring"
    )
    queries: Queries = Field(
        "questions-and-answers",
        description="nearest: what of the questions is looked for: questions or "
        "questions-and-answers",
    )
    max_queries: Count = Field(100_000, description="nearest: of more questions, so many are drawn")
    embedding: str = Field(
        TF_IDF,
        min_length=1,
        description="nearest: tf-idf (weighted words), lsa (those reduced by a truncated SVD), or "
        "a sentence-transformers model: a folder, or a hub id",
    )
    max_similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        description="nearest: dropped where it shares more than this of its 5-token runs with a "
        "nearer one; 1: copies alone are",
    )

    @property
    def score(self) -> Score | Literal["neighbours"]:
        """What documents are ranked by."""
        return self.lowest or self.highest or "neighbours"

    @property
    def keeps_lowest(self) -> bool:
        """Tell whether what scores lowest is kept: of neighbours, what ranks first."""
        return self.highest is None

    @property
    def embedding_model(self) -> str | None:
        """The sentence-transformers model that neighbours are found by, if one is."""
        is_offline = self.nearest is None or self.embedding in (TF_IDF, LSA)
        return None if is_offline else self.embedding

    @property
    def compared_with(self) -> str | None:
        """The source that documents are held against: a reference, or questions."""
        return self.reference if self.nearest is None else self.nearest

    @property
    def ngram_order(self) -> int:
        """Tokens of the longest runs that a perplexity counts."""
        return 5 if self.ngram is None else self.ngram

    @model_validator(mode="after")
    def _one_of_each(self) -> KeepRecipe:
        given = [way for way in (self.lowest, self.highest, self.nearest) if way is not None]
        if len(given) != 1:
            raise ValueError("give lowest, highest or nearest, one of the three")
        if self.share is not None and self.tokens is not None:
            raise ValueError("give share or tokens, one of the two")
        if self.nearest is not None:
            self._leave_out(_OF_SCORES, "neighbours are found without")
            return self
        if self.share is None and self.tokens is None:
            raise ValueError("give share or tokens, one of the two")
        self._leave_out(_OF_NEIGHBOURS, f"{self.score} has no neighbours")
        if self.score == "base-loss":
            self._leave_out(_OF_SCORES, "base-loss reads no reference")
        elif self.reference is None:
            raise ValueError(
                f"{self.score} needs a reference: name the source that good text is like"
            )
        if self.score == "classifier" and self.ngram is not None:
            raise ValueError("the classifier reads single tokens and pairs: leave out ngram")
        return self

    def _leave_out(self, keys: frozenset[str], why: str) -> None:
        given = self.said(keys)
        if given:
            raise ValueError(f"{why}: leave out {', '.join(given)}")
