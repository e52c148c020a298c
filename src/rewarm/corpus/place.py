"""Where a prepared source lies, and its facts: in a folder named after the key of its tokens.

The key is a fingerprint of all that determines them: the inputs (name from the recipe, size,
modification time), the reader's options, the tokenizer, the frame of documents and the held-out
rule. What is prepared once serves every recipe that comes to the same key; any change makes a new
folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewarm.artifacts import MANIFEST_NAME, fingerprint, parse_json
from rewarm.corpus.tokenize import declared_eos, tokenizer_fingerprint
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts

__all__ = ["FACTS", "Place", "SourceText", "find_place", "load_facts"]

FORMAT = 5
FACTS = "facts.json"
# Large enough that a tree of a million files makes few shards, small enough to lose one to a kill.
_SHARD_INPUT_BYTES = 64 * 2**20
_MAX_SHARD_INPUTS = 10_000
# Of a source's recipe, what decides its tokens and its split.
_READER_KEYS = frozenset(
    {"format", "text_field", "group_field", "question_field", "answer_field", "held_out"}
)


def _stamp(path: Path) -> tuple[int, int]:
    """Return what tells that a file changed: its size and modification time in ns."""
    try:
        stat = path.stat()
    except OSError as error:
        raise CorpusError.one(
            str(path), f"it cannot be read ({error.strerror})", "put it back or mend the path"
        ) from error
    return stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True, slots=True)
class SourceText:
    """A source with the files that were found for it, and what turns them into tokens.

    `made_by` is the key of the rehearsal that made (or will make) the files: they are then known
    by it rather than by their times, and made again they are the same text.
    """

    name: str
    source: SourceRecipe
    inputs: Sequence[Path]
    recipe_folder: Path
    tokenizer_folder: Path
    tokenizer_recipe: TokenizerRecipe
    made_by: str | None = None

    def key(self) -> str:
        """Return the fingerprint of everything that determines the tokens and the split.

        Raises CorpusError for inputs that are gone, BaseModelError where there is no tokenizer.
        """
        inputs: object = self.made_by
        if inputs is None:
            inputs = [
                [os.path.relpath(path, self.recipe_folder), *_stamp(path)] for path in self.inputs
            ]
        return fingerprint(
            {
                "format": FORMAT,
                "reader": self.source.model_dump(mode="json", include=set(_READER_KEYS)),
                "inputs": inputs,
                "tokenizer": tokenizer_fingerprint(self.tokenizer_folder),
                "eos": list(declared_eos(self.tokenizer_folder)),
                "frame": self.tokenizer_recipe.model_dump(mode="json"),
            }
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source is, or will be, prepared.

    `stamps` are the sizes and modification times (ns) of the inputs, as they are in the key.
    """

    key: str
    folder: Path
    inputs: list[Path]
    stamps: list[tuple[int, int]]
    holds_tokens: bool = False

    @property
    def total_bytes(self) -> int:
        """Size of the inputs on disk."""
        return sum(size for size, _ in self.stamps)

    def check_unchanged(self) -> None:
        """Raise CorpusError naming the inputs that were written to since the key was taken."""
        problems = Problems()
        for path, stamp in zip(self.inputs, self.stamps, strict=True):
            if _stamp(path) != stamp:
                problems.add(
                    str(path),
                    "it changed while it was prepared",
                    "run the command again once nothing writes to it",
                )
        problems.raise_as(CorpusError)

    def shards(self) -> list[list[Path]]:
        """Return which inputs go into which shard: in their order, by size alone; token shards
        stay what they are, `.bin` and `.idx`."""
        if self.holds_tokens:
            return [self.inputs[first : first + 2] for first in range(0, len(self.inputs), 2)]
        groups: list[list[Path]] = []
        size = _SHARD_INPUT_BYTES
        for path, (num_bytes, _) in zip(self.inputs, self.stamps, strict=True):
            if size >= _SHARD_INPUT_BYTES or len(groups[-1]) >= _MAX_SHARD_INPUTS:
                groups.append([])
                size = 0
            groups[-1].append(path)
            size += num_bytes
        return groups


def find_place(text: SourceText, prepared_root: Path) -> Place:
    """Return where a source is prepared, or will be, with these inputs as they are now.

    Raises what `SourceText.key` does.
    """
    key = text.key()
    stamps = [_stamp(path) for path in text.inputs]
    folder = prepared_root / f"{text.name}-{key[:12]}"
    return Place(key, folder, list(text.inputs), stamps, text.source.holds_tokens)


def load_facts(text: SourceText, prepared_root: Path) -> CorpusFacts | None:
    """Return the facts of a source as it is prepared; None where it is not (or its text changed).

    Files are looked at, not hashed: that is `verify_prepared`'s work before training. Raises what
    `SourceText.key` does.
    """
    folder = find_place(text, prepared_root).folder
    facts = _facts_in(folder)
    if facts is None:
        return None
    # Role and licence are the recipe's to say and decide no token, so they are not in the key.
    return facts.model_copy(
        update={
            "name": text.name,
            "role": text.source.role,
            "licence": text.source.licence,
            "folder": str(folder),
        }
    )


def _facts_in(folder: Path) -> CorpusFacts | None:
    """Return the facts of a complete prepared folder: its manifest comes last."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        return CorpusFacts.model_validate(parse_json((folder / FACTS).read_bytes()))
    except (OSError, ValueError):
        return None  # damaged, or written by another version: prepared again
