"""Which documents are taken as they are read: by language and by datatrove's quality filters.

datatrove is imported where a filter is opened, and nowhere else. Its word splitters are spaCy's
rules, and py3langid has its model in its package, so that nothing is fetched; `ft176` and `glotlid`
are fastText models that datatrove fetches once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

from rewarm.corpus.records import Document
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.recipe.curate import (
    C4Recipe,
    CurateRecipe,
    FineWebRecipe,
    GopherRecipe,
    LanguageModel,
    Quality,
)
from rewarm.recipe.sources import SourceRecipe

__all__ = ["DocumentFilter", "Filters", "curation_packages", "open_filters"]

_DEFAULT_LANGUAGE = "en"
# What finds a language reads so much from the beginning, the middle and the end of a document.
_EXCERPT_CHARACTERS = 1500
_EXTRA = "pip install 'rewarm[curate]'"


class DocumentFilter(Protocol):
    """Looks at documents one by one."""

    def judge(self, document: Document, language: str, /) -> Document | str:
        """Return the document that is taken (some filters take lines out), or why none is."""
        ...


def curation_packages(curate: CurateRecipe) -> tuple[str, ...]:
    """Return the modules that a recipe's filters need."""
    found: list[str] = []
    if curate.languages:
        own = curate.language_model == "py3langid"
        found += ["py3langid"] if own else ["datatrove", "fasttext"]
    if curate.qualities or curate.repetition is not None:
        found += ["datatrove", "spacy", "regex"]
    if curate.dedup == "minhash":
        found += ["datatrove", "spacy", "regex", "xxhash"]
    return tuple(dict.fromkeys(found))


class Filters:
    """All filters of a source, in order."""

    def __init__(self, find_language: _FindLanguage | None, others: Sequence[DocumentFilter]):
        self._find_language = find_language
        self._others = tuple(others)

    def judge(self, document: Document) -> Document | str:
        """Return the document that is taken, or (`family:detail`) why none is."""
        language = _DEFAULT_LANGUAGE
        if self._find_language is not None:
            found = self._find_language.judge(document)
            if found.startswith("language:"):
                return found
            language = found
        for one in self._others:
            judged = one.judge(document, language)
            if isinstance(judged, str):
                return judged
            document = judged
        return document


def open_filters(name: str, source: SourceRecipe) -> Filters | None:
    """Return what looks at the documents of a source as they are read; None where nothing does.

    Raises CorpusError for a package that is not installed or a language that nothing here knows.
    """
    curate = source.curate
    if not curate.text_settings():
        return None
    where = f"sources.{name}.curate"
    try:
        find = None
        if curate.languages:
            find = _FindLanguage(curate, _identifier(curate.language_model, curate.languages))
        filters = [_quality(one, curate) for one in curate.qualities]
        if curate.repetition is not None:
            filters.append(_Trove("repetition", _make_repetition(curate)))
        found = Filters(find, filters)
        # What a language needs is told now, not after hours of reading.
        for language in curate.languages or (_DEFAULT_LANGUAGE,):
            for one in filters:
                one.judge(Document("", "A first text, in words."), language)
    except ImportError as error:
        raise CorpusError.one(where, f"a package is missing: {error}", _EXTRA) from error
    except ValueError as error:
        raise CorpusError.one(
            where, f"its language is not known: {error}", "name it by its code, e.g. en or de"
        ) from error
    return found


class _FindLanguage:
    """Finds the language of documents, and tells those that are in none of the wanted ones."""

    def __init__(self, curate: CurateRecipe, identify: Callable[[str], tuple[str, float]]) -> None:
        self._wanted = frozenset(curate.languages)
        self._least = curate.language_score
        self._identify = identify

    def judge(self, document: Document) -> str:
        """Return the language, or `language:…` where the document is not taken."""
        language, score = self._identify(_excerpts(_said(document)))
        if language not in self._wanted:
            return f"language:{language}"
        return language if score >= self._least else "language:unsure"


def _said(document: Document) -> str:
    """Return the text of a document, or what is said in a conversation."""
    return document.text or "\n".join(message["content"] for message in document.messages)


def _excerpts(text: str) -> str:
    size = _EXCERPT_CHARACTERS
    if len(text) <= 3 * size:
        return text
    middle = (len(text) - size) // 2
    return "\n".join((text[:size], text[middle : middle + size], text[-size:]))


def _identifier(
    model: LanguageModel, languages: Sequence[str]
) -> Callable[[str], tuple[str, float]]:
    """Return what gives the likeliest language of a text and its probability."""
    if model == "py3langid":
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        own = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        unknown = sorted(set(languages) - set(own.labels))
        if unknown:
            raise ValueError(f"py3langid does not know {', '.join(unknown)}")
        classify: Callable[[str], tuple[str, float]] = own.classify
        return classify
    from datatrove.data import Document as TroveDocument
    from datatrove.utils.lid import FT176LID, GlotLID

    found = FT176LID() if model == "ft176" else GlotLID()

    def identify(text: str) -> tuple[str, float]:
        try:
            (language, score), _ = found.predict(TroveDocument(text=text, id=""))
        except OSError as error:
            raise EnvironmentFault(
                f"the {model} model cannot be fetched ({error})",
                'connect once, or leave curate.language_model at "py3langid"',
            ) from error
        return language.partition("_")[0], float(score)

    return identify


class _Trove:
    """A filter of datatrove's, opened once for each language."""

    def __init__(self, family: str, make: Callable[[str], Any]) -> None:
        self._family = family
        self._make = cache(make)

    def judge(self, document: Document, language: str) -> Document | str:
        """Return the document with the text that the filter leaves, or its reason."""
        from datatrove.data import Document as TroveDocument

        said = _said(document)
        nothing = f"{self._family}:nothing_to_judge"
        if not any(map(str.isalnum, said)):
            return nothing
        seen = TroveDocument(text=said, id=document.id)
        try:
            verdict = self._make(language).filter(seen)
        except ArithmeticError:  # no word or no line to take shares of
            return nothing
        kept, reason = verdict if isinstance(verdict, tuple) else (verdict, "dropped")
        if not kept:
            return f"{self._family}:{reason.removeprefix(self._family + '_')}"
        if seen.text == said:
            return document
        if not seen.text.strip():
            return f"{self._family}:nothing_left"
        return dataclasses.replace(document, text=seen.text)


def _quality(name: Quality, curate: CurateRecipe) -> DocumentFilter:
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
    )

    settings, kind = {
        "gopher": (curate.gopher or GopherRecipe(), GopherQualityFilter),
        "c4": (curate.c4 or C4Recipe(), C4QualityFilter),
        "fineweb": (curate.fineweb or FineWebRecipe(), FineWebQualityFilter),
    }[name]
    given = settings.model_dump()
    return _Trove(name, lambda language: kind(language=language, **given))


def _make_repetition(curate: CurateRecipe) -> Callable[[str], Any]:
    from datatrove.pipeline.filters import GopherRepetitionFilter

    assert curate.repetition is not None
    given = curate.repetition.model_dump()
    return lambda language: GopherRepetitionFilter(language=language, **given)
