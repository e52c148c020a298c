"""Labelled examples from parquet, a folder of images, or JSONL (.gz, .zst or plain), in the
order of the source.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import ArrowException, parquet

from rewarm.artifacts import parse_json
from rewarm.errors import CorpusError, Problem, remedy_of
from rewarm.evaluation.json_lines import read_items
from rewarm.stream.scenario import hold_out
from rewarm.stream.sections import SourceRecipe

__all__ = ["Examples", "read_examples"]

_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
_MOST_PROBLEMS = 10
_MOST_SHOWN = 60  # characters of a value that is told
_TEST = "test"
_NOT_SO = "mend or remove it"


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Images, uint8 [examples, size, size, 3], or texts; labels count `classes` from 0."""

    images: NDArray[np.uint8] | None
    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    classes: tuple[str, ...]


class _UnfitError(ValueError):
    """What is wrong with one example, and what to do about it."""

    def __init__(self, what: str, fix: str = _NOT_SO) -> None:
        super().__init__(what)
        self.fix = fix


def read_examples(recipe: SourceRecipe, path: Path) -> Examples:
    """Return all examples of a source; raises CorpusError with the rows that cannot be used."""
    items: list[Any] = []
    labels: list[str] = []
    splits: list[str] = []
    problems: list[Problem] = []
    decode: Callable[[Any], Any] = _text if recipe.kind == "text" else _image_of(recipe.image_size)
    for where, item, said, split in _rows(recipe, path):
        try:
            label = _label(recipe.label, said)
            if recipe.classes and not label.startswith(tuple(recipe.classes)):
                continue
            found = decode(item)
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(_problem(where, error))
            if len(problems) == _MOST_PROBLEMS:
                break
            continue
        items.append(found)
        labels.append(label)
        splits.append(split)
    if problems:
        raise CorpusError(problems)
    names = sorted(set(labels))
    if len(names) < 2:
        what = f"{len(names)} classes of examples"
        raise CorpusError.one(str(path), what, "a stream needs two; check source.classes and label")
    numbered = {name: number for number, name in enumerate(names)}
    numbers = np.asarray([numbered[label] for label in labels], dtype=np.int64)
    return Examples(
        images=np.stack(items) if recipe.kind == "image" else None,
        texts=tuple(items) if recipe.kind == "text" else (),
        labels=numbers,
        is_test=_test_part(recipe, path, numbers, splits, names),
        classes=tuple(names),
    )


def _problem(where: str, error: Exception) -> Problem:
    if isinstance(error, _UnfitError):
        return Problem(where, str(error), error.fix)
    if isinstance(error, OSError) and error.errno is not None:
        fix = remedy_of(error, absent="restore what it leads to, or remove it")
        return Problem(where, f"it cannot be read ({error.strerror})", fix)
    return Problem(where, str(error), _NOT_SO)


def _label(column: str, said: Any) -> str:
    """Return the name of a class; raises ValueError for what can be none."""
    if said is None:
        raise _UnfitError("it lies in no folder of a class", "move it into one, or remove it")
    if isinstance(said, bool):
        return str(said).lower()  # as JSON has it
    if isinstance(said, str) and said.strip():
        return said
    if isinstance(said, int | float) and math.isfinite(said):
        return str(said)
    shown = repr(said)
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
    raise _UnfitError(f"{column} = {shown} names no class", "give a text or a number, or remove it")


def _test_part(
    recipe: SourceRecipe, path: Path, labels: NDArray[np.int64], splits: list[str], names: list[str]
) -> NDArray[np.bool_]:
    if recipe.split is not None:
        is_test = np.asarray([split.strip().lower() == _TEST for split in splits], dtype=np.bool_)
        if is_test.all() or not is_test.any():
            raise _one_sided(recipe.split, splits)
        short = [
            name
            for number, name in enumerate(names)
            if len(set(is_test[labels == number].tolist())) < 2
        ]
    else:
        counts = np.bincount(labels, minlength=len(names))
        short = [name for name, count in zip(names, counts, strict=True) if count < 2]
    if short:
        shown = ", ".join(short[:5])
        what = f"no examples both to train and to test on: {shown} ({len(short)} classes)"
        raise CorpusError.one(
            str(path), what, "give these classes more examples, or leave them out"
        )
    return is_test if recipe.split is not None else hold_out(labels.tolist(), recipe.test_share)


def _one_sided(column: str, splits: list[str]) -> CorpusError:
    """Return the error of a column that says of no example, or of all, that they are tests."""
    values = sorted(set(splits))
    shown = ", ".join(repr(value[:_MOST_SHOWN]) for value in values[:_MOST_PROBLEMS])
    more = f" and {len(values) - _MOST_PROBLEMS} more" if len(values) > _MOST_PROBLEMS else ""
    has_tests = any(value.strip().lower() == _TEST for value in values)
    lacking = "left to train on" if has_tests else f"for the test, {_TEST!r} is never said"
    what = f"no row is {lacking}: {column!r} holds {shown}{more}"
    fix = (
        f"say {_TEST!r} of the test examples and another word of the others, or leave split out: "
        "test_share of each class is then kept for the test"
    )
    return CorpusError([Problem("source.split", what, fix)])


def _rows(recipe: SourceRecipe, path: Path) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield (where, item, label, split) of every row; an image's item may be its path."""
    if not path.exists():
        fix = "check it: it counts from the experiment's file"
        raise CorpusError.one("source.path", f"{path} is not there", fix)
    if path.is_dir():
        if recipe.kind != "image":
            raise CorpusError.one(
                str(path), "a folder holds images, not texts", "give a JSONL file"
            )
        if recipe.split is not None:
            what = "a folder of images has no column that says which are for the test"
            fix = "leave it out: test_share of each class is kept for the test"
            raise CorpusError.one("source.split", what, fix)
        yield from _of_folder(path)
        return
    if recipe.kind == "image" and path.suffix != ".parquet":
        fix = "give a .parquet file, or a folder with a folder of images for each class"
        raise CorpusError.one(str(path), "it is neither a parquet file nor a folder", fix)
    rows = _parquet(path) if path.suffix == ".parquet" else _json_lines(path)
    item, label = recipe.item or recipe.kind, recipe.label
    for number, row in enumerate(rows):
        where = f"{path.name} row {number + 1}"
        needed = [item, label] + ([recipe.split] if recipe.split is not None else [])
        absent = [name for name in needed if row.get(name) is None]
        if absent:
            fix = f"it has: {', '.join(row)}; name the columns under [source]"
            raise CorpusError.one(where, f"no {' and no '.join(absent)}", fix)
        split = str(row[recipe.split]) if recipe.split is not None else ""
        yield where, row[item], row[label], split


def _of_folder(path: Path) -> Iterator[tuple[str, Path, str | None, str]]:
    """Yield each image with the folder that it lies in; None: it lies in none of a class."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IMAGES)
    for file in files:
        is_stray = file.parent == path and not file.is_dir()
        label = None if is_stray else str(file.parent.relative_to(path))
        yield str(file.relative_to(path)), file, label, ""


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (OSError, ArrowException) as error:
        fix = remedy_of(error) if isinstance(error, OSError) else "give a parquet file"
        raise CorpusError.one(str(path), f"it cannot be read ({error})", fix) from error


def _json_lines(path: Path) -> Iterable[Mapping[str, Any]]:
    return read_items(path, _row, shape="an object with a text and its label")


def _row(line: bytes) -> Mapping[str, Any]:
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("it is no object")
    return row


def _text(item: Any) -> str:
    if not isinstance(item, str) or not item:
        raise ValueError("no text")
    return item


def _bytes_of(item: Any) -> bytes:
    """Return what a file, or a row, holds of an image."""
    if isinstance(item, Path):
        if item.is_dir():
            raise _UnfitError("it is a folder, named as an image is", "rename or remove it")
        item = item.read_bytes()
    data = item.get("bytes") if isinstance(item, dict) else item
    if not isinstance(data, bytes):
        raise ValueError("no bytes of an image")
    if not data:
        raise ValueError("it is empty, and no image")
    return data


def _image_of(size: int) -> Callable[[Any], NDArray[np.uint8]]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise CorpusError.one(
            "source.kind", "images need pillow", "pip install 'rewarm[stream]'"
        ) from error

    def decode(item: Any) -> NDArray[np.uint8]:
        data = _bytes_of(item)
        try:
            with Image.open(io.BytesIO(data)) as image:
                small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        except Image.DecompressionBombError as error:
            raise ValueError("it has far more pixels than an image to learn from") from error
        except UnidentifiedImageError as error:
            raise ValueError("it is no image that pillow knows") from error
        return np.asarray(small, dtype=np.uint8)

    return decode
