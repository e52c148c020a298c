"""Finds the files of a source: files, folders and globs, each file once and in one source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rewarm.corpus.files import Input, RemoteFile
from rewarm.corpus.hub import find_hub_files
from rewarm.corpus.remote import find_remote
from rewarm.corpus.side_by_side import side_by_side
from rewarm.errors import CorpusError, EnvironmentFault, Problems, masked
from rewarm.recipe.sources import SourceRecipe, is_url

__all__ = ["find_inputs", "format_of", "resolve_inputs"]

_FORMAT_OF = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
    ".bin": "tokens",
    ".idx": "tokens",
}
_CODE_ENDINGS = frozenset(
    """
    .c .cc .cpp .cs .cu .css .go .h .hpp .hs .html .java .jl .js .kt .lua .m .ml .php .pl .py .pyi
    .r .rb .rs .scala .sh .sql .swift .tex .ts .tsx .vue .zig
    """.split()  # noqa: SIM905 - a list of 35 literals would fill the page
)
_COMPRESSED = (".gz", ".zst")
_TABLES = ("jsonl", "parquet", "csv", "tsv")
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "venv", "target", "dist", "build"})


def resolve_inputs(name: str, source: SourceRecipe, recipe_folder: Path) -> list[Input]:
    """Return the files of a source, sorted, each once.

    A path is a file, a folder (read through, hidden folders and symbolic links to folders left
    out), a glob, or a URL of one of these; of token shards, which come in pairs (.bin, .idx), one
    file or their common name will do. Raises CorpusError with everything wrong: a pattern that
    matches nothing, a file named twice, a file that cannot be read or whose format cannot be told,
    half of a pair; EnvironmentFault where the side of a URL, or the hub, cannot be reached.
    """
    problems = Problems()
    faults: list[EnvironmentFault] = []
    where = f"sources.{name}.path"
    if source.hub is not None:
        where = f"sources.{name}.hub"
        found = find_hub_files(source.hub, where, recipe_folder, _hub_formats(source), problems)
    else:
        found = _found(source, where, recipe_folder, problems, faults)
    for real, count in Counter(_identities(found)).items():
        if count > 1:
            problems.add(where, f"{masked(real)} is named {count} times", "name every file once")
    if source.holds_tokens:
        local = [path for path in found if not isinstance(path, RemoteFile)]
        for path in found:
            if isinstance(path, RemoteFile):
                problems.add(
                    where,
                    f"{path} lies elsewhere: token shards are used where they lie, mapped into "
                    "memory",
                    "copy them to a disk of this machine and give their path",
                )
        found = list(_pairs(local, where, problems))
    for path in found:
        if not _is_text(str(path)):
            problems.add(where, f"the name of {str(path)!a} is not UTF-8", "rename it")
        elif not isinstance(path, RemoteFile) and not os.access(path, os.R_OK):
            problems.add(where, f"{path} cannot be read", "check its permissions")
        elif format_of(path, source) is None:
            formats = "jsonl, parquet, csv, tsv"
            what, fix = (
                f"the format of {path.name} cannot be told from its ending",
                (f"set sources.{name}.format to {formats}, text, code or tokens"),
            )
            if source.format == "chat":
                what, fix = f"{path.name} is no table of messages", f"give it as {formats}"
            problems.add(where, what, fix)
    if faults and not len(problems):
        raise faults[0]
    for fault in faults:  # with mistakes of the person's, which are told as well
        problems.add(where, fault.what, fault.fix)
    problems.raise_as(CorpusError)
    return found if source.holds_tokens else sorted(found, key=_place)


def _found(
    source: SourceRecipe,
    where: str,
    recipe_folder: Path,
    problems: Problems,
    faults: list[EnvironmentFault],
) -> list[Input]:
    patterns = [source.path] if isinstance(source.path, str) else source.path or []
    remote = _found_remote([pattern for pattern in patterns if _is_remote(pattern)], source, where)
    found: list[Input] = []
    for pattern in patterns:
        known = len(problems)
        matches: list[Input]
        if _is_remote(pattern):
            answer = remote[pattern]
            if isinstance(answer, CorpusError):
                problems.extend(answer.problems)
                continue
            if isinstance(answer, EnvironmentFault):
                faults.append(answer)
                continue
            matches = list(answer)
        else:
            local = pattern.removeprefix("file://")
            matches = list(_matches(local, source, recipe_folder, problems))
        if not matches and len(problems) == known:
            problems.add(
                where,
                f"{masked(pattern)!r} matches no file that can be read as {source.format} "
                f"(seen from {recipe_folder})",
                "check the path; for folders and globs also the endings of the files",
            )
        found += matches
    return found


def _is_remote(pattern: str) -> bool:
    return is_url(pattern) and not pattern.startswith("file://")


def _found_remote(
    urls: Sequence[str], source: SourceRecipe, where: str
) -> dict[str, list[RemoteFile] | CorpusError | EnvironmentFault]:
    """Return what each URL names, or what is wrong with it; asked for side by side."""

    def ask(url: str) -> list[RemoteFile] | CorpusError | EnvironmentFault:
        try:
            return find_remote(url, where, lambda file: covers(file, source))
        except (CorpusError, EnvironmentFault) as error:
            return error

    if len(urls) == 1:
        return {urls[0]: ask(urls[0])}
    return dict(zip(urls, side_by_side(ask, urls), strict=True))


def _hub_formats(source: SourceRecipe) -> tuple[str, ...]:
    """Return which formats are looked for in a data set of the hub."""
    if source.format in ("auto", "chat"):
        return (*_TABLES, "text") if source.format == "auto" else _TABLES
    return (source.format,)


def _identities(files: Sequence[Input]) -> Iterator[str]:
    """Yield of each file what all names of it share."""
    folders: dict[str, str] = {}  # each is followed to where it lies once, not for all its files
    for file in files:
        if isinstance(file, RemoteFile):
            yield file.identity
        elif os.path.islink(file):
            yield os.path.realpath(file)
        else:
            folder, name = os.path.split(file)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            yield os.path.join(folders[folder], name)


def _place(file: Input) -> tuple[bool, tuple[str, ...]]:
    return isinstance(file, RemoteFile), file.parts


def covers(file: Input, source: SourceRecipe) -> bool:
    """Tell whether a file of a folder is one of those that the source's format reads."""
    wanted = format_of(file, source)
    return wanted is not None and _format_by_ending(file) == wanted


def _pairs(found: list[Path], where: str, problems: Problems) -> list[Path]:
    """Return the files of every token shard, one after the other, of which one was found.

    Half a pair is a problem, and so is a file of another kind.
    """
    pairs: list[Path] = []
    for path in found:
        if _format_by_ending(path) != "tokens":
            problems.add(where, f"{path} is no token shard", "name files in .bin or .idx")
    shards = {path.with_suffix("") for path in found if _format_by_ending(path) == "tokens"}
    for prefix in sorted(shards):
        pair = [Path(f"{prefix}.bin"), Path(f"{prefix}.idx")]
        missing = [path.name for path in pair if not os.path.isfile(path)]
        if missing:
            problems.add(
                where,
                f"{prefix} has no {missing[0]}: a token shard is .bin and .idx",
                "put the other file beside it, or leave this one out",
            )
        else:
            pairs += pair
    return pairs


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
    if source.holds_tokens and os.path.isfile(f"{path}.idx"):
        return [Path(f"{path}.idx")]
    found = sorted(match for match in _glob(path) if os.path.isfile(match))
    return [
        path for path in found if not source.holds_tokens or _format_by_ending(path) == "tokens"
    ]


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
            if not name.startswith(".") and covers(path, source) and path.is_file():
                yield path


def _format_by_ending(path: Input) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes:
        return None
    if suffixes[-1] in _CODE_ENDINGS:
        return "code"
    return _FORMAT_OF.get(suffixes[-1])


def format_of(path: Input, source: SourceRecipe) -> str | None:
    """Return the format of a file; tokens are taken over only where the recipe says so: many other
    things end in .bin."""
    if source.holds_tokens:
        return "tokens"
    by_ending = _format_by_ending(path)
    if source.format == "chat":
        return by_ending if by_ending in _TABLES else None
    if source.format != "auto":
        return source.format
    return None if by_ending == "tokens" else by_ending


def find_inputs(
    sources: Mapping[str, SourceRecipe],
    recipe_folder: Path,
    problems: Problems,
    faults: list[EnvironmentFault] | None = None,
) -> dict[str, list[Input]]:
    """Return the files of every source that can be found; what is made by rehearsal has none.

    Noted as problems: whatever `resolve_inputs` refuses, and files that two sources read, where
    one would train on what the other holds out (one problem for each pair of sources). What cannot
    be reached is added to `faults` too: it is no mistake of the person's.
    """
    found: dict[str, list[Input]] = {}
    owner: dict[str, str] = {}
    shared: dict[tuple[str, str], list[Input]] = {}
    for name, source in sources.items():
        if source.rehearse is not None:
            continue
        try:
            found[name] = resolve_inputs(name, source, recipe_folder)
        except CorpusError as error:
            problems.extend(error.problems)
            continue
        except EnvironmentFault as fault:
            problems.add(f"sources.{name}", fault.what, fault.fix)
            if faults is not None:
                faults.append(fault)
            continue
        for path, identity in zip(found[name], _identities(found[name]), strict=True):
            first = owner.setdefault(identity, name)
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
