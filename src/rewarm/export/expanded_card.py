"""The card of an expanded base: what it is, of which base, and which layers are copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from rewarm.artifacts import provenance
from rewarm.export.markdown import rendered
from rewarm.records.facts import ModelFacts
from rewarm.units import format_count

__all__ = ["ExpandedCard", "expanded_card_text"]


@dataclass(frozen=True, slots=True)
class ExpandedCard:
    """What the card tells; `base` holds no local path."""

    name: str
    base: str
    hub_id: str | None
    facts: ModelFacts
    """Of the base."""
    num_layers: int
    num_parameters: int
    copies: tuple[int, ...]
    expanded: tuple[int, ...]
    silent: tuple[str, ...]


def expanded_card_text(card: ExpandedCard) -> str:
    """Return the card: YAML front matter, then Markdown; names are shown as they are."""
    data = ModelCardData(
        base_model=card.hub_id,
        library_name="transformers",
        license=card.facts.licence,
        pipeline_tag="text-generation",
        tags=["block-expansion", "rewarm"],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{rendered('expanded_card.md.j2', _values(card))}"


def _values(card: ExpandedCard) -> dict[str, Any]:
    versions = provenance(["rewarm", "torch", "transformers"])["packages"]
    earlier = sorted(set(card.expanded) - set(card.copies))
    return {
        "name": card.name,
        "base": card.base,
        "copies": ", ".join(map(str, card.copies)),
        "facts": [
            ("base", card.base),
            ("fingerprint of its weights", card.facts.weights_fingerprint),
            ("layers", f"{card.facts.num_layers} of the base, {card.num_layers} here"),
            *([("copies added earlier", ", ".join(map(str, earlier)))] if earlier else []),
            (
                "parameters",
                f"{format_count(card.facts.num_parameters)} of the base, "
                f"{format_count(card.num_parameters)} here",
            ),
            ("silent in each copy", ", ".join(card.silent)),
            ("tokenizer", card.facts.tokenizer_fingerprint),
            ("weights", f"{card.facts.saved_dtype}, the base's own bits"),
            ("expanded with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ],
        "licence": card.facts.licence or "not stated",
    }
