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

from rewarm.artifacts import MANIFEST_NAME, fingerprint
from rewarm.corpus.files import Input, RemoteFile, Stamp, fresh_stamps, stamp_of
from rewarm.corpus.sealed import sealed_json
from rewarm.corpus.tokenize import declared_eos, template_fingerprint, tokenizer_fingerprint
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts

__all__ = ["FACTS", "Place", "SourceText", "find_place", "load_facts", "read_facts"]

FORMAT = 7
CHAT_FORMAT = 2
"""Of what is made of conversations alone."""
FACTS = "facts.json"
_COUNTED = (".npy", ".idx")
# Large enough that a tree of a million files makes few shards, small enough to lose one to a kill.
_SHARD_INPUT_BYTES = 64 * 2**20
_MAX_SHARD_INPUTS = 10_000
# Of a source's recipe, what decides its tokens and its split.
_READER_KEYS = frozenset(
    {
        *("format", "csv", "text_field", "group_field", "question_field", "answer_field"),
        *("messages_field", "language_field", "licence_field", "held_out"),
    }
)


@dataclass(frozen=True, slots=True)
class SourceText:
    """A source with the files that were found for it, and what turns them into tokens.

    `made_by` is the key of the rehearsal that made (or will make) the files: they are then known
    by it rather than by their times, and made again they are the same text.
    """

    name: str
    source: SourceRecipe
    inputs: Sequence[Input]
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
            inputs = [[self._name(path), *stamp_of(path)] for path in self.inputs]
        template: dict[str, object] = {}
        if self.source.format == "chat":
            template = {
                "template": template_fingerprint(self.tokenizer_folder),
                "chat": CHAT_FORMAT,
            }
        curate = self.source.curate.text_settings()
        return fingerprint(
            {
                **template,
                **({"curate": curate} if curate else {}),
                "format": FORMAT,
                "reader": self.source.model_dump(mode="json", include=set(_READER_KEYS)),
                "inputs": inputs,
                "tokenizer": tokenizer_fingerprint(self.tokenizer_folder),
                "eos": list(declared_eos(self.tokenizer_folder)),
                "frame": self.tokenizer_recipe.model_dump(mode="json"),
            }
        )

    def _name(self, file: Input) -> str:
        if isinstance(file, RemoteFile):
            return file.identity
        return os.path.relpath(file, self.recipe_folder)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source is, or will be, prepared.

    `stamps` are the sizes and modification times (ns; of remote inputs versions), as they are in
    the key.
    """

    key: str
    folder: Path
    inputs: list[Input]
    stamps: list[Stamp]
    holds_tokens: bool = False

    @property
    def total_bytes(self) -> int:
        """Size of the inputs on disk."""
        return sum(size for size, _ in self.stamps)

    def check_unchanged(self) -> None:
        """Raise CorpusError naming the inputs that were written to since the key was taken."""
        problems = Problems()
        now = fresh_stamps(self.inputs)
        for path, stamp, is_now in zip(self.inputs, self.stamps, now, strict=True):
            if is_now != stamp:
                problems.add(
                    str(path),
                    "it changed while it was prepared",
                    "run the command again once nothing writes to it",
                )
        problems.raise_as(CorpusError)

    def shards(self) -> list[list[Input]]:
        """Return which inputs go into which shard: in their order, by size alone; token shards
        stay what they are, `.bin` and `.idx`."""
        if self.holds_tokens:
            return [self.inputs[first : first + 2] for first in range(0, len(self.inputs), 2)]
        groups: list[list[Input]] = []
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
    stamps = [stamp_of(path) for path in text.inputs]
    folder = prepared_root / f"{text.name}-{key[:12]}"
    return Place(key, folder, list(text.inputs), stamps, text.source.holds_tokens)


def load_facts(text: SourceText, prepared_root: Path) -> CorpusFacts | None:
    """Return the facts of a source as it is prepared; None where it is not (or its text changed).

    Tokens and texts are not held against the manifest: that is `verify_prepared`'s work before
    training. Raises what `SourceText.key` does.
    """
    folder = find_place(text, prepared_root).folder
    facts = read_facts(folder)
    if facts is None:
        return None
    # Role and licence are the recipe's to say and decide no token, so they are not in the key.
    return facts.model_copy(
        update={
            "name": text.name,
            "role": text.source.role,
            "licence": text.source.licence,
            "language": text.source.language,
            "folder": str(folder),
        }
    )


def read_facts(folder: Path) -> CorpusFacts | None:
    """Return the facts of a complete prepared folder: its manifest comes last, and vouches for
    them and for all from which a plan counts what is kept."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        return CorpusFacts.model_validate(sealed_json(folder, FACTS, beside=_COUNTED))
    except (OSError, ValueError, CorpusError):
        return None  # damaged, or written by another version: prepared again
