"""Resolves a recipe against facts into the plan: all arithmetic here, all problems at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rewarm.errors import PlanError, Problems
from rewarm.order.blend import quantise_weights
from rewarm.order.position import OrderPhase, OrderSpec, samples_in_phase
from rewarm.planning.budget import estimates, note_micro_batch
from rewarm.planning.cadence import evaluation_steps
from rewarm.planning.mixture import note_exposure
from rewarm.planning.phases import PhaseSpan, resolve_phases
from rewarm.planning.plan import (
    Conduct,
    Estimate,
    Plan,
    PlannedPhase,
    PlannedSource,
    Reason,
    Science,
)
from rewarm.planning.schedule import (
    Schedule,
    area_under,
    lr_at,
    peak_step,
    scaled,
    warmup_then_decay,
)
from rewarm.recipe.schema import LrExpression, Recipe
from rewarm.records.facts import CorpusFacts, ModelFacts
from rewarm.units import format_count, steps_for_tokens

__all__ = ["resolve"]

_REUSE = "Parmar et al. 2024, arXiv 2407.07263"
_REWARM = "Ibrahim et al. 2024, arXiv 2403.08763"
_ASSUMED_FINAL_FRACTION = 0.1
_DEFAULT_EVALUATIONS = 20
_DEFAULT_SEQUENCE_LENGTH = 2048
# Pretraining from scratch takes a million; beyond this the curve alone fills the memory.
_MOST_STEPS = 50_000_000
# AdamW moves every weight by about the rate a step: at 1 nothing of the base is left after one.
_LARGEST_LR = 1.0


@dataclass(slots=True)
class _Notes:
    """What accumulates while a plan is resolved."""

    problems: Problems = field(default_factory=Problems)
    reasons: list[Reason] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def because(self, name: str, value: object, reason: str, source: str = "recipe") -> None:
        self.reasons.append(Reason(field=name, value=str(value), reason=reason, source=source))


@dataclass(frozen=True, slots=True)
class _Size:
    """Shape of the run: how long a sequence, how many in a step, how many steps."""

    sequence_length: int
    sequences_per_step: int
    num_steps: int

    @property
    def tokens_per_step(self) -> int:
        return self.sequence_length * self.sequences_per_step


def resolve(
    recipe: Recipe,
    model: ModelFacts | None,
    corpora: Mapping[str, CorpusFacts],
    *,
    base_folder: str,
    recipe_folder: str = ".",
    problems: Problems | None = None,
) -> Plan:
    """Return the frozen plan of `recipe` on these facts; it is `measured` where all of them are.

    Raises PlanError with every problem: those in `problems`, found before, and its own. Where
    facts are missing (no model, not all sources in `corpora`) that is because of such a problem,
    and what can be checked without them is checked.
    """
    notes = _Notes(problems=Problems() if problems is None else problems)
    if model is not None:
        _check_tokenizers(model, corpora, notes)
        _warn_of_dropout(model, notes)
    _explain_documents(recipe, corpora, notes)
    size = _resolve_size(recipe, model, notes)
    schedule, spans = _resolve_rates(recipe, size, notes)
    sources: tuple[PlannedSource, ...] = ()
    phases: tuple[PlannedPhase, ...] = ()
    if size is not None and corpora.keys() == recipe.sources.keys():
        sources = _used_sources(recipe, corpora, size, notes)
        if spans and all(source.num_windows for source in sources):
            phases = _planned_phases(recipe, size, sources, spans, notes)
            notes.warnings += note_exposure(
                sources,
                phases,
                recipe.sources,
                corpora,
                sequence_length=size.sequence_length,
                problems=notes.problems,
            )
    notes.problems.raise_as(PlanError)
    assert model is not None
    assert size is not None
    assert schedule is not None
    assert phases
    science = Science(
        seed=recipe.seed,
        base_weights=model.weights_fingerprint,
        tokenizer=model.tokenizer_fingerprint,
        sequence_length=size.sequence_length,
        sequences_per_step=size.sequences_per_step,
        mask_documents=recipe.batch.mask_documents,
        num_steps=size.num_steps,
        sources=sources,
        phases=phases,
        schedule=schedule,
        optimizer=recipe.optimizer,
        precision=recipe.training.precision,
    )
    return _assemble(recipe, model, corpora, science, (base_folder, recipe_folder), notes)


def _resolve_rates(
    recipe: Recipe, size: _Size | None, notes: _Notes
) -> tuple[Schedule | None, tuple[PhaseSpan, ...]]:
    """Return the schedule and the phases' spans; None and none where problems were noted."""
    rates = _known_rates(recipe, notes)
    ends = _resolve_ends(recipe, rates, notes)
    if ends is None or size is None:
        return None, ()
    schedule = _resolve_schedule(recipe, size, ends, notes)
    if schedule is None:
        return None, ()
    named = {**rates, "start": lr_at(schedule, 0), "peak": lr_at(schedule, peak_step(schedule))}
    spans = resolve_phases(
        recipe.phases,
        schedule,
        tokens_per_step=size.tokens_per_step,
        resolve_lr=named,
        problems=notes.problems,
    )
    return schedule, spans


def _check_tokenizers(model: ModelFacts, corpora: Mapping[str, CorpusFacts], notes: _Notes) -> None:
    for name, corpus in corpora.items():
        if corpus.tokenizer_fingerprint != model.tokenizer_fingerprint:
            notes.problems.add(
                f"sources.{name}",
                "it was prepared with another tokenizer than the base's "
                f"({corpus.tokenizer_fingerprint[:12]} instead of "
                f"{model.tokenizer_fingerprint[:12]})",
                "run `rewarm prepare` for this recipe",
            )
        notes.warnings += [f"source {name!r}: {warning}" for warning in corpus.warnings]


def _warn_of_dropout(model: ModelFacts, notes: _Notes) -> None:
    if model.dropout:
        told = ", ".join(f"{key} {share:g}" for key, share in model.dropout.items())
        notes.warnings.append(
            f"the base trains with dropout ({told}), as its config.json says; most pretraining "
            "has none"
        )


def _explain_documents(recipe: Recipe, corpora: Mapping[str, CorpusFacts], notes: _Notes) -> None:
    """Say what documents begin and end with (all sources share the base's tokenizer), and what
    they see of each other."""
    corpus = next(iter(corpora.values()), None)
    if corpus is not None:
        begin = " ".join(corpus.begin_tokens) or "(nothing)"
        end = " ".join(corpus.end_tokens) or "(nothing)"
        notes.because(
            "documents",
            f"{begin} … {end}",
            "first and last tokens of every document, in training and in evaluation; change them "
            "with tokenizer.document_begin and document_end",
            "the tokenizer's post-processor, else its EOS",
        )
    notes.because(
        "batch.mask_documents",
        "yes" if recipe.batch.mask_documents else "no",
        "a token attends to its own document alone, as evaluation reads documents"
        if recipe.batch.mask_documents
        else "documents that share a sequence see each other, as in most bases' pretraining",
    )


def _resolve_size(recipe: Recipe, model: ModelFacts | None, notes: _Notes) -> _Size | None:
    """Return sequence length, batch and steps; a number of the person's is never adjusted.

    None where a problem was noted, or where the length is the base's to say and there is none.
    """
    before = len(notes.problems)
    length = _resolve_length(recipe, model, notes)
    if length is not None and recipe.batch.tokens % length:
        below = recipe.batch.tokens // length * length
        notes.problems.add(
            "batch.tokens",
            f"{recipe.batch.tokens} tokens are not a whole number of sequences of {length}",
            f"use {below + length}" + (f" or {below}" if below else ""),
        )
    elif length is not None and recipe.training.micro_batch_sequences is not None:
        note_micro_batch(
            recipe.training.micro_batch_sequences, recipe.batch.tokens // length, notes.problems
        )
    num_steps = steps_for_tokens(recipe.budget.tokens, recipe.batch.tokens)
    if num_steps < 1:
        notes.problems.add(
            "budget.tokens",
            f"{recipe.budget.tokens} tokens do not pay for one step of {recipe.batch.tokens}",
            "raise budget.tokens or lower batch.tokens",
        )
    if num_steps > _MOST_STEPS:
        notes.problems.add(
            "batch.tokens",
            f"{recipe.batch.tokens} a step make {num_steps:,} steps of the budget",
            f"use at least {-(-recipe.budget.tokens // _MOST_STEPS)}; usual are half a million to "
            "several millions",
        )
    if len(notes.problems) > before or length is None:
        return None
    left = recipe.budget.tokens - num_steps * recipe.batch.tokens
    notes.because(
        "steps",
        num_steps,
        f"budget of {format_count(recipe.budget.tokens)} tokens / {recipe.batch.tokens} per step"
        + (f"; {left} tokens are left over, less than a step" if left else ""),
        "floor(budget / batch)",
    )
    return _Size(length, recipe.batch.tokens // length, num_steps)


def _resolve_length(recipe: Recipe, model: ModelFacts | None, notes: _Notes) -> int | None:
    """Return the tokens of a sequence; None where only the base could say, and there is none."""
    known = recipe.base.pretraining.sequence_length
    length = recipe.batch.sequence_length
    if length is not None:
        notes.because("batch.sequence_length", length, "as the recipe says")
    elif known is not None:
        length = known
        notes.because("batch.sequence_length", length, "the length of the base's pretraining")
    elif model is not None:
        length = min(model.max_positions, _DEFAULT_SEQUENCE_LENGTH)
        notes.because(
            "batch.sequence_length",
            length,
            f"the base's largest position, at most {_DEFAULT_SEQUENCE_LENGTH}",
            "config.json",
        )
    if model is not None and length is not None and length > model.max_positions:
        notes.problems.add(
            "batch.sequence_length",
            f"{length} is beyond the base's {model.max_positions} positions",
            f"use at most {model.max_positions}",
        )
    return length


def _known_rates(recipe: Recipe, notes: _Notes) -> dict[str, float]:
    """Return the base's rates that are known; an unknown final rate is assumed aloud."""
    pretraining = recipe.base.pretraining
    rates: dict[str, float] = {}
    if pretraining.peak_lr is not None:
        rates["pretraining.peak"] = pretraining.peak_lr
    if pretraining.final_lr:
        rates["pretraining.final"] = pretraining.final_lr
    elif pretraining.peak_lr is not None and _names(recipe, "pretraining.final"):
        assumed = pretraining.peak_lr * _ASSUMED_FINAL_FRACTION
        rates["pretraining.final"] = assumed
        said = "is 0" if pretraining.final_lr == 0 else "is not known"
        notes.because(
            "base.pretraining.final_lr",
            f"{assumed:.4g} (ASSUMED)",
            f"the base's final rate {said}; peak × {_ASSUMED_FINAL_FRACTION:g} is offered instead",
            "assumption",
        )
        notes.warnings.append(
            f"ASSUMPTION: the base's final learning rate {said}, so peak × "
            f"{_ASSUMED_FINAL_FRACTION:g} = {assumed:.4g} stands in for it; give "
            "schedule.peak_lr a number if you know better"
        )
    return rates


def _names(recipe: Recipe, name: str) -> bool:
    expressions = [recipe.schedule.peak_lr, recipe.schedule.final_lr]
    expressions += [p.until.lr_below for p in recipe.phases if p.until and p.until.lr_below]
    return any(expression.name == name for expression in expressions)


def _resolve_ends(
    recipe: Recipe, rates: dict[str, float], notes: _Notes
) -> tuple[float, float] | None:
    """Return the schedule's peak and final rate, or None with what is wrong noted."""
    wanted = recipe.schedule
    peak = _rate(wanted.peak_lr, rates, "schedule.peak_lr", notes)
    if peak is None:
        return None
    if peak > _LARGEST_LR:
        notes.problems.add(
            "schedule.peak_lr",
            f"{wanted.peak_lr} = {peak:.4g} is beyond any learning rate",
            "usual peaks lie between 1e-5 and 1e-2",
        )
        return None
    # `start` needs the schedule itself; in the final rate it can only mean the peak's own start.
    final = _rate(
        wanted.final_lr, {**rates, "peak": peak, "start": peak}, "schedule.final_lr", notes
    )
    if final is None:
        return None
    if final > peak:
        notes.problems.add(
            "schedule.final_lr",
            f"{wanted.final_lr} = {final:.4g} is above the peak of {peak:.4g}",
            "lower it, or raise schedule.peak_lr",
        )
        return None
    return peak, final


def _resolve_schedule(
    recipe: Recipe, size: _Size, ends: tuple[float, float], notes: _Notes
) -> Schedule | None:
    wanted = recipe.schedule
    peak, final = ends
    # 0.07 of 100 steps are 7, though the product of the two floats lies above it.
    warmup_steps = math.ceil(wanted.warmup_fraction * size.num_steps - 1e-9 * size.num_steps)
    if warmup_steps >= size.num_steps:
        notes.problems.add(
            "schedule.warmup_fraction",
            f"the warm-up takes all {size.num_steps} steps",
            "lower it or raise budget.tokens",
        )
        return None
    schedule = warmup_then_decay(
        kind=wanted.kind,
        num_steps=size.num_steps,
        warmup_steps=warmup_steps,
        peak_lr=peak,
        final_lr=final,
    )
    if wanted.match_area is not None:
        factor = wanted.match_area / area_under(schedule)
        peak, final = peak * factor, final * factor
        if peak > _LARGEST_LR:
            notes.problems.add(
                "schedule.match_area",
                f"{wanted.match_area:g} over {size.num_steps} steps takes a peak of {peak:.4g}, "
                "beyond any learning rate",
                f"the curve as it is has an area of {area_under(schedule):.4g}",
            )
            return None
        schedule = scaled(schedule, factor)
        notes.because(
            "schedule.match_area",
            f"{wanted.match_area:.6g}",
            f"the whole curve is multiplied by {factor:.4g} so that its rates sum to this",
        )
    _explain_schedule(recipe, schedule, warmup_steps, peak, final, notes)
    return schedule


def _rate(
    expression: LrExpression, rates: Mapping[str, float], where: str, notes: _Notes
) -> float | None:
    if expression.name is None:
        return expression.factor
    if expression.name in rates:
        return expression.factor * rates[expression.name]
    key = expression.name.removeprefix("pretraining.")
    notes.problems.add(
        where,
        f"{str(expression)!r} needs the base's {key} learning rate, which the recipe does not say",
        f"give base.pretraining.{key}_lr (from the model's paper or card), or set {where} to a "
        "number"
        + ("; with base.pretraining.peak_lr, peak × 0.1 is assumed" if key == "final" else ""),
    )
    return None


def _explain_schedule(
    recipe: Recipe, schedule: Schedule, warmup_steps: int, peak: float, final: float, notes: _Notes
) -> None:
    wanted = recipe.schedule
    if wanted.match_area is not None:
        notes.because(
            "schedule.peak_lr", f"{peak:.4g}", f"{wanted.peak_lr}, multiplied to match the area"
        )
    elif wanted.peak_lr.name == "pretraining.final":
        notes.because(
            "schedule.peak_lr",
            f"{peak:.4g}",
            "continue from the rate at which the pretraining ended, so that nothing jumps",
            _REUSE,
        )
    elif wanted.peak_lr.name == "pretraining.peak":
        notes.because(
            "schedule.peak_lr", f"{peak:.4g}", "re-warmed to the pretraining's peak", _REWARM
        )
    else:
        notes.because("schedule.peak_lr", f"{peak:.4g}", "as the recipe says")
    from_final = wanted.peak_lr.name == "pretraining.final" and wanted.match_area is None
    if warmup_steps:
        why, source = f"{wanted.warmup_fraction:g} of the steps, linear", "recipe"
    elif from_final:
        why = "no warm-up: the paper saw any to be worse when continuing from the final rate"
        source = _REUSE
    else:
        why, source = "none is asked for", "recipe"
    notes.because("schedule.warmup", f"{warmup_steps} steps", why, source)
    if wanted.kind != "constant":
        notes.because(
            "schedule.final_lr",
            f"{final:.4g}",
            f"{wanted.kind} to {wanted.final_lr}",
            _REUSE if str(wanted.final_lr) == "peak/100" else "recipe",
        )
    notes.because(
        "schedule.area",
        f"{area_under(schedule):.6g}",
        "sum of the rate over all steps: explains most differences between recipes",
        "n·s + (e − s)(n − 1)/2 per piece",
    )


def _used_sources(
    recipe: Recipe, corpora: Mapping[str, CorpusFacts], size: _Size, notes: _Notes
) -> tuple[PlannedSource, ...]:
    """Return the sources that some phase shows; the others are only evaluated."""
    used: list[PlannedSource] = []
    for name in recipe.sources:
        if not any(phase.weights.get(name, 0.0) > 0 for phase in recipe.phases):
            notes.because(f"sources.{name}", "evaluated only", "no phase gives it a weight")
            continue
        corpus = corpora[name]
        num_windows = corpus.num_windows(size.sequence_length)
        if num_windows == 0:
            notes.problems.add(
                f"sources.{name}",
                f"its {corpus.num_tokens} training tokens do not fill one window of "
                f"{size.sequence_length} + 1",
                "add text, lower its held_out share, or lower batch.sequence_length",
            )
        used.append(
            PlannedSource(name=name, role=corpus.role, key=corpus.key, num_windows=num_windows)
        )
    return tuple(used)


def _planned_phases(
    recipe: Recipe,
    size: _Size,
    sources: tuple[PlannedSource, ...],
    spans: tuple[PhaseSpan, ...],
    notes: _Notes,
) -> tuple[PlannedPhase, ...]:
    weights = [
        quantise_weights([phase.weights.get(source.name, 0.0) for source in sources])
        for phase in recipe.phases
    ]
    order = OrderSpec(
        seed=recipe.seed,
        sequences_per_step=size.sequences_per_step,
        source_names=tuple(source.name for source in sources),
        num_windows=tuple(source.num_windows for source in sources),
        phases=tuple(
            OrderPhase(start_step=span.start_step, end_step=span.end_step, weights=phase_weights)
            for span, phase_weights in zip(spans, weights, strict=True)
        ),
    )
    for span in spans:
        by_threshold = span.reason.startswith("first step after the peak")
        notes.because(
            f"phases.{span.name}",
            f"steps {span.start_step} to {span.end_step - 1}",
            f"ends where: {span.reason}",
            _REUSE if by_threshold else "recipe",
        )
    return tuple(
        PlannedPhase(
            name=span.name,
            start_step=span.start_step,
            end_step=span.end_step,
            weights=weights[index],
            samples=tuple(int(count) for count in samples_in_phase(order, index)),
        )
        for index, span in enumerate(spans)
    )


def _evaluation_tokens(recipe: Recipe, corpora: Mapping[str, CorpusFacts]) -> int:
    """Return the tokens of one evaluation over all domains, overlap of windows included."""
    total = 0.0
    for corpus in corpora.values():
        scored = min(corpus.held_out_bytes, recipe.evaluation.max_bytes_per_domain)
        if corpus.held_out_bytes:
            total += scored * corpus.held_out_tokens / corpus.held_out_bytes
    return round(total / recipe.evaluation.stride_fraction)


def _assemble(
    recipe: Recipe,
    model: ModelFacts,
    corpora: Mapping[str, CorpusFacts],
    science: Science,
    folders: tuple[str, str],
    notes: _Notes,
) -> Plan:
    every = recipe.evaluation.every_steps or max(1, science.num_steps // _DEFAULT_EVALUATIONS)
    steps = evaluation_steps(science.num_steps, every)
    found: tuple[Estimate, ...] = estimates(
        model,
        sequence_length=science.sequence_length,
        sequences_per_step=science.sequences_per_step,
        num_steps=science.num_steps,
        evaluation_tokens=_evaluation_tokens(recipe, corpora) * len(steps),
        num_devices=recipe.hardware.num_devices,
        flops_per_second=recipe.hardware.flops_per_second,
        price_per_gpu_hour=recipe.hardware.price_per_gpu_hour,
    )
    conduct = Conduct(
        recipe_folder=folders[1],
        base_folder=folders[0],
        base_name=recipe.base.path,
        base_revision=recipe.base.revision,
        base_hub_id=recipe.base.hub_id,
        base_pretraining=recipe.base.pretraining,
        corpora=dict(corpora),
        model=model,
        training=recipe.training,
        evaluation=recipe.evaluation,
        evaluation_steps=steps,
        checkpoints=recipe.checkpoints,
        checkpoint_every=recipe.checkpoints.every_steps
        or max(1, science.num_steps // _DEFAULT_EVALUATIONS),
    )
    return Plan(
        name=recipe.name,
        fingerprint=Plan.science_fingerprint(science),
        measured=all(corpus.measured for corpus in corpora.values()),
        science=science,
        conduct=conduct,
        reasons=tuple(notes.reasons),
        warnings=tuple(notes.warnings),
        estimates=found,
    )
