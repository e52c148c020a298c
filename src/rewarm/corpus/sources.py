"""Finds a source's files and reads them as documents, counting what is rejected and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewarm.artifacts import parse_json
from rewarm.corpus.streams import Caps, read_lines, read_whole
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.schema import SourceRecipe

__all__ = ["Document", "Rejections", "find_inputs", "read_documents", "resolve_inputs"]

_FORMAT_OF = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
}
_CODE_ENDINGS = frozenset(
    """
    .c .cc .cpp .cs .cu .css .go .h .hpp .hs .html .java .jl .js .kt .lua .m .ml .php .pl .py .pyi
    .r .rb .rs .scala .sh .sql .swift .tex .ts .tsx .vue .zig
    """.split()  # noqa: SIM905 - a list of 35 literals would fill the page
)
_COMPRESSED = (".gz", ".zst")
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "venv", "target", "dist", "build"})
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


def resolve_inputs(name: str, source: SourceRecipe, recipe_folder: Path) -> list[Path]:
    """Return the files of a source, sorted, each once.

    A path is a file, a folder (read through, hidden folders and symbolic links to folders left
    out) or a glob. Raises CorpusError with everything wrong: a pattern that matches nothing, a file
    named twice, a file that cannot be read or whose format cannot be told.
    """
    patterns = [source.path] if isinstance(source.path, str) else source.path
    problems = Problems()
    where = f"sources.{name}.path"
    found: list[Path] = []
    for pattern in patterns:
        known = len(problems)
        matches = _matches(pattern, source, recipe_folder, problems)
        if not matches and len(problems) == known:
            problems.add(
                where,
                f"{pattern!r} matches no file that can be read as {source.format} "
                f"(seen from {recipe_folder})",
                "check the path; for folders and globs also the endings of the files",
            )
        found += matches
    for real, count in Counter(os.path.realpath(path) for path in found).items():
        if count > 1:
            problems.add(where, f"{real} is named {count} times", "name every file once")
    for path in found:
        if not _is_text(str(path)):
            problems.add(where, f"the name of {str(path)!a} is not UTF-8", "rename it")
        elif not os.access(path, os.R_OK):
            problems.add(where, f"{path} cannot be read", "check its permissions")
        elif _format_of(path, source) is None:
            problems.add(
                where,
                f"the format of {path.name} cannot be told from its ending",
                f"set sources.{name}.format to jsonl, parquet, text or code",
            )
    problems.raise_as(CorpusError)
    return sorted(found)


def _is_text(name: str) -> bool:
    """Tell whether a name can be written down; the system's names are bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _matches(
    pattern: str, source: SourceRecipe, recipe_folder: Path, problems: Problems
) -> list[Path]:
    path = recipe_folder / os.path.expanduser(pattern)  # an absolute path stays as it is
    # os.path, unlike Path, answers False where a name is too long or a folder is closed to us.
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        return list(_walk(path, source, problems))
    return sorted(found for found in _glob(path) if os.path.isfile(found))


def _glob(pattern: Path) -> set[Path]:
    """Return what a pattern matches, hidden names only where it spells them.

    Its first folders are taken as they are called where they exist, brackets and all. `**` does not
    go through links to folders: two loops of them side by side have 2^40 names for one file.
    """
    folder = Path(pattern.anchor)
    parts = list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    while parts and os.path.isdir(folder / parts[0]):
        folder /= parts.pop(0)
    if parts[-1:] == ["**"]:
        parts.append("*")  # before Python 3.13 it stood for folders alone
    try:
        found = set(folder.glob("/".join(parts)))
    except (OSError, ValueError, RecursionError):  # no system holds such a name
        return set()
    if any(part.startswith(".") for part in parts):
        return found
    depth = len(folder.parts)
    return {path for path in found if not any(p.startswith(".") for p in path.parts[depth:])}


def _walk(folder: Path, source: SourceRecipe, problems: Problems) -> Iterator[Path]:
    """Yield the files of a folder that the source's format covers; links to folders are not
    followed, so that a loop of them ends nothing. A folder that cannot be read is a problem."""

    def refused(error: OSError) -> None:
        problems.add(
            str(error.filename),
            f"the folder cannot be read ({error.strerror})",
            "check its permissions, or name the folders to read one by one",
        )

    for root, folders, files in os.walk(folder, onerror=refused, followlinks=False):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS
        )
        for name in sorted(files):
            path = Path(root) / name
            wanted = _format_of(path, source)
            by_ending = _format_by_ending(path)
            covered = by_ending is not None if source.format == "auto" else by_ending == wanted
            if not name.startswith(".") and covered and path.is_file():
                yield path


def _format_by_ending(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes:
        return None
    if suffixes[-1] in _CODE_ENDINGS:
        return "code"
    return _FORMAT_OF.get(suffixes[-1])


def _format_of(path: Path, source: SourceRecipe) -> str | None:
    return _format_by_ending(path) if source.format == "auto" else source.format


def find_inputs(
    sources: Mapping[str, SourceRecipe], recipe_folder: Path, problems: Problems
) -> dict[str, list[Path]]:
    """Return the files of every source that can be found.

    Noted as problems: whatever `resolve_inputs` refuses, and files that two sources read, where
    one would train on what the other holds out (one problem for each pair of sources).
    """
    found: dict[str, list[Path]] = {}
    owner: dict[str, str] = {}
    shared: dict[tuple[str, str], list[Path]] = {}
    for name, source in sources.items():
        try:
            found[name] = resolve_inputs(name, source, recipe_folder)
        except CorpusError as error:
            problems.extend(error.problems)
            continue
        for path in found[name]:
            first = owner.setdefault(os.path.realpath(path), name)
            if first != name:
                shared.setdefault((first, name), []).append(path)
    for (first, name), paths in shared.items():
        more = f" and {len(paths) - 1} more files are" if len(paths) > 1 else " is"
        problems.add(
            f"sources.{name}.path",
            f"{paths[0]}{more} also read by source {first!r}: what one holds out, the other would "
            "train on",
            "give every file to one source",
        )
    return found


def read_documents(
    path: Path, source: SourceRecipe, rejections: Rejections, caps: Caps | None = None
) -> Iterator[tuple[Document, int]]:
    """Yield the documents of one file, each with how far into the file on disk the reading is.

    A document that cannot be taken (invalid UTF-8, lone surrogates, NUL, a byte-order mark, bad
    JSON, a missing field, above the caps) is counted in `rejections`. A file that cannot be read at
    all is a CorpusError.
    """
    caps = caps or Caps()
    kind = _format_of(path, source)
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
