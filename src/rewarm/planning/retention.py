"""What keeps the base's knowledge, resolved: on which text, at which strength, at what cost.

A-GEM's memory and the text that Fisher information is estimated on have data orders of their own,
keyed apart from the run's: functions of (plan, step) as that one is, so nothing of them is saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rewarm.order.blend import quantise_weights
from rewarm.order.position import OrderPhase, OrderSpec
from rewarm.order.shuffle import derive_key
from rewarm.planning.blends import planned_source
from rewarm.planning.budget import AddedCost, flops_per_token
from rewarm.planning.distillation import note_unknown, resolve_distill
from rewarm.planning.notes import Notes
from rewarm.planning.plan import PlannedPhase, PlannedSource, Science
from rewarm.planning.selection import num_trained
from rewarm.planning.size import Size
from rewarm.recipe.retention import AgemRecipe, EwcRecipe, RetentionRecipe
from rewarm.recipe.schema import Recipe
from rewarm.recipe.sources import OLD_ROLES
from rewarm.records.facts import CorpusFacts, ModelFacts
from rewarm.records.packing import PackingFacts

__all__ = [
    "fisher_order",
    "memory_order",
    "resolve_retention",
    "retention_cost",
    "sources_of_retention",
]

L2SP = "Li et al. 2018, arXiv 1802.01483"
EWC = "Kirkpatrick et al. 2017, arXiv 1612.00796"
AGEM = "Chaudhry et al. 2019, arXiv 1812.00420"
STREAMS = "Lee et al. 2023, WACV"
_FEWEST_FOR_FISHER = 32


def resolve_retention(
    recipe: Recipe,
    sources: Sequence[PlannedSource],
    phases: Sequence[PlannedPhase],
    corpora: Mapping[str, CorpusFacts],
    packings: Mapping[str, PackingFacts],
    size: Size | None,
    notes: Notes,
) -> dict[str, Any]:
    """Return the fields of the science that say what holds on to the base, with every default.

    Everything that makes no sense is noted as a problem; the fields are then of no use.
    """
    wanted = recipe.retention
    if wanted == RetentionRecipe():
        return {}
    _note_anchors(recipe, notes)
    distill = None if wanted.distill is None else resolve_distill(recipe, sources, phases, notes)
    agem = None if wanted.agem is None else _resolved_agem(recipe, size, notes)
    names = sources_of_retention(wanted)
    length = 0 if size is None else size.sequence_length
    memory = [
        planned_source(corpora[name], packings.get(name), recipe.batch.packing, length)
        for name in names
        if name in corpora
    ]
    shown = {source.name for source in sources}
    for source in memory:
        # Of text that a phase shows, the phases' own check has told.
        if size is not None and not source.num_windows and source.name not in shown:
            notes.problems.add(
                f"sources.{source.name}",
                f"its {corpora[source.name].num_tokens} training tokens do not fill one window of "
                f"{size.sequence_length} + 1",
                "add text, lower its held_out share, or lower batch.sequence_length",
            )
    if wanted.ewc is not None:
        _note_fisher(wanted.ewc, recipe, memory, notes)
    if agem is not None:
        _note_memory(agem, memory, notes)
    ema = wanted.ema
    if ema is not None and size is not None:
        ema = ema.model_copy(update={"decay": _decay(ema.decay, size.num_steps, notes)})
    return {
        "retention": wanted.model_copy(update={"distill": distill, "agem": agem, "ema": ema}),
        "memory": tuple(memory),
    }


def sources_of_retention(wanted: RetentionRecipe) -> list[str]:
    """Return the sources that it reads beside the blends, each once."""
    names = [] if wanted.ewc is None else [wanted.ewc.fisher_from]
    names += [] if wanted.agem is None else wanted.agem.memory
    return list(dict.fromkeys(names))


def memory_order(science: Science) -> OrderSpec:
    """Return the order in which A-GEM's memory is shown: sources in equal shares, by epochs."""
    recipe = science.retention.agem
    assert recipe is not None
    assert recipe.sequences_per_step is not None
    sources = [source for source in science.memory if source.name in recipe.memory]
    return _order(science.seed, "memory", sources, recipe.sequences_per_step, science.num_steps)


def fisher_order(science: Science) -> OrderSpec:
    """Return the order of the sequences that Fisher information is estimated on, one a step."""
    recipe = science.retention.ewc
    assert recipe is not None
    sources = [source for source in science.memory if source.name == recipe.fisher_from]
    return _order(science.seed, "fisher", sources, 1, recipe.sequences)


def _order(
    seed: int, purpose: str, sources: Sequence[PlannedSource], per_step: int, num_steps: int
) -> OrderSpec:
    weights = quantise_weights([1.0] * len(sources))
    return OrderSpec(
        seed=derive_key(seed, purpose),
        sequences_per_step=per_step,
        source_names=tuple(source.name for source in sources),
        num_windows=tuple(source.num_windows for source in sources),
        phases=(OrderPhase(start_step=0, end_step=num_steps, weights=weights),),
    )


def _note_anchors(recipe: Recipe, notes: Notes) -> None:
    """Explain the pulls to the base's weights, and refuse them where there are no such weights."""
    wanted = recipe.retention
    for key, found, source, why in (
        ("l2sp", wanted.l2sp, L2SP, "every trained weight is pulled to its value in the base"),
        ("ewc", wanted.ewc, EWC, "a weight is pulled as much as old text's likelihood hangs on it"),
    ):
        if found is None:
            continue
        notes.because(f"retention.{key}.weight", f"{found.weight:g}", why, source)
        if recipe.parameters.adapter is not None:
            notes.problems.add(
                f"retention.{key}",
                "it pulls weights to their values in the base, and an adapter's matrices have none "
                "there: the base's own weights do not move",
                "leave one of the two out; retention.distill holds an adapter to what the base "
                "says",
            )
    if wanted.l2sp is not None and recipe.optimizer.weight_decay > 0:
        notes.warnings.append(
            f"optimizer.weight_decay = {recipe.optimizer.weight_decay:g} pulls weights to 0 while "
            "retention.l2sp pulls them to the base; in its paper it stands in place of the decay "
            "(optimizer.weight_decay = 0)"
        )


def _note_fisher(
    wanted: EwcRecipe, recipe: Recipe, memory: Sequence[PlannedSource], notes: Notes
) -> None:
    where = "retention.ewc.fisher_from"
    if not _check_old(where, wanted.fisher_from, recipe, "what it holds on to", notes):
        return
    notes.because(
        "retention.ewc.sequences",
        wanted.sequences,
        "the mean of so many sequences' squared gradients, taken once before the first step; its "
        f"relative error is about {math.sqrt(2 / wanted.sequences):.0%}",
        "√(2/n) of n normal squares",
    )
    found = next((source for source in memory if source.name == wanted.fisher_from), None)
    if found is not None and found.num_windows and wanted.sequences > found.num_windows:
        notes.problems.add(
            "retention.ewc.sequences",
            f"{wanted.sequences} sequences of {wanted.fisher_from!r}, which has "
            f"{found.num_windows}",
            f"use at most {found.num_windows}, or add text",
        )
    if wanted.sequences < _FEWEST_FOR_FISHER:
        notes.warnings.append(
            f"retention.ewc.sequences = {wanted.sequences} make a rough estimate: each weight's "
            "importance is off by a quarter of itself or more"
        )


def _resolved_agem(recipe: Recipe, size: Size | None, notes: Notes) -> AgemRecipe | None:
    wanted = recipe.retention.agem
    assert wanted is not None
    for index, name in enumerate(wanted.memory):
        where = f"retention.agem.memory[{index}]"
        if name in wanted.memory[:index]:
            notes.problems.add(where, f"{name!r} is named twice", "name it once")
        _check_old(where, name, recipe, "the text whose loss must not rise", notes)
    if size is None:
        return wanted
    per_step = wanted.sequences_per_step or size.sequences_per_step
    by_default = "" if wanted.sequences_per_step else "as many as the stream's; "
    notes.because(
        "retention.agem.sequences_per_step",
        per_step,
        f"{by_default}their gradient turns aside a step that points against it",
        AGEM if wanted.sequences_per_step else STREAMS,
    )
    return wanted.model_copy(update={"sequences_per_step": per_step})


def _note_memory(agem: AgemRecipe, memory: Sequence[PlannedSource], notes: Notes) -> None:
    """Refuse steps that show a memory's text more than once: that is paid for, and says nothing."""
    sizes = {s.name: s.num_windows for s in memory if s.name in agem.memory and s.num_windows}
    per_step = agem.sequences_per_step
    if per_step is None or not sizes:
        return
    name = min(sizes, key=lambda name: sizes[name])
    each = -(-per_step // len(agem.memory))
    if each > sizes[name]:
        notes.problems.add(
            "retention.agem.sequences_per_step",
            f"{each} of each step's {per_step} sequences are of {name!r}, which has {sizes[name]}",
            f"set it to at most {sizes[name] * len(agem.memory)}, or add text",
        )


def _check_old(where: str, name: str, recipe: Recipe, what_for: str, notes: Notes) -> bool:
    """Tell whether a source is there and old; note it where not."""
    if name not in recipe.sources:
        note_unknown(where, name, recipe, notes)
        return False
    role = recipe.sources[name].role
    if role not in OLD_ROLES:
        notes.problems.add(
            where,
            f"{name!r} has the role {role}; {what_for} must be what the base was pretrained on",
            "name a source of role general, quality or replay (sampled text, too)",
        )
        return False
    return True


def _default_span(num_steps: int) -> str:
    return ", a tenth of the run" if num_steps >= 20 else ", the fewest there are by default"


def _decay(wanted: float | None, num_steps: int, notes: Notes) -> float:
    """Return how much of the average stays at each step: by default it spans a tenth of the run."""
    decay = wanted if wanted is not None else 1 - 1 / max(2.0, num_steps / 10)
    notes.because(
        "retention.ema.decay",
        f"{decay:.6g}",
        f"averages about the last {1 / (1 - decay):,.0f} steps"
        + ("" if wanted is not None else _default_span(num_steps))
        + f"; of the base itself {decay**num_steps:.2g} is left in it at the end",
        "(1 − decay) · Σ decay^i θ, decay^steps",
    )
    return decay


def retention_cost(science: Science, model: ModelFacts) -> AddedCost:
    """Return what retention adds to a run, in float32 memory over all devices and in operations."""
    wanted = science.retention
    trained = num_trained(science, model)
    per_token = flops_per_token(model, science.sequence_length)
    num_bytes = flops = 0.0
    words: list[str] = []
    passes: list[str] = []
    if wanted.l2sp is not None or wanted.ewc is not None:
        num_bytes += 4 * trained
        words.append("the base's weights: 4 · trained")
    if wanted.ewc is not None:
        num_bytes += 4 * trained
        flops += per_token * wanted.ewc.sequences * science.sequence_length
        words.append("Fisher: 4 · trained")
        passes.append("Fisher's sequences, forward and backward")
    if wanted.distill is not None:
        tokens = _tokens_of(science, cast(list[str], wanted.distill.on))
        head = model.num_head_parameters or model.vocab_size * model.hidden_size
        flops += 6 * head * tokens
        if wanted.distill.teacher == "live":
            num_bytes += 4 * model.num_parameters
            flops += per_token / 3 * tokens
            passes.append("the teacher, forward; its head and the divergence")
            words.append("the base as a second model: 4 · parameters")
        else:
            words.append("stored distributions: next to nothing")
            passes.append("the divergence")
    if wanted.agem is not None:
        assert wanted.agem.sequences_per_step is not None
        num_bytes += 4 * trained
        num_sequences = wanted.agem.sequences_per_step * science.num_steps
        flops += per_token * num_sequences * science.sequence_length
        words.append("the memory's gradient: 4 · trained")
        passes.append("the memory's sequences, forward and backward")
    if wanted.ema is not None:
        num_bytes += 4 * trained
        words.append("the average: 4 · trained")
    return AddedCost(num_bytes, flops, "; ".join(words), "; ".join(passes))


def _tokens_of(science: Science, names: Sequence[str]) -> int:
    """Return the tokens that the run shows of some sources."""
    return science.sequence_length * sum(
        samples
        for phase in science.phases
        for source, samples in zip(science.sources, phase.samples, strict=True)
        if source.name in names
    )
