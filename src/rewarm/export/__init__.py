"""A model as a Hugging Face folder with a card, believed only after it was read back."""

from rewarm.export.card import ModelCard
from rewarm.export.expanded import export_expanded, find_expanded
from rewarm.export.expanded_card import ExpandedCard
from rewarm.export.folder import Exported, export_model, find_export
from rewarm.export.merged import export_merged, find_merged
from rewarm.export.merged_card import MergedCard, MergedInput
from rewarm.export.vocabulary import Extension, export_extended, find_extended

__all__ = [
    "ExpandedCard",
    "Exported",
    "Extension",
    "MergedCard",
    "MergedInput",
    "ModelCard",
    "export_expanded",
    "export_extended",
    "export_merged",
    "export_model",
    "find_expanded",
    "find_export",
    "find_extended",
    "find_merged",
]
