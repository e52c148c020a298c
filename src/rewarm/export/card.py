"""The model card: what the model is, what it was continued on and how, learned and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from rewarm.artifacts import provenance
from rewarm.evaluation.forgetting import DomainVerdict
from rewarm.export.markdown import rendered, result_cells
from rewarm.order.blend import CYCLE
from rewarm.order.position import samples_before
from rewarm.planning.plan import Conduct, Plan
from rewarm.planning.schedule import SchedulePiece, area_under
from rewarm.units import format_count

__all__ = ["ModelCard", "card_text", "hub_id_of"]

_KINDS = {
    "adamw": "AdamW",
    "adamw8bit": "AdamW with 8-bit moments (torchao)",
    "muon": "Muon for the matrices of blocks, AdamW for the rest",
}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the card tells: the plan, how far it was carried out, and what came of it."""

    plan: Plan
    verdicts: Sequence[DomainVerdict]
    num_steps_taken: int | None = None
    """Updates that the exported weights have had; None: all that were planned."""
    precision: str | None = None
    """That of the matrix products in training; None: as the plan says."""
    of_average: bool = False
    """Whether the exported weights are the run's average (retention.ema)."""

    @property
    def step(self) -> int:
        """Updates that the exported weights have had."""
        planned = self.plan.science.num_steps
        return planned if self.num_steps_taken is None else self.num_steps_taken


def card_text(card: ModelCard) -> str:
    """Return the card: YAML front matter, then Markdown.

    Names, licences and phases come from whoever wrote the recipe: in both parts they are shown as
    they are and can neither end a value nor become markup. Local paths are not told.
    """
    body = rendered("card.md.j2", _values(card))
    return f"---\n{_front_matter(card.plan.conduct)}---\n\n{body}"


def _values(card: ModelCard) -> dict[str, Any]:
    plan, science = card.plan, card.plan.science
    return {
        "name": plan.name,
        "base": _base_name(plan.conduct),
        "revision": plan.conduct.base_revision,
        "base_licence": plan.conduct.model.licence or "not stated in its folder",
        "steps": f"{card.step:,}",
        "planned_steps": f"{science.num_steps:,}",
        "is_whole": card.step == science.num_steps,
        "tokens": format_count(card.step * science.tokens_per_step),
        "decay": science.retention.ema.decay if card.of_average and science.retention.ema else None,
        "num_parameters": format_count(plan.conduct.model.num_parameters),
        "results": [result_cells(verdict) for verdict in card.verdicts],
        "sources": _sources(card),
        "facts": _facts(card),
    }


def _front_matter(conduct: Conduct) -> str:
    """Return the metadata that the hub reads, as YAML lines.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    hub_id = hub_id_of(conduct)
    data = ModelCardData(
        base_model=hub_id,
        base_model_relation="finetune" if hub_id else None,
        library_name="transformers",
        license=conduct.model.licence,
        pipeline_tag="text-generation",
        tags=["continued-pretraining", "rewarm"],
    )
    return str(data.to_yaml()) + "\n"


def hub_id_of(conduct: Conduct) -> str | None:
    """Return the base's id on the hub: as the recipe says, or where it lies in the hub's cache.

    A local folder may have a name of the same form, and a path tells about somebody's machine.
    """
    if conduct.base_hub_id is not None:
        return conduct.base_hub_id
    cached = f"models--{conduct.base_name.replace('/', '--')}"
    return conduct.base_name if cached in Path(conduct.base_folder).parts else None


def _base_name(conduct: Conduct) -> str:
    return hub_id_of(conduct) or Path(conduct.base_folder).name


def _sources(card: ModelCard) -> list[list[str]]:
    """Return the cells of each source's row: what was seen up to the exported step."""
    science, corpora = card.plan.science, card.plan.conduct.corpora
    samples = samples_before(science.order(), card.step)
    rows = []
    for source, count in zip(science.sources, samples.tolist(), strict=True):
        licence = corpora[source.name].stated_licence if source.name in corpora else None
        rows.append(
            [
                source.name,
                source.role,
                format_count(count * science.sequence_length),
                f"{source.epochs(count):.2f}",
                licence or "not stated",
            ]
        )
    return rows


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    """Return how it was trained, as (what, value)."""
    plan, science = card.plan, card.plan.science
    optimizer = science.optimizer
    beta1, beta2 = optimizer.betas
    versions = provenance(["rewarm", "torch", "transformers"])["packages"]
    return [
        (
            "step",
            f"{science.tokens_per_step:,} tokens: {science.sequences_per_step:,} sequences of "
            f"{science.sequence_length:,}",
        ),
        ("learning rate", "; ".join(_piece(piece) for piece in science.schedule)),
        ("sum of the rate over all steps", f"{area_under(science.schedule):.4g}"),
        *_phases(plan),
        (
            "optimizer",
            f"{_KINDS[optimizer.kind]}, betas {beta1:g} and {beta2:g}, eps {optimizer.eps:g}, "
            f"weight decay {optimizer.weight_decay:g}, gradient norm clipped at "
            f"{optimizer.clip_grad_norm:g}; "
            + ("begun afresh" if science.optimizer_state is None else "the base's state"),
        ),
        ("precision", f"{card.precision or science.precision}; weights kept in float32"),
        ("seed of the data order", str(science.seed)),
        ("plan", plan.fingerprint),
        ("base's weights", science.base_weights),
        ("tokenizer", science.tokenizer),
        ("exported with", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def _piece(piece: SchedulePiece) -> str:
    rates = f"{piece.start_lr:.3g}"
    if piece.shape != "constant":
        rates += f" → {piece.end_lr:.3g}"
    return f"{piece.shape} {rates}, steps {piece.start_step:,} to {piece.end_step - 1:,}"


def _phases(plan: Plan) -> list[tuple[str, str]]:
    return [
        (
            f"phase {phase.name}",
            f"steps {phase.start_step:,} to {phase.end_step - 1:,}: "
            + ", ".join(
                f"{source.name} {weight / CYCLE:.1%}"
                for source, weight in zip(plan.science.sources, phase.weights, strict=True)
                if weight
            ),
        )
        for phase in plan.science.phases
    ]
