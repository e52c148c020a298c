"""Which of a source's documents are kept: the best by a score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rewarm.recipe.section import Count, Section

__all__ = ["KeepRecipe", "Score"]

Score = Literal["perplexity", "classifier", "base-loss"]
"""perplexity: per token, under an n-gram model of a reference; classifier: log-odds of being the
reference's rather than this source's; base-loss: bits per byte under the base itself."""


class KeepRecipe(Section):
    """The best of a source's documents, by a score of each, in place of all of them.

    Documents are taken best first until they hold what is asked for; held-out ones never are.
    """

    lowest: Score | None = Field(
        None, description="keep what scores lowest: perplexity, classifier or base-loss"
    )
    highest: Score | None = Field(None, description="or what scores highest; one of the two")
    share: float | None = Field(
        None, gt=0, lt=1, description="until they hold this share of its training tokens"
    )
    tokens: Count | None = Field(None, description="or so many tokens; one of the two")
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

    @property
    def score(self) -> Score:
        """What documents are ranked by."""
        score = self.lowest or self.highest
        assert score is not None
        return score

    @property
    def ngram_order(self) -> int:
        """Tokens of the longest runs that a perplexity counts."""
        return 5 if self.ngram is None else self.ngram

    @model_validator(mode="after")
    def _one_of_each(self) -> KeepRecipe:
        if (self.lowest is None) == (self.highest is None):
            raise ValueError("give lowest or highest, one of the two")
        if (self.share is None) == (self.tokens is None):
            raise ValueError("give share or tokens, one of the two")
        if self.score == "base-loss":
            given = self.said({"reference", "reference_tokens", "ngram"})
            if given:
                raise ValueError(f"base-loss reads no reference: leave out {', '.join(given)}")
        elif self.reference is None:
            raise ValueError(
                f"{self.score} needs a reference: name the source that good text is like"
            )
        if self.score == "classifier" and self.ngram is not None:
            raise ValueError("the classifier reads single tokens and pairs: leave out ngram")
        return self
