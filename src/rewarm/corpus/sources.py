"""Reads the files of a source as documents, counting what is rejected and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rewarm.artifacts import parse_json
from rewarm.corpus.delimited import read_delimited
from rewarm.corpus.files import Input, open_input, size_of
from rewarm.corpus.inputs import format_of
from rewarm.corpus.records import Document, Rejections, document_of, unfit
from rewarm.corpus.streams import Caps, read_lines, read_whole
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe

__all__ = ["read_documents"]

_MAX_FILE_BYTES = 256 * 2**20
# Whole rows are held in memory: few enough that a batch of books fits.
_PARQUET_ROWS = 128


def read_documents(
    path: Input, source: SourceRecipe, rejections: Rejections, caps: Caps | None = None
) -> Iterator[tuple[Document, int]]:
    """Yield the documents of one file, each with how far into the file on disk the reading is.

    A document that cannot be taken (invalid UTF-8, lone surrogates, NUL, a byte-order mark, bad
    JSON or quoting, a missing field, above the caps) is counted in `rejections`. A file that cannot
    be read at all is a CorpusError, a side that cannot be reached an EnvironmentFault.
    """
    caps = caps or Caps()
    kind = format_of(path, source)
    if kind == "jsonl":
        return _read_jsonl(path, source, rejections, caps)
    if kind == "parquet":
        return _read_parquet(path, source, rejections)
    if kind in ("csv", "tsv"):
        return _read_delimited(path, kind, source, rejections, caps)
    return _read_whole(path, rejections, caps)


def _read_jsonl(
    path: Input, source: SourceRecipe, rejections: Rejections, caps: Caps
) -> Iterator[tuple[Document, int]]:
    for line in read_lines(path, caps):
        where = f"{path.name}:{line.number}"
        if line.content is None:
            rejections.add("line_too_long", where)
            continue
        if not line.content.strip():
            continue
        value = _parse(line.content)
        document = value if isinstance(value, str) else document_of(value, source, where)
        if isinstance(document, str):
            rejections.add(document, where, line.content)
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


def _wanted_columns(source: SourceRecipe) -> list[str]:
    """Return the columns without which a table cannot be read."""
    named = [
        *(source.group_field, source.question_field, source.answer_field, source.messages_field),
        *(source.language_field, source.licence_field),
    ]
    if source.question_field is None and source.format != "chat":
        named.insert(0, source.text_field)
    return [name for name in named if name is not None]


_OF_CHAT = ("messages", "conversations", "conversation", "prompt", "completion", "tools")


def _read_delimited(
    path: Input, kind: str, source: SourceRecipe, rejections: Rejections, caps: Caps
) -> Iterator[tuple[Document, int]]:
    for row in read_delimited(path, kind, source, caps, _wanted_columns(source)):
        where = f"{path.name}:{row.number}"
        value = row.value
        document = value if isinstance(value, str) else document_of(value, source, where)
        if isinstance(document, str):
            rejections.add(document, where, row.content)
        else:
            yield document, row.file_position


def _read_parquet(
    path: Input, source: SourceRecipe, rejections: Rejections
) -> Iterator[tuple[Document, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = _wanted_columns(source)
    taken = {*wanted, source.text_field, "id", *(_OF_CHAT if source.format == "chat" else ())}
    size = size_of(path)
    try:
        with open_input(path, random_access=True) as raw, pq.ParquetFile(raw) as file:
            names = file.schema_arrow.names
            missing = [name for name in wanted if name not in names]
            if missing:
                raise CorpusError.one(
                    str(path),
                    f"it has no column {missing[0]!r}",
                    f"name one of its columns in the source: {', '.join(names)}",
                )
            columns = [name for name in names if name in taken]
            row = 0
            num_rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                for value in _rows(batch):
                    row += 1
                    where = f"{path.name}:{row}"
                    document = (
                        value if isinstance(value, str) else document_of(value, source, where)
                    )
                    if isinstance(document, str):
                        rejections.add(document, where, value)
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


def _read_whole(path: Input, rejections: Rejections, caps: Caps) -> Iterator[tuple[Document, int]]:
    """Yield the file as one document."""
    identity = "/".join(path.parts[-3:])
    content = read_whole(path, caps, max_bytes=_MAX_FILE_BYTES)
    if content is None:
        rejections.add("file_too_large", identity)
        return
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        rejections.add("invalid_utf8", identity, content)
        return
    reason = unfit(text)
    if reason is not None:
        rejections.add(reason, identity, content)
    else:
        yield Document(identity, text), size_of(path)
