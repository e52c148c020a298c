"""What is left out of a source: other languages, poor text, copies, and what is measured on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rewarm.recipe.section import Section

__all__ = [
    "C4Recipe",
    "CurateRecipe",
    "FineWebRecipe",
    "GopherRecipe",
    "LanguageModel",
    "Measured",
    "MinHashRecipe",
    "Quality",
    "RepetitionRecipe",
]

Measured = Literal["tasks", "held-out"]
Quality = Literal["gopher", "c4", "fineweb"]
LanguageModel = Literal["py3langid", "ft176", "glotlid"]

_Limits = list[tuple[int, float]]


class GopherRecipe(Section):
    """Thresholds of datatrove's Gopher filter (Rae et al. 2021, table A1 and its text)."""

    min_doc_words: int = Field(50, ge=0, description="words that are not punctuation alone")
    max_doc_words: int = Field(100_000, gt=0, description="of the same")
    min_avg_word_length: float = Field(3, ge=0, description="characters, mean over words")
    max_avg_word_length: float = Field(10, gt=0, description="characters, mean over words")
    max_symbol_word_ratio: float = Field(0.1, ge=0, description="# or … for each word")
    max_bullet_lines_ratio: float = Field(0.9, ge=0, le=1, description="lines that begin with one")
    max_ellipsis_lines_ratio: float = Field(0.3, ge=0, le=1, description="lines that end in …")
    max_non_alpha_words_ratio: float = Field(
        0.8, ge=0, le=1, description="least share of words with a letter (datatrove's name for it)"
    )
    min_stop_words: int = Field(2, ge=0, description="different ones that a document has")
    stop_words: list[str] | None = Field(
        None, description="default: the, be, to, of, and, that, have, with"
    )


class C4Recipe(Section):
    """Settings of datatrove's C4 filter (Raffel et al. 2020); it takes lines out of documents."""

    split_paragraph: bool = Field(True, description="judge lines; false: sentences")
    remove_citations: bool = Field(True, description="take out [1], [edit], [citation needed]")
    filter_no_terminal_punct: bool = Field(True, description="drop lines without . ? ! or quote")
    min_num_sentences: int = Field(5, ge=-1, description="of what is left; -1: any number")
    min_words_per_line: int = Field(3, ge=-1, description="drop shorter lines; -1: none")
    max_word_length: int = Field(1000, ge=-1, description="drop lines with a longer one; -1: none")
    filter_lorem_ipsum: bool = Field(True, description="drop documents with lorem ipsum")
    filter_javascript: bool = Field(True, description="drop lines with javascript")
    filter_curly_bracket: bool = Field(True, description="drop documents with {")
    filter_policy: bool = Field(True, description="drop lines on cookies, privacy, terms of use")


class FineWebRecipe(Section):
    """Thresholds of datatrove's FineWeb filter (Penedo et al. 2024)."""

    line_punct_thr: float = Field(
        0.12, ge=0, le=1, description="least share of lines that end in punctuation"
    )
    line_punct_exclude_zero: bool = Field(
        False, description="keep documents that have no such line"
    )
    short_line_thr: float = Field(0.67, ge=0, le=1, description="most lines that may be short")
    short_line_length: int = Field(30, ge=0, description="characters of a short line")
    char_duplicates_ratio: float = Field(
        0.01, ge=0, le=1, description="most characters that may be in lines seen before in it"
    )
    new_line_ratio: float = Field(0.3, ge=0, description="most line breaks for each word")


class RepetitionRecipe(Section):
    """Thresholds of datatrove's Gopher repetition filter (Rae et al. 2021, table A1)."""

    dup_line_frac: float = Field(0.3, ge=0, le=1, description="lines seen before in it")
    dup_para_frac: float = Field(0.3, ge=0, le=1, description="paragraphs seen before in it")
    dup_line_char_frac: float = Field(0.2, ge=0, le=1, description="characters in such lines")
    dup_para_char_frac: float = Field(0.2, ge=0, le=1, description="characters in such paragraphs")
    top_n_grams: _Limits = Field(
        [(2, 0.2), (3, 0.18), (4, 0.16)],
        description="[words, most characters in the commonest run of so many]",
    )
    dup_n_grams: _Limits = Field(
        [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)],
        description="[words, most characters in runs of so many that were seen before in it]",
    )

    @field_validator("top_n_grams", "dup_n_grams")
    @classmethod
    def _limits(cls, value: _Limits) -> _Limits:
        if any(words < 1 or not 0 <= share <= 1 for words, share in value):
            raise ValueError("give pairs of words (1 or more) and a share from 0 to 1")
        return value


class MinHashRecipe(Section):
    """datatrove's MinHash: a pair with the share s of runs in common is found with the probability
    1 - (1 - s^hashes_per_bucket)^num_buckets, by default 0.92 at s = 0.8 and 0.05 at s = 0.5."""

    n_grams: int = Field(5, gt=0, description="words of a run")
    num_buckets: int = Field(14, gt=0, description="more find more")
    hashes_per_bucket: int = Field(8, gt=0, description="more are stricter")
    seed: int = Field(1, ge=0, lt=2**32, description="of the hashes")


class CurateRecipe(Section):
    """What is left out of a source's documents; every drop is counted, with its reason."""

    language: str | list[str] | None = Field(
        None, description='keep documents in this language or these, e.g. "en"; default: all'
    )
    language_score: float = Field(
        0.65, gt=0, lt=1, description="least probability of the language that is found"
    )
    language_model: LanguageModel = Field(
        "py3langid",
        description="what finds it: py3langid (comes with its package), or datatrove's ft176 or "
        "glotlid (fastText models, fetched once)",
    )
    quality: Quality | list[Quality] | None = Field(
        None, description="gopher, c4, fineweb, or several: documents pass all of them, in order"
    )
    gopher: GopherRecipe | None = Field(None, description="thresholds, where quality has gopher")
    c4: C4Recipe | None = Field(None, description="settings, where quality has c4")
    fineweb: FineWebRecipe | None = Field(None, description="thresholds, where it has fineweb")
    repetition: RepetitionRecipe | None = Field(
        None, description="true, or thresholds: drop documents that repeat themselves"
    )
    dedup: Literal["minhash", "exact", False] = Field(
        False,
        description="training documents that are copies of another one of the source are dropped: "
        "exact, or near ones too (minhash)",
    )
    minhash: MinHashRecipe | None = Field(None, description="how near, with dedup = minhash")
    decontaminate: list[Measured] | Literal[False] = Field(
        ["tasks", "held-out"],
        description="training documents that hold text of these are dropped: the evaluation's "
        "tasks, and held-out documents of all sources; false: none",
    )

    @field_validator("repetition", mode="before")
    @classmethod
    def _switched(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {} if value else None
        return value

    @field_validator("decontaminate")
    @classmethod
    def _some(cls, value: list[Measured] | Literal[False]) -> list[Measured] | Literal[False]:
        if value is not False and (not value or len(set(value)) < len(value)):
            raise ValueError('name "tasks", "held-out", or both; or write false')
        return value

    @field_validator("language", "quality")
    @classmethod
    def _each_once(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("name one or several, each once")
        return value

    @model_validator(mode="after")
    def _settings_are_used(self) -> CurateRecipe:
        unused = [
            name
            for name in ("gopher", "c4", "fineweb")
            if getattr(self, name) is not None and name not in self.qualities
        ]
        if unused:
            raise ValueError(
                f'{unused[0]} has settings, but quality does not name it: quality = "{unused[0]}"'
            )
        if self.minhash is not None and self.dedup != "minhash":
            raise ValueError('minhash has settings, but dedup is not "minhash"')
        given = self.said({"language_score", "language_model"})
        if given and not self.languages:
            raise ValueError(f"{given[0]} goes with language")
        for language in self.languages:
            if not (language.isascii() and language.isalpha() and 2 <= len(language) <= 3):
                raise ValueError(f'{language!r} is no language code: write e.g. "en" or "de"')
        others = [language for language in self.languages if language not in ("en", "eng")]
        if others and "gopher" in self.qualities and self._counts_english_stop_words():
            raise ValueError(
                f"gopher counts English stop words, which documents in {others[0]!r} do not have: "
                "give gopher.stop_words, or gopher.min_stop_words = 0"
            )
        return self

    def _counts_english_stop_words(self) -> bool:
        settings = self.gopher or GopherRecipe()
        return settings.stop_words is None and settings.min_stop_words > 0

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that are kept; empty: all."""
        if self.language is None:
            return ()
        return (self.language,) if isinstance(self.language, str) else tuple(self.language)

    @property
    def qualities(self) -> tuple[Quality, ...]:
        """Quality filters, in order."""
        if self.quality is None:
            return ()
        return (self.quality,) if isinstance(self.quality, str) else tuple(self.quality)

    def text_settings(self) -> dict[str, Any]:
        """Return what decides which documents are taken as they are read; empty: all are.

        A threshold that is left out and one that is written as it is by default are the same.
        """
        found: dict[str, Any] = {}
        if self.languages:
            found["language"] = [*sorted(self.languages)]
            found |= {"score": self.language_score, "model": self.language_model}
        for name in self.qualities:
            settings = getattr(self, name) or _DEFAULTS[name]
            found.setdefault("quality", []).append([name, settings.model_dump(mode="json")])
        if self.repetition is not None:
            found["repetition"] = self.repetition.model_dump(mode="json")
        return found

    def holds_against(self, measured: Measured) -> bool:
        """Tell whether documents are held against tasks, or against held-out ones."""
        return self.decontaminate is not False and measured in self.decontaminate


_DEFAULTS: dict[str, Section] = {
    "gopher": GopherRecipe(),
    "c4": C4Recipe(),
    "fineweb": FineWebRecipe(),
}
