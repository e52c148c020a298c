"""The model card: what the model is, what it was continued on and how, learned and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCardData

from rewarm.artifacts import provenance
from rewarm.evaluation.forgetting import DomainVerdict
from rewarm.order.blend import CYCLE
from rewarm.order.position import samples_before
from rewarm.planning.plan import Conduct, Plan
from rewarm.planning.schedule import SchedulePiece, area_under
from rewarm.records.facts import Metric
from rewarm.units import format_count

__all__ = ["ModelCard", "card_text"]

_METRICS: dict[Metric, str] = {
    "bits_per_byte": "bits per byte of text ↓",
    "answer_bits_per_byte": "bits per byte of answers ↓",
    "matched_continuation": "matched continuation, share right ↑",
    "multiple_choice": "multiple choice, share right ↑",
}
_KINDS = {"adamw": "AdamW", "adamw8bit": "AdamW with 8-bit moments (torchao)"}

# Whatever Markdown or HTML could take for markup within a line or a cell.
_ENTITIES = {ord(character): f"&#{ord(character)};" for character in "&\\`*_{}[]<>|#~"}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the card tells: the plan, how far it was carried out, and what came of it."""

    plan: Plan
    verdicts: Sequence[DomainVerdict]
    num_steps_taken: int | None = None
    """Updates that the exported weights have had; None: all that were planned."""
    precision: str | None = None
    """That of the matrix products in training; None: as the plan says."""

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
    environment = jinja2.Environment(
        # Markdown knows HTML's entities, but more characters have a meaning than HTML escapes.
        autoescape=False,
        finalize=_inert,
        keep_trailing_newline=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = resources.files("rewarm.export").joinpath("card.md.j2").read_text(encoding="utf-8")
    body = environment.from_string(template).render(_values(card))
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
        "num_parameters": format_count(plan.conduct.model.num_parameters),
        "results": [_result(verdict) for verdict in card.verdicts],
        "sources": _sources(card),
        "facts": _facts(card),
    }


def _front_matter(conduct: Conduct) -> str:
    """Return the metadata that the hub reads, as YAML lines.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    hub_id = _hub_id(conduct)
    data = ModelCardData(
        base_model=hub_id,
        base_model_relation="finetune" if hub_id else None,
        library_name="transformers",
        license=conduct.model.licence,
        pipeline_tag="text-generation",
        tags=["continued-pretraining", "rewarm"],
    )
    return str(data.to_yaml()) + "\n"


def _hub_id(conduct: Conduct) -> str | None:
    """Return the base's id on the hub: as the recipe says, or where it lies in the hub's cache.

    A local folder may have a name of the same form, and a path tells about somebody's machine.
    """
    if conduct.base_hub_id is not None:
        return conduct.base_hub_id
    cached = f"models--{conduct.base_name.replace('/', '--')}"
    return conduct.base_name if cached in Path(conduct.base_folder).parts else None


def _base_name(conduct: Conduct) -> str:
    return _hub_id(conduct) or Path(conduct.base_folder).name


def _result(verdict: DomainVerdict) -> list[str]:
    """Return the cells of one row."""
    interval = "–"
    if verdict.low is not None and verdict.high is not None:
        interval = f"{verdict.low:+.3f} to {verdict.high:+.3f}"
    return [
        verdict.domain,
        verdict.role,
        _METRICS[verdict.metric],
        f"{verdict.num_items:,}",
        f"{verdict.first:.3f}",
        f"{verdict.last:.3f}",
        f"{verdict.delta:+.3f}",
        interval,
        verdict.verdict,
    ]


def _sources(card: ModelCard) -> list[list[str]]:
    """Return the cells of each source's row: what was seen up to the exported step."""
    science, corpora = card.plan.science, card.plan.conduct.corpora
    samples = samples_before(science.order(), card.step)
    rows = []
    for source, count in zip(science.sources, samples.tolist(), strict=True):
        licence = corpora[source.name].licence if source.name in corpora else None
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


def _inert(value: object) -> str:
    """Return what Markdown and HTML show as `value`, on one line."""
    shown = "".join(character if character.isprintable() else " " for character in str(value))
    return " ".join(shown.translate(_ENTITIES).split())
