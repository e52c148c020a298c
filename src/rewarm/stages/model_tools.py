"""What preparing asks of the base itself, where torch is loaded anyway."""

from __future__ import annotations

from rewarm.model.chat_template import chat_renderer
from rewarm.stages.base_loss import base_scorer
from rewarm.stages.harness import harness_texts
from rewarm.stages.prepare import ModelTools
from rewarm.stages.selecting import ScoringModels
from rewarm.stages.text_embedding import open_embedding

__all__ = ["MODEL_TOOLS"]

MODEL_TOOLS = ModelTools(chat_renderer, ScoringModels(base_scorer, open_embedding), harness_texts)
