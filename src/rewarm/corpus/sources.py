"""Reads the files of a source as documents, counting what is rejected and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewarm.artifacts import parse_json
from rewarm.corpus.inputs import format_of
from rewarm.corpus.streams import Caps, read_lines, read_whole
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe

__all__ = ["Document", "Rejections", "read_documents"]

_MAX_FILE_BYTES = 256 * 2**20
_NUM_EXAMPLES = 3
# Whole rows are held in memory: few enough that a batch of books fits.
_PARQUET_ROWS = 128


@dataclass(frozen=True, slots=True)
class Document:
    """One document; `group` is what the held-out split keeps together, where the source has it."""

    id: str
    text: str
    group: str | None = None
    question: str | None = None
    answer: str | None = None


@dataclass(slots=True)
class Rejections:
    """Documents that were not taken, by reason, with the first places where that happened."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, reason: str, where: str) -> None:
        """Count one rejected document."""
        self.counts[reason] += 1
        if len(self.examples) < _NUM_EXAMPLES:
            self.examples.append(f"{where} ({reason})")


def read_documents(
    path: Path, source: SourceRecipe, rejections: Rejections, caps: Caps | None = None
) -> Iterator[tuple[Document, int]]:
    """Yield the documents of one file, each with how far into the file on disk the reading is.

    A document that cannot be taken (invalid UTF-8, lone surrogates, NUL, a byte-order mark, bad
    JSON, a missing field, above the caps) is counted in `rejections`. A file that cannot be read at
    all is a CorpusError.
    """
    caps = caps or Caps()
    kind = format_of(path, source)
    if kind == "jsonl":
        return _read_jsonl(path, source, rejections, caps)
    if kind == "parquet":
        return _read_parquet(path, source, rejections)
    return _read_whole(path, rejections, caps)


def _read_jsonl(
    path: Path, source: SourceRecipe, rejections: Rejections, caps: Caps
) -> Iterator[tuple[Document, int]]:
    for line in read_lines(path, caps):
        where = f"{path.name}:{line.number}"
        if line.content is None:
            rejections.add("line_too_long", where)
            continue
        if not line.content.strip():
            continue
        value = _parse(line.content)
        document = value if isinstance(value, str) else _document(value, source, where)
        if isinstance(document, str):
            rejections.add(document, where)
        else:
            yield document, line.file_position


def _parse(line: bytes) -> Any:
    """Return the object of a line, or (a string) the reason why it is rejected."""
    if line.startswith(b"\xef\xbb\xbf"):
        return "bom"
    try:
        value = parse_json(line)
    except UnicodeDecodeError:
        return "invalid_utf8"
    except (ValueError, RecursionError):
        return "malformed_json"
    return value if isinstance(value, dict) else "not_an_object"


def _document(value: Mapping[str, Any], source: SourceRecipe, where: str) -> Document | str:
    """Return the document of a record, or the reason why it is rejected."""
    question = answer = None
    if source.question_field is not None and source.answer_field is not None:
        question, answer = value.get(source.question_field), value.get(source.answer_field)
        if question is None or answer is None:
            return "missing_field"
        reason = _unfit(question) or _unfit(answer)
        if reason is not None:
            return reason
    text = value.get(source.text_field)
    if text is None and question is not None:
        text = f"Question: {question}\nAnswer: {answer}"
    if text is None:
        return "missing_field"
    reason = _unfit(text)
    if reason is not None:
        return reason
    group = None
    if source.group_field is not None:
        group = value.get(source.group_field)
        if group is None:
            return "missing_field"
    identity = value.get("id")
    if identity is None:
        identity = where
    return Document(
        _printable(identity), text, None if group is None else _printable(group), question, answer
    )


def _printable(value: object) -> str:
    """Return an id or group as text that can be written as UTF-8."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _unfit(text: object) -> str | None:
    """Return the reason why a text cannot be a document; None where it can."""
    if not isinstance(text, str):
        return "not_a_string"
    if not text.strip():
        return "empty"
    if "\x00" in text:
        return "nul"
    if "\ufeff" in text:  # at the start a mark of the file's, inside one of files joined blindly
        return "bom"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "lone_surrogate"
    return None


def _read_parquet(
    path: Path, source: SourceRecipe, rejections: Rejections
) -> Iterator[tuple[Document, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [source.text_field, source.group_field, source.question_field, source.answer_field]
    size = path.stat().st_size
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            optional = {source.text_field} if source.question_field else set()
            missing = [
                name for name in wanted if name and name not in names and name not in optional
            ]
            if missing:
                raise CorpusError.one(
                    str(path),
                    f"it has no column {missing[0]!r}",
                    f"name one of its columns in the source: {', '.join(names)}",
                )
            columns = [name for name in names if name in {*wanted, "id"}]
            row = 0
            num_rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                for value in _rows(batch):
                    row += 1
                    where = f"{path.name}:{row}"
                    document = value if isinstance(value, str) else _document(value, source, where)
                    if isinstance(document, str):
                        rejections.add(document, where)
                    else:
                        yield document, size * row // num_rows
    except (pa.ArrowException, OSError) as error:
        raise CorpusError.one(
            str(path), f"it cannot be read as parquet ({error})", "fetch or write the file again"
        ) from error


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Yield the rows of an Arrow batch, or the reason why one is rejected: Arrow does not look
    whether a string column is UTF-8, so decoding it may fail on one row."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield "invalid_utf8"


def _read_whole(path: Path, rejections: Rejections, caps: Caps) -> Iterator[tuple[Document, int]]:
    """Yield the file as one document."""
    identity = "/".join(path.parts[-3:])
    content = read_whole(path, caps, max_bytes=_MAX_FILE_BYTES)
    if content is None:
        rejections.add("file_too_large", identity)
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        rejections.add("invalid_utf8", identity)
        return
    reason = _unfit(text)
    if reason is not None:
        rejections.add(reason, identity)
    else:
        yield Document(identity, text), path.stat().st_size
