"""A continued model as a Hugging Face folder with a card, believed only after it was read back."""

from rewarm.export.card import ModelCard
from rewarm.export.folder import Exported, export_model, find_export

__all__ = ["Exported", "ModelCard", "export_model", "find_export"]
