"""Token ids to text as a person looks at it: special tokens apart, what the loss counts marked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rewarm.corpus.tokenize import tokenizer_fingerprint
from rewarm.errors import BaseModelError, CorpusError
from rewarm.records.facts import CorpusFacts

__all__ = ["Piece", "Speller", "open_speller"]


class Piece(NamedTuple):
    """A stretch of tokens as text: one special token, or others between two of them.

    `counted` says whether the loss counts them as labels.
    """

    text: str
    is_special: bool
    counted: bool


class Speller:
    """A base's tokenizer, from ids to text; made by `open_speller`."""

    def __init__(self, tokenizer_json: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}

    def pieces(
        self, ids: NDArray[np.integer], counted: NDArray[np.bool_] | None = None
    ) -> tuple[Piece, ...]:
        """Return tokens [tokens] as text; `counted` [tokens] is which of them the loss counts.

        A character whose bytes are cut (at the end, or where the mask changes) shows as U+FFFD.
        """
        marks = np.ones(len(ids), dtype=np.bool_) if counted is None else counted
        return tuple(self._pieces(ids.tolist(), marks.tolist()))

    def _pieces(self, ids: list[int], counted: list[bool]) -> Iterator[Piece]:
        run: list[int] = []
        for place, number in enumerate(ids):
            special = self._special.get(number)
            if run and (special is not None or counted[place] != counted[place - 1]):
                yield self._ordinary(run, counted[place - 1])
                run = []
            if special is None:
                run.append(number)
            else:
                yield Piece(special, True, counted[place])
        if run:
            yield self._ordinary(run, counted[-1])

    def _ordinary(self, run: list[int], counted: bool) -> Piece:
        return Piece(self._tokenizer.decode(run, skip_special_tokens=False), False, counted)


def open_speller(folder: Path, corpora: list[CorpusFacts]) -> Speller:
    """Return the tokenizer of a base's folder, which must be that of each of these sources.

    Raises BaseModelError where it is missing or broken, CorpusError naming both fingerprints where
    a source was prepared with another one.
    """
    found = tokenizer_fingerprint(folder)
    for facts in corpora:
        if facts.tokenizer_fingerprint != found:
            raise CorpusError.one(
                facts.folder,
                f"its tokens are another tokenizer's ({facts.tokenizer_fingerprint[:12]}) than "
                f"that of {folder} ({found[:12]})",
                "name the folder of the base that it was prepared with, or run `rewarm prepare`",
            )
    path = folder / "tokenizer.json"
    try:
        return Speller(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise BaseModelError.one(
            str(path), f"it cannot be read ({error})", "restore it, or save the tokenizer again"
        ) from error
