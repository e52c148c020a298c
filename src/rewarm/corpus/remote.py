"""Finds files behind a URL: one file, a folder or a glob, each with its size and version."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from rewarm.corpus.files import RemoteFile, patiently, version_of
from rewarm.corpus.side_by_side import side_by_side
from rewarm.errors import CorpusError, UserError, masked

__all__ = ["find_remote"]

_SIGNS = "*?["


def find_remote(url: str, where: str, covers: Callable[[RemoteFile], bool]) -> list[RemoteFile]:
    """Return what a URL names, sorted: a file, the files of a folder that `covers` takes, or those
    that a glob matches.

    Hidden names are left out, as they are here. Raises CorpusError (naming `where`) for a protocol
    that nothing here speaks, for what is not there or closed; EnvironmentFault where its side fails
    again and again.
    """
    files, path = _file_system(url, where)

    def look() -> list[RemoteFile]:
        files.invalidate_cache()
        if any(sign in path for sign in _signs(url)):
            return _listed(files, _visible(path, files.glob(path, detail=True)))
        # A folder of the web is a page of links, and a page tells of nothing that it is one.
        if url.endswith("/") or (info := files.info(path)).get("type") == "directory":
            found = _visible(path, files.find(path, detail=True))
            return _listed(files, {name: found[name] for name in found if covers(named(name))})
        return _listed(files, {path: info})

    def named(path: str) -> RemoteFile:
        return RemoteFile(str(files.unstrip_protocol(path)), 0, "", "")

    try:
        found = patiently(masked(url), look)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return []
        raise
    return sorted(found, key=str)


def _signs(url: str) -> str:
    """Return the signs of a pattern; in an address of the web `?` begins a query."""
    return "*[" if url.startswith(("http://", "https://")) else _SIGNS


def _visible(root: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return what was found under a folder or by a pattern, hidden names only where it spells
    them."""
    fixed = root
    for sign in _SIGNS:
        fixed = fixed.partition(sign)[0]
    spelt = any(part.startswith(".") for part in root.split("/"))

    def is_hidden(path: str) -> bool:
        rest = path[len(fixed.rpartition("/")[0]) :] if fixed != root else path[len(root) :]
        return not spelt and any(part.startswith(".") for part in rest.split("/"))

    return {
        path: info
        for path, info in found.items()
        if info.get("type", "file") == "file" and not is_hidden(path)
    }


def _listed(files: Any, found: Mapping[str, Mapping[str, Any]]) -> list[RemoteFile]:
    """Return what a file system listed, as files to read; raises CorpusError for one whose size its
    side does not tell, asked for that file alone."""
    untold = [path for path, info in found.items() if info.get("size") is None]
    told = {**found, **dict(zip(untold, side_by_side(files.info, untold), strict=True))}
    listed = []
    for path, info in told.items():
        address = str(files.unstrip_protocol(path))
        size = info.get("size")
        if size is None:
            raise CorpusError.one(
                masked(address),
                "its side does not tell how large it is, so nothing would show that it is whole",
                "download it and give its path here",
            )
        listed.append(RemoteFile(address, int(size), version_of(info), identity=address))
    return listed


def _file_system(url: str, where: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it; raises CorpusError where there is none
    that can be used here."""
    import fsspec
    from fsspec.registry import known_implementations

    if "::" in url:
        raise CorpusError.one(
            where,
            f"{masked(url)} leads through several file systems",
            "unpack what is packed, or give the address of one: s3://bucket/folder/*.jsonl.gz",
        )
    protocol = url.partition("://")[0]
    try:
        files, path = fsspec.url_to_fs(url)
    except ImportError as error:
        package = known_implementations.get(protocol, {}).get("class", "fsspec").partition(".")[0]
        needed = {"fsspec": "what it names", "s3fs": "s3fs"}.get(package, package)
        if protocol in ("http", "https"):
            needed = "aiohttp"
        raise CorpusError.one(
            where,
            f"{masked(url)}: {protocol}:// needs a package that cannot be imported ({error})",
            f"pip install {needed}; credentials belong in the environment",
        ) from error
    except ValueError as error:
        near = difflib.get_close_matches(protocol, known_implementations, n=1)
        raise CorpusError.one(
            where,
            f"{masked(url)}: no file system is called {protocol!r}",
            f"did you mean {near[0]}://?" if near else "e.g. s3://, gs://, abfs://, https://",
        ) from error
    except Exception as error:
        raise CorpusError.one(
            where,
            f"{masked(url)} cannot be opened ({masked(str(error))[:300]})",
            "check the address; credentials belong in the environment",
        ) from error
    return files, str(path)
