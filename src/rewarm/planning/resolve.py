"""Resolves a recipe against facts into the plan, telling all problems at once."""

from __future__ import annotations

from collections.abc import Mapping

from rewarm.errors import PlanError, Problem, Problems
from rewarm.order.position import OrderPhase, OrderSpec, samples_in_phase
from rewarm.planning.blends import planned_source, used_sources, with_subsets
from rewarm.planning.budget import AT_ASSUMED, estimates, flops_per_token, training_flops
from rewarm.planning.evaluation import plan_evaluation, warn_of_cost
from rewarm.planning.exposure import note_exposure
from rewarm.planning.footprint import (
    checkpoint_bytes,
    disk_estimate,
    energy_estimate,
)
from rewarm.planning.forgetting import note_forgetting, warn_of_patience
from rewarm.planning.gpu import assumed_rate, planned_gpu, warn_of_unused_gpu
from rewarm.planning.known_bases import with_known_base
from rewarm.planning.muon import muon_cost, note_muon
from rewarm.planning.notes import CHAT_VECTOR, GAP, REUSE, Notes
from rewarm.planning.optimizer import explain_optimizer
from rewarm.planning.peak import computes_in_half, peak_estimate
from rewarm.planning.phases import PhaseSpan
from rewarm.planning.plan import (
    Conduct,
    Estimate,
    Plan,
    PlannedPhase,
    PlannedPreset,
    PlannedSource,
    Reason,
    Science,
)
from rewarm.planning.rates import resolve_rates
from rewarm.planning.retention import resolve_retention, retention_cost, sources_of_retention
from rewarm.planning.selection import note_selection, resolve_trainable, training_share
from rewarm.planning.shares import phase_shares
from rewarm.planning.size import Size, resolve_size
from rewarm.recipe.presets import PRESETS
from rewarm.recipe.schema import Recipe
from rewarm.recipe.setting import as_toml, told_of_preset
from rewarm.records.facts import CorpusFacts, ModelFacts, OptimizerStateFacts
from rewarm.records.packing import PackingFacts
from rewarm.units import format_count

__all__ = ["resolve"]

_DEFAULT_EVALUATIONS = 20
# Real corpora of mixed lengths come to under 4 % at any length (benchmarks/results/packing.json).
_MUCH_PADDING = 0.05
_SELECTION_SOURCES = {"perplexity": GAP, "neighbours": REUSE}


def resolve(
    recipe: Recipe,
    model: ModelFacts | None,
    corpora: Mapping[str, CorpusFacts],
    *,
    base_folder: str,
    recipe_folder: str = ".",
    optimizer_state: OptimizerStateFacts | None = None,
    packings: Mapping[str, PackingFacts] | None = None,
    shown_before: Mapping[str, int] | None = None,
    measured_before: Mapping[str, CorpusFacts] | None = None,
    task_bytes: Mapping[str, int] | None = None,
    problems: Problems | None = None,
) -> Plan:
    """Return the frozen plan of `recipe` on these facts; it is `measured` where all of them are.

    `packings` has what is known of the packing of sources into its sequences: of measured ones all
    where they are packed by best fit. `shown_before` are the samples of each source that a run
    which is gone on with has shown: they count against its cap on epochs. `measured_before` are its
    sources: their held-out text is measured too. `task_bytes` is the text
    that local tasks are scored on, by name. Raises PlanError with every problem: those in
    `problems`, found before, and its own. Where facts are missing (no model, not all sources in
    `corpora`) that is because of such a problem, and what can be checked without them is checked.
    """
    notes = Notes(problems=Problems() if problems is None else problems)
    if model is not None:
        _check_tokenizers(model, corpora, notes)
        _explain_vocabulary(model, notes)
        _warn_of_dropout(model, notes)
        _warn_of_chat_template(recipe, model, notes)
    _explain_documents(recipe, corpora, notes)
    _explain_answers(corpora, notes)
    _explain_selections(corpora, notes)
    packings = {} if packings is None else packings
    recipe = with_known_base(recipe, model, notes)
    size = resolve_size(recipe, model, notes)
    schedule, spans = resolve_rates(recipe, size, notes)
    sources: tuple[PlannedSource, ...] = ()
    phases: tuple[PlannedPhase, ...] = ()
    if size is not None and corpora.keys() == recipe.sources.keys():
        sources = _used_sources(recipe, corpora, packings, size, notes)
        if spans and all(source.num_windows for source in sources):
            phases = _planned_phases(
                recipe, corpora, size, sources, spans, shown_before or {}, notes
            )
        if phases:
            sources = with_subsets(
                sources, phases, recipe, sequence_length=size.sequence_length, notes=notes
            )
            notes.warnings += note_exposure(
                sources,
                phases,
                recipe.sources,
                corpora,
                sequence_length=size.sequence_length,
                asked_by=_asked_by(recipe),
                problems=notes.problems,
            )
            note_forgetting(
                recipe,
                sources,
                phases,
                corpora,
                sequences_per_step=size.sequences_per_step,
                problems=notes.problems,
            )
    if model is not None:
        note_selection(recipe, model, notes)
        note_muon(recipe, model, notes)
    retention = resolve_retention(recipe, sources, phases, corpora, packings, size, notes)
    notes.problems.reword(lambda problem: _told_of_preset(problem, recipe))
    notes.problems.raise_as(PlanError)
    assert model is not None
    assert size is not None
    assert schedule is not None
    assert phases
    explain_optimizer(recipe, optimizer_state, schedule, notes)
    science = Science(
        seed=recipe.seed,
        base_weights=model.weights_fingerprint,
        optimizer_state=None if optimizer_state is None else optimizer_state.fingerprint,
        tokenizer=model.tokenizer_fingerprint,
        sequence_length=size.sequence_length,
        sequences_per_step=size.sequences_per_step,
        mask_documents=recipe.batch.mask_documents,
        packing=recipe.batch.packing,
        num_steps=size.num_steps,
        sources=sources,
        phases=phases,
        schedule=schedule,
        optimizer=recipe.optimizer,
        **resolve_trainable(recipe, model, size.num_steps, phases, notes),
        **retention,
        precision=recipe.training.precision,
    )
    folders = (base_folder, recipe_folder)
    return _assemble(
        recipe,
        model,
        corpora,
        packings,
        {**(measured_before or {}), **corpora},
        {} if task_bytes is None else task_bytes,
        science,
        folders,
        optimizer_state,
        notes,
    )


def _told_of_preset(problem: Problem, recipe: Recipe) -> Problem:
    """Return the problem with the preset named, where it is about what that has filled in."""
    if recipe.preset is None:
        return problem
    return told_of_preset(problem, recipe.preset, recipe.preset_settings)


def _asked_by(recipe: Recipe) -> str:
    """Return whose phases they are that ask for text."""
    is_filled_in = any(setting.key == "phases" for setting in recipe.preset_settings)
    return f"the phases of preset {recipe.preset!r}" if is_filled_in else "the phases"


def _check_tokenizers(model: ModelFacts, corpora: Mapping[str, CorpusFacts], notes: Notes) -> None:
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


def _explain_vocabulary(model: ModelFacts, notes: Notes) -> None:
    """Say how many rows its tokens have, and what tokens that were added to it save."""
    if not model.num_token_ids:
        return
    told = (
        f"{model.vocab_size:,} rows of the embedding, {model.vocab_size - model.num_token_ids:,} "
    )
    told += "in reserve"
    if model.new_pieces is not None:
        told += f"; {model.new_pieces.num_pieces:,} were added, tokens per byte "
        told += model.new_pieces.gain()
    notes.because(
        "vocabulary", f"{model.num_token_ids:,} tokens", told, "tokenizer.json, config.json"
    )


def _warn_of_dropout(model: ModelFacts, notes: Notes) -> None:
    if model.dropout:
        told = ", ".join(f"{key} {share:g}" for key, share in model.dropout.items())
        notes.warnings.append(
            f"the base trains with dropout ({told}), as its config.json says; most pretraining "
            "has none"
        )


def _warn_of_chat_template(recipe: Recipe, model: ModelFacts, notes: Notes) -> None:
    if model.has_chat_template:
        notes.warnings.append(
            "the base carries a chat template, as instruction-tuned models do: training on plain "
            "text wears such tuning off. If it was tuned, continue the base that it was tuned from "
            "and add the tuning to the result: rewarm merge --method chat-vector --model RUN "
            f"--instruct THIS_MODEL ({CHAT_VECTOR}). What is kept of its chat format is measured "
            "in every evaluation"
        )
    elif recipe.evaluation.chat is not None:
        notes.problems.add(
            "evaluation.chat",
            "the base has no chat template to write messages with",
            "leave it out, or use a base whose tokenizer has one",
        )


def _explain_documents(recipe: Recipe, corpora: Mapping[str, CorpusFacts], notes: Notes) -> None:
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
    if recipe.batch.packing == "best-fit":
        notes.because(
            "batch.packing",
            "best-fit",
            "only documents longer than a sequence are cut; what fits nowhere is padding, which "
            "counts as tokens of the budget and is not learned from",
            "Ding et al. 2024, arXiv 2404.10830",
        )


def _explain_answers(corpora: Mapping[str, CorpusFacts], notes: Notes) -> None:
    """Say of which sources not all tokens carry a loss."""
    for name, corpus in corpora.items():
        if corpus.num_label_tokens is not None:
            share = corpus.num_label_tokens / max(corpus.num_tokens, 1)
            notes.because(
                f"sources.{name}.format",
                "chat",
                f"{share:.1%} of its tokens are answers, which the loss counts; the others are "
                "read as context, and count as tokens of a step all the same",
                "recipe",
            )


def _explain_selections(corpora: Mapping[str, CorpusFacts], notes: Notes) -> None:
    """Say of which sources only the best documents are kept, and how much that is."""
    for name, corpus in corpora.items():
        chosen = corpus.selection
        if chosen is None:
            continue
        edge = "" if chosen.edge is None else f", cut at {chosen.edge}"
        if chosen.of_neighbours:
            which = (
                f"nearest to the questions of {chosen.reference}, every question's first neighbour "
                "before any second"
            )
        else:
            against = "" if chosen.reference is None else f" against {chosen.reference}"
            which = f"of the {'lowest' if chosen.lowest else 'highest'} {chosen.score}{against}"
        notes.because(
            f"sources.{name}.keep",
            f"{format_count(corpus.num_tokens)} of {format_count(chosen.of_tokens)} tokens",
            f"its training documents {which}{edge}",
            _SELECTION_SOURCES.get(chosen.score, "recipe"),
        )


def _used_sources(
    recipe: Recipe,
    corpora: Mapping[str, CorpusFacts],
    packings: Mapping[str, PackingFacts],
    size: Size,
    notes: Notes,
) -> tuple[PlannedSource, ...]:
    """Return the sources that some phase shows; the others are only evaluated."""
    used: list[PlannedSource] = []
    shown = used_sources(recipe)
    for name in recipe.sources:
        if name not in shown:
            notes.because(f"sources.{name}", _other_use(recipe, name), "no phase gives it a weight")
            continue
        corpus = corpora[name]
        source = planned_source(
            corpus, packings.get(name), recipe.batch.packing, size.sequence_length
        )
        _warn_of_padding(recipe, name, packings, size, notes)
        if source.num_windows == 0:
            notes.problems.add(
                f"sources.{name}",
                f"its {corpus.num_tokens} training tokens do not fill one window of "
                f"{size.sequence_length} + 1",
                "add text, lower its held_out share, keep more, or lower batch.sequence_length",
            )
        used.append(source)
    return tuple(used)


def _other_use(recipe: Recipe, name: str) -> str:
    """Return what a source is for that no phase shows."""
    uses = ["read by retention"] if name in sources_of_retention(recipe.retention) else []
    kept = {other: source.keep for other, source in recipe.sources.items()}
    chosen = [o for o, keep in kept.items() if keep is not None and keep.compared_with == name]
    if chosen:
        uses.append(f"what {' and '.join(chosen)} is kept by")
    return f"evaluated, and {' and '.join(uses)}" if uses else "evaluated only"


def _warn_of_padding(
    recipe: Recipe, name: str, packings: Mapping[str, PackingFacts], size: Size, notes: Notes
) -> None:
    """Warn of documents that fit badly beside each other, as those of one length do."""
    if recipe.batch.packing == "contiguous" or name not in packings:
        return
    padding = packings[name].best_fit.padding_share(size.sequence_length)
    if padding > _MUCH_PADDING:
        notes.warnings.append(
            f"source {name!r}: {padding:.1%} of its best-fit sequences is padding, which costs as "
            "much as text; with documents of other lengths in the source, or another "
            'batch.sequence_length, it may be less, with batch.packing = "contiguous" there is none'
        )


def _planned_phases(
    recipe: Recipe,
    corpora: Mapping[str, CorpusFacts],
    size: Size,
    sources: tuple[PlannedSource, ...],
    spans: tuple[PhaseSpan, ...],
    shown_before: Mapping[str, int],
    notes: Notes,
) -> tuple[PlannedPhase, ...]:
    weights = phase_shares(recipe, corpora, sources, spans, size, shown_before, notes)
    if weights is None:
        return ()
    order = OrderSpec(
        seed=recipe.seed,
        sequences_per_step=size.sequences_per_step,
        source_names=tuple(source.name for source in sources),
        num_windows=tuple(source.num_windows for source in sources),
        phases=tuple(
            OrderPhase(start_step=span.start_step, end_step=span.end_step, weights=shares)
            for span, shares in zip(spans, weights, strict=True)
        ),
    )
    for span in spans:
        by_threshold = span.reason.startswith("first step after the peak")
        notes.because(
            f"phases.{span.name}",
            f"steps {span.start_step} to {span.end_step - 1}",
            f"ends where: {span.reason}",
            REUSE if by_threshold else "recipe",
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


def _planned_preset(recipe: Recipe) -> PlannedPreset | None:
    if recipe.preset is None:
        return None
    preset = PRESETS[recipe.preset]
    return PlannedPreset(
        name=preset.name,
        title=preset.title,
        not_for=preset.not_for,
        settings=tuple(
            Reason(
                field=setting.key,
                value=as_toml(setting.value),
                reason=setting.why,
                source=setting.source,
            )
            for setting in recipe.preset_settings
        ),
    )


def _assemble(
    recipe: Recipe,
    model: ModelFacts,
    corpora: Mapping[str, CorpusFacts],
    packings: Mapping[str, PackingFacts],
    measured: Mapping[str, CorpusFacts],
    task_bytes: Mapping[str, int],
    science: Science,
    folders: tuple[str, str],
    optimizer_state: OptimizerStateFacts | None,
    notes: Notes,
) -> Plan:
    num_trained, layers_share = training_share(recipe, model, science.stages, science.num_steps)
    retention, muon = retention_cost(science, model), muon_cost(science, model)
    length = science.sequence_length
    spent = training_flops(model, length, science.num_tokens, layers_share) + retention.flops
    spent += muon.flops
    evaluation = plan_evaluation(
        recipe,
        measured,
        task_bytes,
        num_steps=science.num_steps,
        sequence_length=length,
        other_tokens=3 * spent / flops_per_token(model, length),
        notes=notes,
    )
    notes.problems.raise_as(PlanError)
    notes.warnings += warn_of_patience(recipe, evaluation.steps)
    gpu = planned_gpu(recipe.training, recipe.hardware)
    notes.warnings += warn_of_unused_gpu(recipe.training, gpu)
    half = computes_in_half(science.precision, gpu)
    found: tuple[Estimate, ...] = estimates(
        model,
        sequence_length=science.sequence_length,
        sequences_per_step=science.sequences_per_step,
        num_steps=science.num_steps,
        evaluation_tokens=evaluation.num_tokens,
        num_devices=recipe.hardware.num_devices,
        flops_per_second=recipe.hardware.flops_per_second,
        assumed=None if gpu is None else assumed_rate(gpu, half=half),
        price_per_gpu_hour=recipe.hardware.price_per_gpu_hour,
        optimizer=recipe.optimizer.kind,
        retention=retention,
        muon=muon,
        num_trained=num_trained,
        layers_share=layers_share,
    )
    found += (
        peak_estimate(
            recipe.training,
            science,
            model,
            num_trained,
            retention_bytes=int(retention.num_bytes),
            gpu=gpu,
            num_devices=recipe.hardware.num_devices,
        ),
        disk_estimate(
            recipe.checkpoints,
            science.num_steps,
            model,
            checkpoint_bytes(science, model, num_trained),
        ),
    )
    watts = recipe.hardware.watts_per_device
    if watts is not None:
        seconds = next(estimate.value for estimate in found if estimate.name == "time")
        energy = energy_estimate(seconds, watts, recipe.hardware.num_devices, "the recipe's")
        if recipe.hardware.flops_per_second is None:
            told = f"{energy.formula}{AT_ASSUMED} as told of time"
            energy = energy.model_copy(update={"formula": told})
        found += (energy,)
    notes.warnings += warn_of_cost(recipe, evaluation, 3 * spent / flops_per_token(model, length))
    conduct = Conduct(
        recipe_folder=folders[1],
        base_folder=folders[0],
        base_name=recipe.base.path,
        base_revision=recipe.base.revision,
        base_hub_id=recipe.base.hub_id,
        base_pretraining=recipe.base.pretraining,
        corpora=dict(corpora),
        packing=dict(packings),
        model=model,
        optimizer_state=optimizer_state,
        training=recipe.training,
        guard=recipe.guard,
        evaluation=evaluation.recipe,
        evaluation_steps=evaluation.steps,
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
        preset=_planned_preset(recipe),
        reasons=tuple(notes.reasons),
        warnings=tuple(notes.warnings),
        estimates=found,
        evaluation=evaluation.measures,
    )
