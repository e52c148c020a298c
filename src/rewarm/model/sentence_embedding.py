"""Texts as vectors of a sentence-transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rewarm.errors import BaseModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["SentenceEmbedding", "open_sentence_embedding"]

Vectors = NDArray[np.float32]


class SentenceEmbedding:
    """A model with the prompts that it has for queries and for documents; made by
    `open_sentence_embedding`. A text beyond the model's positions is cut."""

    def __init__(self, model: SentenceTransformer, texts_per_batch: int) -> None:
        self._model = model
        self._texts_per_batch = texts_per_batch

    def documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of documents, float32 [texts, dim], of length 1."""
        found = self._model.encode_document(list(texts), **self._options())
        return np.asarray(found, dtype=np.float32).reshape(len(texts), -1)

    def queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the vectors of queries, float32 [texts, dim], of length 1."""
        found = self._model.encode_query(list(texts), **self._options())
        return np.asarray(found, dtype=np.float32).reshape(len(texts), -1)

    def _options(self) -> dict[str, object]:
        return {
            "batch_size": self._texts_per_batch,
            "convert_to_numpy": True,
            "normalize_embeddings": True,
            "show_progress_bar": False,
        }


def open_sentence_embedding(
    folder: Path, *, device: str, texts_per_batch: int
) -> SentenceEmbedding:
    """Open a model's folder; raises BaseModelError where it holds none that can be read.

    Its own code is not run, and its weights are read as safetensors alone.
    """
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # the library lets through whatever lies below raises
        raise BaseModelError.one(
            str(folder),
            f"sentence-transformers cannot open it ({type(error).__name__}: {error})",
            "give the folder of such a model (it holds modules.json), saved as safetensors",
        ) from error
    return SentenceEmbedding(model.eval(), texts_per_batch)
