"""What keeping a part of a source needs beside the base: packages, and models that embed texts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rewarm.artifacts import file_sha256, fingerprint
from rewarm.errors import BaseModelError, Problems
from rewarm.planning.weight_files import read_weight_file, weights_fingerprint
from rewarm.recipe.keep import LSA, KeepRecipe
from rewarm.stages.base import find_model

__all__ = ["EmbeddingModel", "check_packages", "find_embedding"]

_SETTINGS = frozenset({".json", ".txt", ".model"})


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """Where a model that embeds texts is, and what tells it from others."""

    folder: Path
    fingerprint: str


def check_packages(keep: KeepRecipe, where: str, problems: Problems) -> None:
    """Note what keeping needs and is not installed; nothing is imported."""
    missing = {
        extra: package
        for module, package, extra in _needed(keep)
        if importlib.util.find_spec(module) is None
    }
    for extra, package in missing.items():
        problems.add(
            where,
            f"it needs {package}, which is not installed",
            f"pip install 'rewarm[{extra}]', or keep by perplexity",
        )


def _needed(keep: KeepRecipe) -> Iterator[tuple[str, str, str]]:
    """Yield module, package and the extra that brings it."""
    if keep.score == "classifier":
        yield "sklearn", "scikit-learn", "classifier"
    if keep.nearest is None:
        return
    yield "scipy", "scipy", "mining"
    if keep.embedding == LSA:
        yield "sklearn", "scikit-learn", "mining"
    if keep.embedding == LSA or keep.embedding_model is not None:
        yield "faiss", "faiss-cpu", "mining"
    if keep.embedding_model is not None:
        yield "sentence_transformers", "sentence-transformers", "embedding"


def find_embedding(path: str, recipe_folder: Path, where: str) -> EmbeddingModel:
    """Return the model that embeds texts, downloading a hub id where needed.

    Raises BaseModelError where none is there, EnvironmentFault where the hub cannot be reached.
    """
    folder = find_model(path, None, recipe_folder, where=where)
    problems = Problems()
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.suffix == ".safetensors":
            weights = read_weight_file(file, problems)
            found[name] = "" if weights is None else weights_fingerprint([weights])
        elif file.suffix in _SETTINGS:
            found[name] = file_sha256(file)
    if "modules.json" not in found or not any(name.endswith(".safetensors") for name in found):
        problems.add(
            where,
            f"{folder} holds no sentence-transformers model (modules.json, weights as safetensors)",
            "give the folder of one, its hub id, or tf-idf",
        )
    problems.raise_as(BaseModelError)
    return EmbeddingModel(folder, fingerprint(found))
