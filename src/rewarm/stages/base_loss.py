"""The base as a scorer of documents, on the device at hand."""

from __future__ import annotations

import torch

from rewarm.corpus.scores import Scoring
from rewarm.corpus.views import View
from rewarm.evaluation.document_loss import BaseLossScorer
from rewarm.evaluation.passages import Framing
from rewarm.model.load import load_base
from rewarm.stages.base import find_base
from rewarm.stages.job import Job
from rewarm.training.placement import choose_device

__all__ = ["base_scorer"]

_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 32_768}


def base_scorer(job: Job, scoring: Scoring, view: View) -> BaseLossScorer:
    """Return the base of a recipe as the scorer of a source's view.

    float32 on a CPU; on a GPU bf16 by autocast, unless the recipe's precision is float32. Raises
    BaseModelError for what `load_base` refuses, EnvironmentFault where a GPU is asked for and not
    there.
    """
    training, facts = job.recipe.training, scoring.source
    device = choose_device(training.device)
    if training.num_threads:
        torch.set_num_threads(training.num_threads)
    halved = device.type == "cuda" and training.precision != "float32"
    return BaseLossScorer(
        model=load_base(find_base(job.recipe.base, job.folder), device=str(device)),
        documents=view,
        name=facts.name,
        role=facts.role,
        framing=Framing(facts.begin_token_ids, facts.end_token_ids, facts.all_framed),
        window_tokens=scoring.window_tokens,
        tokens_per_batch=_TOKENS_PER_BATCH.get(device.type, 4096),
        autocast_dtype=torch.bfloat16 if halved else None,
    )
