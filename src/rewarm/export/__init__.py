"""A model as a Hugging Face folder with a card, believed only after it was read back."""

from rewarm.export.card import ModelCard
from rewarm.export.folder import Exported, export_model, find_export
from rewarm.export.merged import export_merged, find_merged
from rewarm.export.merged_card import MergedCard, MergedInput

__all__ = [
    "Exported",
    "MergedCard",
    "MergedInput",
    "ModelCard",
    "export_merged",
    "export_model",
    "find_export",
    "find_merged",
]
