"""`rewarm extend-vocabulary`: a base with further tokens that its text is made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tokenizers import Tokenizer

from rewarm.corpus.inputs import format_of, resolve_inputs
from rewarm.corpus.sources import Rejections, read_documents
from rewarm.errors import CorpusError, Problems, UserError
from rewarm.export import Extension, export_extended, find_extended
from rewarm.model.vocabulary import NewPiece, note_not_extensible, train_pieces
from rewarm.model.vocabulary_rows import Growth, grow
from rewarm.model.weight_folder import WeightFolder
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import NewPieces
from rewarm.stages.base import find_model

__all__ = ["VocabularyRequest", "run_extend_vocabulary"]

# Of each so many documents one is kept to measure on.
_MEASURED_EVERY = 20
_MOST_BYTES = 128 * 2**20
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class VocabularyRequest:
    """What the command line gave."""

    base: str
    text: tuple[str, ...]
    num_pieces: int
    output: Path
    text_field: str = "text"


def run_extend_vocabulary(request: VocabularyRequest, console: Console | None = None) -> Path:
    """Write the base with new tokens, print what they save, and return its folder.

    What is there already, whole, is not written again.

    Raises UserError with everything that is wrong with base, text and place, EnvironmentFault
    where the hub or the disk refuses.
    """
    console = console or Console()
    problems = Problems()
    base = _read_base(request, problems)
    texts, is_part = _read_texts(request, problems)
    tokenizer = None
    if base is not None:
        tokenizer = _open(base.folder)
        note_not_extensible(tokenizer, str(base.folder / "tokenizer.json"), problems)
    problems.raise_as(UserError)
    assert base is not None
    assert tokenizer is not None
    measured = texts[_MEASURED_EVERY - 1 :: _MEASURED_EVERY]
    made_from = [text for n, text in enumerate(texts, start=1) if n % _MEASURED_EVERY]
    with console.status("making pieces of the text"):
        pieces = train_pieces(tokenizer, made_from, request.num_pieces)
    if len(pieces) < request.num_pieces:
        raise UserError.one(
            "--tokens",
            f"the text gives {len(pieces):,} new pieces that occur twice, not "
            f"{request.num_pieces:,}",
            "ask for fewer, or give more text",
        )
    first = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    growth = grow(base, first, [piece.old_ids for piece in pieces])
    facts = _measure(tokenizer, pieces, first, measured or made_from, bool(measured))
    extension = _extension(request, base, pieces, growth, facts, measured or made_from)
    damage = find_extended(request.output, base, extension)
    if damage == []:
        _say(console, f"extended already: {request.output.resolve()}")
        return request.output
    if damage or os.path.lexists(request.output):
        what = f"it is this extension, damaged: {'; '.join(damage)}" if damage else ""
        raise UserError.one(
            str(request.output),
            what or "there is something already",
            "name another folder, or remove this one, then run the command again",
        )
    with console.status("writing, and reading back what was written"):
        largest = export_extended(base, extension, folder=request.output)
    if is_part:
        _say(console, f"pieces were made from the first {_MOST_BYTES >> 20} MiB of text")
    for line in _told(extension, largest, request.output):
        _say(console, line)
    return request.output


def _read_base(request: VocabularyRequest, problems: Problems) -> WeightFolder | None:
    try:
        return WeightFolder.read(find_model(request.base, None, Path.cwd(), where="BASE"))
    except UserError as error:
        problems.extend(error.problems)
        return None


def _open(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _read_texts(request: VocabularyRequest, problems: Problems) -> tuple[list[str], bool]:
    """Return the documents, and whether there are more than are read."""
    source = SourceRecipe(path=list(request.text), role="new", text_field=request.text_field)
    texts: list[str] = []
    size = 0
    try:
        paths = resolve_inputs("text", source, Path.cwd())
        if any(format_of(path, source) is None for path in paths):
            raise CorpusError.one("--text", "token shards hold no text", "give the text itself")
        for path in paths:
            for document, _ in read_documents(path, source, Rejections()):
                texts.append(document.text)
                size += len(document.text.encode("utf-8"))
                if size >= _MOST_BYTES:
                    return texts, True
    except UserError as error:
        for problem in error.problems:
            where = problem.where.replace("sources.text.path", "--text")
            problems.add(where, problem.what, problem.fix)
        return texts, False
    if not texts:
        problems.add(
            "--text", "it holds no document that can be read", "check the files and --text-field"
        )
    return texts, False


def _measure(
    tokenizer: Tokenizer,
    pieces: Sequence[NewPiece],
    first: int,
    texts: Sequence[str],
    on_other_text: bool,
) -> NewPieces:
    from rewarm.model.vocabulary import extended_json

    extended = Tokenizer.from_str(extended_json(tokenizer.to_str(), pieces))
    extended.encode_special_tokens = True
    num_bytes = sum(len(text.encode("utf-8")) for text in texts)
    before, after = (
        sum(len(found) for found in one.encode_batch_fast(list(texts), add_special_tokens=False))
        for one in (tokenizer, extended)
    )
    return NewPieces(
        first_id=first,
        num_pieces=len(pieces),
        tokens_per_byte_before=before / num_bytes,
        tokens_per_byte=after / num_bytes,
        on_other_text=on_other_text,
    )


def _extension(
    request: VocabularyRequest,
    base: WeightFolder,
    pieces: Sequence[NewPiece],
    growth: Growth,
    facts: NewPieces,
    sample: Sequence[str],
) -> Extension:
    is_local = os.path.isdir(os.path.expanduser(request.base))
    return Extension(
        name=request.output.resolve().name,
        base_name=base.folder.name if is_local else request.base,
        hub_id=None if is_local else request.base,
        pieces=pieces,
        growth=growth,
        facts=facts,
        sample=sample,
    )


def _told(extension: Extension, largest: float, output: Path) -> list[str]:
    growth, facts = extension.growth, extension.facts
    shown = " ".join(piece.token for piece in extension.pieces[:_SHOWN])
    return [
        f"new pieces: {facts.num_pieces:,}, ids from {growth.first_id:,}: {shown} …",
        f"rows: {growth.num_old_rows:,} → {growth.num_rows:,}",
        f"tokens per byte: {facts.gain()}",
        f"logits over old tokens are the base's to {largest:.2g}",
        f"extended and verified: {output.resolve()}",
    ]


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
