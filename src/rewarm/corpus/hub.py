"""Finds the files of a data set of the hub, or of a folder that is laid out like one.

Which files make up a subset and a split is what the card says (`configs:` at the head of its
README.md) and, where it says nothing, what the names of folders and files say, as the hub's own
viewer has it. Files are then read as those behind any other URL, pinned to one commit; a data set
that only a script of its own can load is not: no code of strangers is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewarm.corpus.files import Input, RemoteFile, open_input, patiently
from rewarm.errors import CorpusError, EnvironmentFault, Problems, UserError, remedy_of
from rewarm.recipe.sources import HubRecipe

__all__ = ["find_hub_files"]

CONVERTED = "refs/convert/parquet"
_CARD = "README.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MAX_CARD_BYTES = 2**20
_ENDINGS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
}
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_PARTED = re.compile(r"[ ._\-0-9]+")
_NUMBERED = re.compile(r"(?:^|/)([\w.]+(?:-[\w.]+)*)-\d{5}-of-\d{5}")


@dataclass(frozen=True, slots=True)
class _Repository:
    """The files of a data set by their path in it, and how one of them is read."""

    name: str
    files: Mapping[str, Input]
    revision: str | None

    def card(self) -> str:
        """Return its card's text; empty where it has none."""
        file = self.files.get(_CARD)
        if file is None:
            return ""
        try:
            with open_input(file) as raw:
                return raw.read(_MAX_CARD_BYTES).decode("utf-8", "replace")
        except OSError as error:
            what = f"it cannot be read ({error.strerror or error})"
            raise CorpusError.one(str(file), what, remedy_of(error)) from error


def find_hub_files(
    hub: HubRecipe,
    where: str,
    recipe_folder: Path,
    formats: Sequence[str],
    problems: Problems,
) -> list[Input]:
    """Return the files of the subset and split that a recipe names, of the given formats.

    Notes as a problem what does not lead to files: an unknown data set, revision, subset or split,
    files of several formats, a script in place of files. Raises EnvironmentFault where the hub
    cannot be reached.
    """
    folder = recipe_folder / os.path.expanduser(hub.id)
    try:
        repository = _of_folder(folder) if os.path.isdir(folder) else _of_hub(hub, where, folder)
        chosen = _choose(repository, hub, where, formats)
    except UserError as error:
        problems.extend(error.problems)
        return []
    return [repository.files[path] for path in chosen]


def _of_folder(folder: Path) -> _Repository:
    files: dict[str, Input] = {}
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(root) / name
            if not name.startswith(".") and path.is_file():
                files[path.relative_to(folder).as_posix()] = path
    return _Repository(str(folder), files, None)


def _of_hub(hub: HubRecipe, where: str, folder: Path) -> _Repository:
    if _HUB_ID.fullmatch(hub.id) is None:
        raise CorpusError.one(
            f"{where}.id", f"there is no folder {folder}", "give one, or an id: owner/dataset"
        )

    def ask() -> _Repository:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        api = HfApi()
        commit = str(api.dataset_info(hub.id, revision=hub.revision).sha)
        files: dict[str, Input] = {}
        for entry in api.list_repo_tree(
            hub.id, recursive=True, revision=commit, repo_type="dataset"
        ):
            if isinstance(entry, RepoFile):
                files[entry.path] = RemoteFile(
                    f"hf://datasets/{hub.id}@{commit}/{entry.path}",
                    entry.size,
                    entry.lfs.sha256 if entry.lfs is not None else entry.blob_id,
                    identity=f"hf://datasets/{hub.id}/{entry.path}",
                    is_pinned=True,
                )
        return _Repository(hub.id, files, commit)

    return patiently(f"the hub's data set {hub.id}", _telling(ask, hub, where, folder))


def _telling(
    ask: Callable[[], _Repository], hub: HubRecipe, where: str, folder: Path
) -> Callable[[], _Repository]:
    """Return a question to the hub whose refusals are told as what the person can mend."""

    def told() -> _Repository:
        from huggingface_hub.errors import (
            GatedRepoError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            return ask()
        except GatedRepoError as error:
            raise CorpusError.one(
                f"{where}.id",
                f"{hub.id} is gated: its owner grants access by request",
                "ask for access at its page on the hub, then set HF_TOKEN in the environment "
                "(never in the recipe)",
            ) from error
        except RevisionNotFoundError as error:
            raise CorpusError.one(
                f"{where}.revision",
                f"{hub.id} has no revision {hub.revision!r}",
                "name a branch, tag or commit",
            ) from error
        except RepositoryNotFoundError as error:
            raise CorpusError.one(
                f"{where}.id",
                f"neither a folder {folder} nor a data set {hub.id!r} on the hub was found",
                "check the spelling; for a private one set HF_TOKEN in the environment",
            ) from error
        except OfflineModeIsEnabled as error:
            raise EnvironmentFault(
                f"the hub is not asked for {hub.id}: HF_HUB_OFFLINE is set",
                f"unset it, or download the data set elsewhere and give its folder as {where}.id",
            ) from error

    return told


def _choose(
    repository: _Repository, hub: HubRecipe, where: str, formats: Sequence[str]
) -> list[str]:
    """Return the paths of a subset's split; raises CorpusError where there is none."""
    configurations = _configurations(repository)
    if configurations:
        named = _configuration(configurations, hub, where)
        splits = _declared(named, repository.files)
        data = {split: _of_formats(paths, formats) for split, paths in splits.items()}
    else:
        inside = _inside(repository, hub, where)
        data = _by_name(_of_formats(inside, formats), hub.split)
    found = data.get(hub.split, [])
    kinds = sorted({kind for path in found if (kind := _kind(path, formats)) is not None})
    if not found:
        raise _nothing(repository, hub, where, formats, sorted(k for k, v in data.items() if v))
    if len(kinds) > 1:
        raise CorpusError.one(
            f"{where}.split",
            f"{hub.split} of {repository.name} holds files of several formats: {', '.join(kinds)}",
            f"say which: format = {kinds[0]!r}",
        )
    return sorted(found)


def _nothing(
    repository: _Repository,
    hub: HubRecipe,
    where: str,
    formats: Sequence[str],
    others: Sequence[str],
) -> UserError:
    if others:
        return CorpusError.one(
            f"{where}.split",
            f"{repository.name} has no split {hub.split!r}",
            f"it has {', '.join(others[:10])}",
        )
    if any(path.endswith(".py") for path in repository.files):
        return CorpusError.one(
            f"{where}.id",
            f"{repository.name} is loaded by a script of its own, and code of strangers is not run",
            f'try the hub\'s own conversion: revision = "{CONVERTED}"',
        )
    return CorpusError.one(
        f"{where}.id",
        f"{repository.name} holds no file that can be read as {' or '.join(formats)}",
        "set format to what its files are; the hub converts many data sets: "
        f'revision = "{CONVERTED}"',
    )


def _configurations(repository: _Repository) -> list[Mapping[str, Any]]:
    """Return what the card says of subsets; raises CorpusError for a card that cannot be read."""
    from huggingface_hub import DatasetCard

    text = repository.card()
    if not text.startswith("---"):
        return []
    try:
        said = DatasetCard(text, ignore_metadata_errors=True).data.get("configs")
    except Exception as error:  # whatever a stranger's YAML leads the library to
        raise CorpusError.one(
            f"{repository.name}/{_CARD}",
            f"the head of the card cannot be read ({type(error).__name__}: {str(error)[:200]})",
            "mend it, or name its files by path: hf://datasets/owner/dataset/…",
        ) from error
    if not isinstance(said, list):
        return []
    return [one for one in said if isinstance(one, dict) and one.get("config_name")]


def _configuration(
    configurations: Sequence[Mapping[str, Any]], hub: HubRecipe, where: str
) -> Mapping[str, Any]:
    names = [str(one["config_name"]) for one in configurations]
    wanted = hub.subset
    if wanted is None:
        by_card = [str(one["config_name"]) for one in configurations if one.get("default")]
        usual = [name for name in names if name == "default"]
        candidates = by_card or usual or names
        wanted = candidates[0] if len(candidates) == 1 else None
    if wanted not in names:
        raise CorpusError.one(
            f"{where}.subset",
            f"{hub.id} has several subsets"
            if wanted is None
            else f"{hub.id} has no subset {wanted!r}",
            f"name one of {', '.join(names[:20])}",
        )
    return configurations[names.index(wanted)]


def _declared(one: Mapping[str, Any], files: Collection[str]) -> dict[str, list[str]]:
    """Return the files of each split that a card declares."""
    folder = str(one.get("data_dir") or "").strip("/")
    prefix = f"{folder}/" if folder not in ("", ".") else ""
    said = one.get("data_files")
    if said is None:
        return _by_name([path for path in files if path.startswith(prefix)], None)
    if isinstance(said, dict):
        said = [{"split": split, "path": path} for split, path in said.items()]
    if isinstance(said, str) or (isinstance(said, list) and not _are_splits(said)):
        said = [{"split": "train", "path": said}]
    splits: dict[str, list[str]] = {}
    for entry in said if isinstance(said, list) else []:
        patterns = entry.get("path")
        for pattern in [patterns] if isinstance(patterns, str) else patterns or []:
            matches = _matching(prefix + str(pattern).removeprefix("./"), files)
            known = splits.setdefault(str(entry.get("split", "train")), [])
            known += [path for path in matches if path not in known]
    return splits


def _are_splits(said: Sequence[Any]) -> bool:
    return all(isinstance(entry, dict) for entry in said)


def _matching(pattern: str, files: Collection[str]) -> list[str]:
    from fsspec.utils import glob_translate

    if pattern in files:
        return [pattern]
    matches = re.compile(glob_translate(pattern)).match
    return sorted(path for path in files if matches(path))


def _inside(repository: _Repository, hub: HubRecipe, where: str) -> list[str]:
    """Return the files of a subset that no card declares: those of the folder of that name."""
    files = list(repository.files)
    folders = sorted({path.partition("/")[0] for path in files if "/" in path})
    if hub.subset is not None:
        prefix = hub.subset.strip("/") + "/"
        inside = [path for path in files if path.startswith(prefix)]
        if not inside:
            raise CorpusError.one(
                f"{where}.subset",
                f"{repository.name} has no subset {hub.subset!r}, declared or as a folder",
                f"its folders: {', '.join(folders[:20]) or 'none'}",
            )
        return inside
    if hub.revision == CONVERTED and len(folders) > 1:
        if "default" not in folders:
            raise CorpusError.one(
                f"{where}.subset",
                f"{repository.name} has several subsets",
                f"name one of {', '.join(folders[:20])}",
            )
        return [path for path in files if path.startswith("default/")]
    return files


def _kind(path: str, formats: Sequence[str]) -> str | None:
    """Return the format of a file among those looked for."""
    plain = path.lower().removesuffix(".gz").removesuffix(".zst")
    ending = os.path.splitext(plain)[1]
    kind = _ENDINGS.get(ending)
    if ending == ".json" and tuple(formats) == ("jsonl",):
        kind = "jsonl"  # lines, says the recipe; otherwise .json may be anything
    return kind if kind in formats else None


def _of_formats(paths: Collection[str], formats: Sequence[str]) -> list[str]:
    """Return the files that can be read; plain texts count only where there are no tables."""
    kinds = {path: kind for path in paths if (kind := _kind(path, formats)) is not None}
    tables = [path for path, kind in kinds.items() if kind != "text"]
    return tables or list(kinds)


def _by_name(paths: Sequence[str], wanted: str | None) -> dict[str, list[str]]:
    """Return the files of each split by what they are called.

    Numbered parts (train-00000-of-00002) come first, then folders, then names of files; where none
    of them tells, all is train.
    """
    keywords = dict(_KEYWORDS)
    if wanted is not None:
        keywords.setdefault(wanted, (wanted,))
    for look in (_numbered, _of_folders, _of_name):
        splits: dict[str, list[str]] = {}
        for path in paths:
            split = look(path, keywords)
            if split is not None:
                splits.setdefault(split, []).append(path)
        if splits:
            return splits
    return {"train": list(paths)} if paths else {}


_Keywords = Mapping[str, Sequence[str]]


def _numbered(path: str, keywords: _Keywords) -> str | None:
    found = _NUMBERED.search(path)
    return None if found is None else _split_of(found[1], keywords) or found[1]


def _of_folders(path: str, keywords: _Keywords) -> str | None:
    parts = path.split("/")[:-1]
    return next((split for part in parts if (split := _split_of(part, keywords))), None)


def _of_name(path: str, keywords: _Keywords) -> str | None:
    return _split_of(path.rpartition("/")[2], keywords)


def _split_of(name: str, keywords: _Keywords) -> str | None:
    """Return the split that a name spells, as a whole or as one of its words."""
    words = {name, *_PARTED.split(name)}
    return next((split for split, known in keywords.items() if words & set(known)), None)
