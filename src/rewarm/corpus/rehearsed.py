"""Where text that a base makes up lies, by the key of all that decides it, and what it will be.

No model is needed here: the weights' fingerprint stands for it. `rehearsed.json` and the manifest
come last, so a folder that has them is complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rewarm.artifacts import MANIFEST_NAME, file_sha256, fingerprint, parse_json
from rewarm.corpus.place import SourceText
from rewarm.corpus.sealed import changed_files
from rewarm.corpus.tokenize import declared_eos, open_encoder, tokenizer_fingerprint
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import RehearsalRecipe, SourceRecipe
from rewarm.records.facts import CorpusFacts, ModelFacts, RehearsalFacts

__all__ = [
    "FACTS",
    "SHARD",
    "Rehearsal",
    "estimate_rehearsal",
    "find_rehearsal",
    "load_rehearsal",
]

FORMAT = 1
FACTS = "rehearsed.json"
SHARD = "shard-00000"
_LONGEST_BY_DEFAULT = 1024
# Of English with vocabularies of 32k to 128k; a stated stand-in until text is there.
_BYTES_PER_TOKEN = 4.0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A source that the base makes up: what decides it, and where it lies or will lie.

    `prefixes` is None for bos, a file, or the source whose documents' beginnings are taken.
    """

    name: str
    source: SourceRecipe
    key: str
    folder: Path
    base_folder: Path
    tokenizer_recipe: TokenizerRecipe
    vocab_size: int
    max_tokens: int
    prefixes: Path | SourceText | None

    @property
    def recipe(self) -> RehearsalRecipe:
        """What the recipe says of it."""
        assert self.source.rehearse is not None
        return self.source.rehearse

    @property
    def shard_files(self) -> list[Path]:
        """The files of its token shard."""
        return [self.folder / f"{SHARD}.bin", self.folder / f"{SHARD}.idx"]

    def text(self, recipe_folder: Path, *, is_made: bool) -> SourceText:
        """Return it as a source for `prepare`; its files are named only where they are there."""
        return SourceText(
            self.name,
            self.source,
            self.shard_files if is_made else [],
            recipe_folder,
            self.base_folder,
            self.tokenizer_recipe,
            made_by=self.key,
        )


def find_rehearsal(
    name: str,
    source: SourceRecipe,
    model: ModelFacts,
    texts: Mapping[str, SourceText],
    *,
    recipe_folder: Path,
    prepared_root: Path,
    tokenizer_recipe: TokenizerRecipe,
) -> Rehearsal:
    """Return the rehearsal that a source is made by.

    `texts` are the sources whose files were found. Raises CorpusError with everything wrong:
    prefixes that are neither a file nor a source, lengths that the base or each other do not allow.
    """
    recipe = source.rehearse
    assert recipe is not None
    problems = Problems()
    where = f"sources.{name}.rehearse"
    max_tokens = recipe.max_tokens_per_sample or min(model.max_positions, _LONGEST_BY_DEFAULT)
    _check_lengths(recipe, model, max_tokens, where, problems)
    prefixes, digest = _find_prefixes(recipe, texts, recipe_folder, where, problems)
    problems.raise_as(CorpusError)
    base_folder = Path(model.folder)
    key = fingerprint(
        {
            "format": FORMAT,
            "weights": model.weights_fingerprint,
            "tokenizer": tokenizer_fingerprint(base_folder),
            "eos": list(declared_eos(base_folder)),
            "frame": tokenizer_recipe.model_dump(mode="json"),
            "settings": recipe.model_dump(mode="json", exclude={"prefixes"}),
            "max_tokens": max_tokens,
            "prefixes": digest,
        }
    )
    return Rehearsal(
        name=name,
        source=source,
        key=key,
        folder=prepared_root / f"{name}.rehearsed-{key[:12]}",
        base_folder=base_folder,
        tokenizer_recipe=tokenizer_recipe,
        vocab_size=model.vocab_size,
        max_tokens=max_tokens,
        prefixes=prefixes,
    )


def _check_lengths(
    recipe: RehearsalRecipe, model: ModelFacts, max_tokens: int, where: str, problems: Problems
) -> None:
    if max_tokens > model.max_positions:
        problems.add(
            f"{where}.max_tokens_per_sample",
            f"{max_tokens} is beyond the base's {model.max_positions} positions",
            f"use at most {model.max_positions}",
        )
    prompt = 0 if recipe.prefixes == "bos" else recipe.prefix_tokens
    if prompt + recipe.min_tokens >= max_tokens:
        problems.add(
            f"{where}.min_tokens",
            f"a prefix of {prompt} and {recipe.min_tokens} sampled tokens do not fit into samples "
            f"of at most {max_tokens}",
            "lower min_tokens or prefix_tokens, or raise max_tokens_per_sample",
        )
    if recipe.top_k_logits > model.vocab_size:
        problems.add(
            f"{where}.top_k_logits",
            f"{recipe.top_k_logits} is more than the base's vocabulary of {model.vocab_size}",
            "lower it",
        )


def _find_prefixes(
    recipe: RehearsalRecipe,
    texts: Mapping[str, SourceText],
    recipe_folder: Path,
    where: str,
    problems: Problems,
) -> tuple[Path | SourceText | None, list[str]]:
    """Return what prefixes are taken from, and what stands for it in the key."""
    wanted = recipe.prefixes
    if wanted == "bos":
        return None, ["bos"]
    if wanted in texts:
        return texts[wanted], ["source", texts[wanted].key()]
    path = recipe_folder / os.path.expanduser(wanted)
    if os.path.isfile(path) and os.access(path, os.R_OK):
        return path, ["file", path.suffix, file_sha256(path)]
    problems.add(
        f"{where}.prefixes",
        f"{wanted!r} is neither bos, nor a source with text, nor a file that can be read "
        f"(seen from {recipe_folder})",
        "name one of them",
    )
    return None, []


def load_rehearsal(rehearsal: Rehearsal) -> RehearsalFacts | None:
    """Return the facts of text that was sampled and is as its manifest says; None where not."""
    folder = rehearsal.folder
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        facts = RehearsalFacts.model_validate(parse_json((folder / FACTS).read_bytes()))
        return None if changed_files(folder) else facts.model_copy(update={"folder": str(folder)})
    except (OSError, ValueError, CorpusError):
        return None  # damaged: sampled again


def estimate_rehearsal(rehearsal: Rehearsal) -> CorpusFacts:
    """Return what a source will come to once it is sampled: the tokens that are asked for."""
    encoder = open_encoder(
        rehearsal.base_folder, rehearsal.tokenizer_recipe, vocab_size=rehearsal.vocab_size
    )
    source, num_tokens = rehearsal.source, rehearsal.recipe.tokens
    num_documents = max(1, num_tokens // rehearsal.max_tokens)
    held_out = source.held_out
    return CorpusFacts(
        name=rehearsal.name,
        role=source.role,
        key=rehearsal.text(Path(), is_made=False).key(),
        tokens="",
        folder="",
        measured=False,
        num_documents=round(num_documents * (1 - held_out)),
        num_tokens=round(num_tokens * (1 - held_out)),
        num_bytes=round(num_tokens * _BYTES_PER_TOKEN * (1 - held_out)),
        held_out_documents=round(num_documents * held_out),
        held_out_tokens=round(num_tokens * held_out),
        held_out_bytes=round(num_tokens * _BYTES_PER_TOKEN * held_out),
        begin_token_ids=encoder.frame.begin,
        end_token_ids=encoder.frame.end,
        begin_tokens=encoder.spell(encoder.frame.begin),
        end_tokens=encoder.spell(encoder.frame.end),
        tokenizer_fingerprint=tokenizer_fingerprint(rehearsal.base_folder),
        licence=source.licence,
        warnings=(
            "it is not sampled yet (`rewarm rehearse`): its documents and bytes are a guess",
        ),
    )
