"""A continued model as a Hugging Face folder with a card, believed only after it was read back."""

from rewarm.export.card import ModelCard
from rewarm.export.folder import export_model, exported_step

__all__ = ["ModelCard", "export_model", "exported_step"]
