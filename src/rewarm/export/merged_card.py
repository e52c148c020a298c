"""The card of a merged model: of which models it was made, by which method and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from rewarm.artifacts import provenance
from rewarm.evaluation.forgetting import DomainVerdict
from rewarm.export.markdown import rendered, result_cells
from rewarm.records.facts import ModelFacts
from rewarm.units import format_count

__all__ = ["MergedCard", "MergedInput", "merged_card_text"]


@dataclass(frozen=True, slots=True)
class MergedInput:
    """One of the models that were merged; `weight` is as the method's formula has it."""

    part: str
    name: str
    weight: str
    fingerprint: str
    licence: str | None
    hub_id: str | None = None
    """Its id on the hub, where it was fetched from there."""


@dataclass(frozen=True, slots=True)
class MergedCard:
    """What the card tells; `form` is whose config and tokenizer the model has."""

    name: str
    method: str
    formula: str
    inputs: tuple[MergedInput, ...]
    form: MergedInput
    facts: ModelFacts
    dtype: str
    choice: str = ""
    """How the weight was chosen, where a sweep chose it."""
    verdicts: Sequence[DomainVerdict] = ()


def merged_card_text(card: MergedCard) -> str:
    """Return the card: YAML front matter, then Markdown; names are shown as they are."""
    return f"---\n{_front_matter(card)}---\n\n{rendered('merged_card.md.j2', _values(card))}"


def _front_matter(card: MergedCard) -> str:
    """Return the metadata that the hub reads, as YAML lines.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata. A licence is named only where
    all inputs state the same one.
    """
    hub_ids = list(dict.fromkeys(one.hub_id for one in card.inputs if one.hub_id))
    licences = {one.licence for one in card.inputs}
    data = ModelCardData(
        base_model=hub_ids or None,
        base_model_relation="merge" if hub_ids else None,
        library_name="transformers",
        license=licences.pop() if len(licences) == 1 else None,
        pipeline_tag="text-generation",
        tags=["merge", "rewarm"],
    )
    return str(data.to_yaml()) + "\n"


def _values(card: MergedCard) -> dict[str, Any]:
    versions = provenance(["rewarm", "torch", "transformers"])["packages"]
    return {
        "name": card.name,
        "method": card.method,
        "formula": card.formula,
        "num_parameters": format_count(card.facts.num_parameters),
        "inputs": [
            [one.part, one.name, one.weight, one.fingerprint, one.licence or "not stated"]
            for one in card.inputs
        ],
        "results": [result_cells(verdict) for verdict in card.verdicts],
        "choice": card.choice,
        "facts": [
            ("config, tokenizer and chat format", card.form.name),
            ("tokenizer", card.facts.tokenizer_fingerprint),
            ("weights", f"{card.dtype}; summed in float64, rounded once"),
            ("merged with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ],
    }
