"""What preparing asks of the base itself, where torch is loaded anyway."""

from __future__ import annotations

from rewarm.model.chat_template import chat_renderer
from rewarm.stages.base_loss import base_scorer
from rewarm.stages.prepare import ModelTools

__all__ = ["MODEL_TOOLS"]

MODEL_TOOLS = ModelTools(chat_renderer, base_scorer)
