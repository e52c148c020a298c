"""A folder under its manifest: made by one at a time, sealed once complete, held against it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewarm.artifacts import MANIFEST_NAME, file_sha256, parse_json, provenance, write_json
from rewarm.corpus.files import Input, RemoteFile, hash_free_entry
from rewarm.errors import CorpusError, Problems
from rewarm.records.facts import CorpusFacts

__all__ = [
    "alone",
    "changed_files",
    "discard_changed",
    "note_other_tokenizer",
    "seal",
    "sealed_json",
    "verify_prepared",
]

_MADE_AGAIN = "run `rewarm prepare` with the recipe: it is made again"
_PACKAGES = (
    "rewarm",
    "tokenizers",
    "pyarrow",
    "numpy",
    "scipy",
    "scikit-learn",
    "datatrove",
    "spacy",
    "py3langid",
    "faiss-cpu",
    "sentence-transformers",
    "torch",
    "transformers",
)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time make what a folder holds; the next one waits and finds it done.

    The system takes the lock from a process that is killed. A file system without locks is used
    without.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def seal(
    folder: Path,
    inputs: Sequence[Input],
    about: Mapping[str, Any],
    *,
    known_hashes: Mapping[str, str] | None = None,
) -> None:
    """Write the manifest of a folder that is complete, last: sizes, times and hashes of all files,
    of the inputs too (of remote ones, which are read once, their versions), what it is `about`, and
    provenance. `known_hashes` are the SHA-256 of files that were hashed before, by name."""
    hashes = {
        os.path.realpath(folder / name): digest for name, digest in (known_hashes or {}).items()
    }
    for path in folder.iterdir():  # what a kill left of a file that was being written
        if path.name.startswith(".") and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()

    def sha256(path: Path) -> str:
        """A token shard that was taken over is file and input in one."""
        real = os.path.realpath(path)
        if real not in hashes:
            hashes[real] = file_sha256(path)
        return hashes[real]

    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.name != MANIFEST_NAME and not path.name.startswith(".")
    )
    files = {}
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        stat = (folder / name).stat()
        files[name] = {
            "bytes": stat.st_size,
            "sha256": sha256(folder / name),
            "mtime_ns": stat.st_mtime_ns,
        }
    write_json(
        folder / MANIFEST_NAME,
        {
            "files": files,
            "inputs": [
                hash_free_entry(path)
                if isinstance(path, RemoteFile)
                else {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in inputs
            ],
            "provenance": provenance(_PACKAGES),
            **about,
        },
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    try:
        value = parse_json(path.read_bytes())
        for entry in value["files"].values():
            int(entry["bytes"]), int(entry["mtime_ns"]), str(entry["sha256"])
    except OSError as error:
        what = f"the manifest cannot be read ({error.strerror or error})"
        raise CorpusError.one(str(path), what, _MADE_AGAIN) from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = "it does not list the files with their sizes and hashes"
        raise CorpusError.one(str(path), what, _MADE_AGAIN) from error
    found: dict[str, Any] = value
    return found


def changed_files(folder: Path) -> dict[str, str]:
    """Return the files of a prepared folder that are not as its manifest says, each with how.

    A file whose size and modification time are those of the manifest is taken as unchanged; any
    other is hashed. Raises CorpusError where there is no manifest to hold them against.
    """
    return _changes(folder, _manifest(folder)["files"])


def _changes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return which of a manifest's files are not as it says, each with how."""
    changes = {name: _change(folder / name, entry) for name, entry in files.items()}
    return {name: what for name, what in changes.items() if what is not None}


def _change(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Return how a file differs from its manifest's entry; None where it does not."""
    try:
        stat = path.stat()
        if (stat.st_size, stat.st_mtime_ns) == (entry["bytes"], entry["mtime_ns"]):
            return None
        if stat.st_size != entry["bytes"] or file_sha256(path) != entry["sha256"]:
            return "it changed since prepare"
    except FileNotFoundError:
        return "it was there at prepare and is gone"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def sealed_json(folder: Path, name: str, *, beside: tuple[str, ...] = ()) -> Any:
    """Return the value of a JSON file that is as its folder's manifest says.

    Counts go from there into plans, where nothing else would tell that they were altered. Files
    `beside` it, by the endings of their names, have to be as the manifest says too. Raises OSError,
    ValueError or CorpusError where it cannot be read, or something is otherwise.
    """
    files = _manifest(folder)["files"]
    if name not in files:
        raise CorpusError.one(str(folder / name), "the manifest does not list it", _MADE_AGAIN)
    held = {key: entry for key, entry in files.items() if key == name or key.endswith(beside)}
    for changed, what in _changes(folder, held).items():
        raise CorpusError.one(str(folder / changed), what, _MADE_AGAIN)
    return parse_json((folder / name).read_bytes())


def discard_changed(folder: Path) -> None:
    """Forget the shards with a changed file, so that they are made again.

    Without this, a shard of the right size would be sealed under the hash of its damage. What
    stands on the shards is made again anyhow.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return  # a preparation that was cut off: its shards were complete when they were marked
    try:
        changed = list(changed_files(folder))
    except CorpusError:
        changed = [path.name for path in folder.glob("shard-*")]  # nothing vouches for any of them
    for name in changed:
        if name.startswith("shard-"):
            (folder / f"{name.partition('.')[0]}.json").unlink(missing_ok=True)


def verify_prepared(facts: CorpusFacts) -> None:
    """Raise CorpusError naming every file of a prepared source that changed since, with what says
    which of its documents are dropped or, by their scores, selected."""
    problems = Problems()
    places = [(facts.folder, facts.key), *((drop.folder, drop.key) for drop in facts.drops)]
    if facts.selection is not None:
        places.append((facts.selection.scores, facts.selection.key))
    for folder, key in places:
        try:
            _verify(Path(folder), key, facts, problems)
        except CorpusError as error:  # a manifest is gone or damaged: the other places still tell
            problems.extend(error.problems)
    problems.raise_as(CorpusError)


def note_other_tokenizer(folder: Path, facts: CorpusFacts, problems: Problems) -> None:
    """Note where the manifest of a folder names another tokenizer than its source's, or none."""
    named = _manifest(folder).get("tokenizer_fingerprint")
    if named != facts.tokenizer_fingerprint:
        problems.add(
            str(folder),
            f"it was made with another tokenizer ({str(named)[:12]}) than the text was planned "
            f"with ({facts.tokenizer_fingerprint[:12]})",
            _MADE_AGAIN,
        )


def _verify(folder: Path, key: str, facts: CorpusFacts, problems: Problems) -> None:
    note_other_tokenizer(folder, facts, problems)
    if _manifest(folder).get("key") != key:
        problems.add(
            str(folder),
            "it holds other text than was planned with (its key differs)",
            "run `rewarm prepare` and `rewarm plan` again",
        )
    for name, what in changed_files(folder).items():
        problems.add(str(folder / name), what, _MADE_AGAIN)
