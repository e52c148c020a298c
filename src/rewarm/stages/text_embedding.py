"""A model that embeds texts, on the device at hand."""

from __future__ import annotations

from pathlib import Path

import torch

from rewarm.model.sentence_embedding import SentenceEmbedding, open_sentence_embedding
from rewarm.stages.job import Job
from rewarm.training.placement import choose_device

__all__ = ["open_embedding"]

_TEXTS_PER_BATCH = {"cpu": 32, "cuda": 256}


def open_embedding(job: Job, folder: Path) -> SentenceEmbedding:
    """Return the model in a folder, on the device and threads that the recipe trains with.

    Raises BaseModelError where there is none, EnvironmentFault where a GPU is asked for and not
    there.
    """
    training = job.recipe.training
    device = choose_device(training.device)
    if training.num_threads:
        torch.set_num_threads(training.num_threads)
    return open_sentence_embedding(
        folder, device=str(device), texts_per_batch=_TEXTS_PER_BATCH.get(device.type, 32)
    )
