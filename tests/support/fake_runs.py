"""Runs that nobody trained: real plans, logs and evaluations with shapes that real runs have."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewarm.artifacts import write_json
from rewarm.evaluation.statistics import ratio, ratio_standard_error
from rewarm.order.position import slots_of_step
from rewarm.planning.plan import Placement, Plan, save_plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from rewarm.recipe.schema import Recipe
from rewarm.records.facts import (
    LOSS_METRICS,
    CorpusFacts,
    EvalRecord,
    Metric,
    Role,
    StepRecord,
)
from rewarm.records.run_folder import RunFolder
from tests.support.fake_facts import make_corpus_facts, make_model_facts

HOSTILE_PHASE = '<script>alert("phase")</script> & "quoted" Ünïcödé 相'
HOSTILE_LICENCE = "<img src=x onerror=alert(1)> see https://licence.invalid/by-4.0"
HOSTILE_NAME = "<script>alert('run')</script>\x00\ud800"


@dataclass(frozen=True, slots=True)
class Arm:
    """How a made-up run behaves. Changes are in bits per byte (or share) at the last step."""

    old_weight: float = 0.25
    qa_weight: float = 0.12
    peak: str = "pretraining.final"
    warmup: float = 0.0
    jump: float = 0.09
    forgetting: float = 0.03
    learning: float = -0.42
    answers: float = -0.15
    matched: float = -0.02


def make_fake_run(
    folder: Path,
    seed: int = 1,
    *,
    arm: Arm | None = None,
    num_steps: int = 390,
    steps_taken: int | None = None,
    evaluated: bool = True,
    hostile: bool = False,
    num_documents: int = 60,
) -> RunFolder:
    """Write plan, recipe, placement and logs of a run into `folder`."""
    shape = arm or Arm()
    run = RunFolder(folder)
    recipe = fake_recipe(seed, shape, num_steps, hostile=hostile)
    plan = fake_plan(recipe, hostile=hostile)
    taken = plan.science.num_steps if steps_taken is None else steps_taken
    save_plan(plan, run.plan) if not hostile else _save_hostile(plan, run.plan)
    write_json(run.recipe, recipe.model_dump(mode="json"))
    write_json(run.placement, _placement().model_dump(mode="json"))
    run.make_log_folder()
    run.append_event("launch", 0, "launched on this machine", world_size=1)
    for record in _steps(plan, taken, seed):
        run.append_step(record)
    if evaluated:
        run.append_evals(_evaluations(plan, taken, seed, shape, num_documents))
    if taken == plan.science.num_steps:
        run.append_event("finish", taken, "all steps taken")
    else:
        run.append_event("stop", taken, "SIGTERM: stopped after a checkpoint")
    return run


def _save_hostile(plan: Plan, path: Path) -> None:
    """Save a plan whose name JSON can hold, but UTF-8 cannot: as ASCII, with its escapes."""
    from rewarm.artifacts import canonical_json, write_atomically

    write_atomically(path, canonical_json(plan.model_dump(mode="json")))


def fake_recipe(seed: int, arm: Arm, num_steps: int, *, hostile: bool = False) -> Recipe:
    rest = 1 - arm.old_weight
    phase_name = HOSTILE_PHASE if hostile else "general blend"
    licence = HOSTILE_LICENCE if hostile else "CC BY 4.0"
    text = f"""
name = "made-up"
seed = {seed}
[base]
path = "models/tiny-base"
[base.pretraining]
peak_lr = 1e-3
final_lr = 1e-4
[sources.english]
path = "english.jsonl"
role = "general"
licence = '{licence}'
[sources.python]
path = "python.jsonl"
role = "new"
licence = "PSF-2.0"
[sources.qa]
path = "qa.jsonl"
role = "qa"
[[phases]]
name = '{phase_name}'
weights = {{ english = {arm.old_weight}, python = {rest} }}
until = {{ lr_below = "start/5" }}
[[phases]]
name = "qa blend"
weights = {{ english = {arm.old_weight}, python = {rest - arm.qa_weight}, qa = {arm.qa_weight} }}
[schedule]
peak_lr = "{arm.peak}"
warmup_fraction = {arm.warmup}
[budget]
tokens = {num_steps * 2048}
[batch]
tokens = 2_048
sequence_length = 128
"""
    if arm.warmup:
        text = text.replace('"start/5"', '"peak/5"')
    return parse_recipe(text)


def fake_plan(recipe: Recipe, *, hostile: bool = False) -> Plan:
    corpora = {name: fake_corpus(name, source.role) for name, source in recipe.sources.items()}
    corpora = {
        name: facts.model_copy(update={"licence": recipe.sources[name].licence})
        for name, facts in corpora.items()
    }
    plan = resolve(recipe, make_model_facts(), corpora, base_folder="models/tiny-base")
    return plan.model_copy(update={"name": HOSTILE_NAME}) if hostile else plan


def fake_corpus(name: str, role: Role) -> CorpusFacts:
    num_tokens = {"english": 900_000, "python": 520_000, "qa": 20_000}[name]
    rejected = {"too short": 41, "not UTF-8": 3} if name == "english" else {}
    facts = make_corpus_facts(name, role, num_tokens=num_tokens)
    return facts.model_copy(update={"rejected": rejected})


def _placement() -> Placement:
    return Placement(
        device="cpu",
        device_name="a made-up processor",
        world_size=1,
        micro_batch_sequences=16,
        autocast_dtype="bfloat16",
        num_threads=2,
        deterministic=False,
        provenance={
            "python": "3.11.7",
            "platform": "Linux",
            "machine": "x86_64",
            "cpu_count": 2,
            "packages": {"rewarm": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "command": ["rewarm", "run", "recipe.toml"],
        },
    )


def _steps(plan: Plan, taken: int, seed: int) -> Iterator[StepRecord]:
    science = plan.science
    generator = np.random.default_rng(seed)
    order = science.order()
    for step in range(taken):
        counts = np.bincount(slots_of_step(order, step).source, minlength=len(science.sources))
        trend = 3.1 * math.exp(-step / 60) * 0.25 + 2.6 - 0.15 * step / science.num_steps
        yield StepRecord(
            step=step,
            loss=trend + 0.06 * float(generator.normal()),
            lr=science.lr(step),
            grad_norm=0.8 + 0.7 * math.exp(-step / 20) + 0.1 * abs(float(generator.normal())),
            num_valid_tokens=science.tokens_per_step,
            num_tokens=(step + 1) * science.tokens_per_step,
            phase=science.phase_at(step).name,
            samples=tuple(int(count) for count in counts),
            step_s=0.21 + 0.01 * abs(float(generator.normal())),
        )


def _evaluations(
    plan: Plan, taken: int, seed: int, arm: Arm, num_documents: int
) -> Iterator[EvalRecord]:
    for step in plan.conduct.evaluation_steps:
        if step > taken:
            return
        progress = step / plan.science.num_steps
        risen = 1 - math.exp(-step / 40)
        jump = arm.jump * (step / 6) * math.exp(1 - step / 6)
        old = jump + arm.forgetting * (1 - math.exp(-step / 4))
        new = arm.learning * risen
        qa = arm.answers * progress**3
        bpb: Metric = "bits_per_byte"
        yield fake_losses(step, "english", "general", bpb, 1.62, old, num_documents, seed)
        yield fake_losses(step, "python", "new", bpb, 1.94, new, num_documents, seed + 1)
        yield fake_losses(step, "qa", "qa", bpb, 1.71, new / 4, num_documents, seed + 2)
        answer: Metric = "answer_bits_per_byte"
        yield fake_losses(step, "qa", "qa", answer, 1.38, qa, num_documents, seed + 3)
        matched = arm.matched * (1 - math.exp(-step / 8))
        yield fake_choices(step, "english", "general", 0.61 + matched, 400, seed + 4)
        yield fake_choices(step, "python", "new", 0.42 + 0.08 * risen, 400, seed + 5)


def fake_losses(
    step: int,
    domain: str,
    role: Role,
    metric: Metric,
    first: float,
    change: float,
    num_items: int,
    seed: int,
) -> EvalRecord:
    """Return bits per byte of items that share their size and hardness over all steps."""
    generator = np.random.default_rng(seed)
    weights = generator.integers(800, 6_000, size=num_items)
    hardness = 1 + 0.12 * generator.normal(size=num_items)
    spread = 1 + 0.15 * np.random.default_rng((seed, step)).normal(size=num_items)
    bits = first * hardness + change * spread * (step > 0)
    nats = (bits * weights * math.log(2)).tolist()
    return eval_record(step, domain, role, metric, nats, weights.tolist())


def fake_choices(
    step: int, domain: str, role: Role, accuracy: float, num_items: int, seed: int
) -> EvalRecord:
    drawn = np.random.default_rng(seed).uniform(size=num_items)
    right = (drawn < accuracy).astype(float).tolist()
    return eval_record(step, domain, role, "matched_continuation", right, [1] * num_items)


def eval_record(
    step: int,
    domain: str,
    role: Role,
    metric: Metric,
    values: Sequence[float],
    weights: Sequence[int],
) -> EvalRecord:
    """Return the record of these items, with value and standard error as evaluation writes them."""
    scale = 1 / math.log(2) if metric in LOSS_METRICS else 1.0
    error = ratio_standard_error(values, weights)
    return EvalRecord(
        step=step,
        domain=domain,
        role=role,
        metric=metric,
        value=scale * ratio(values, weights),
        standard_error=None if error is None else scale * error,
        item_values=tuple(values),
        item_weights=tuple(weights),
        items_key=f"{domain}-{metric}",
        chance=None if metric in LOSS_METRICS else 0.25,
        seconds=0.8,
    )


ARMS: dict[str, tuple[str, Arm]] = {
    "reuse": (
        "from the final rate, no warm-up, QA at the end (Parmar et al.)",
        Arm(),
    ),
    "re-warm, no replay": (
        "back to the peak rate, new text only",
        Arm(old_weight=0.0, peak="pretraining.peak", warmup=0.01, jump=0.4, forgetting=0.75,
            learning=-0.61, answers=-0.21, matched=-0.2),
    ),
    "re-warm, 5 % replay": (
        "back to the peak rate, 5 % old text (Ibrahim et al.)",
        Arm(old_weight=0.05, peak="pretraining.peak", warmup=0.01, jump=0.3, forgetting=0.16,
            learning=-0.60, answers=-0.2, matched=-0.06),
    ),
    "re-warm, 25 % replay": (
        "back to the peak rate, 25 % old text",
        Arm(old_weight=0.25, peak="pretraining.peak", warmup=0.01, jump=0.2, forgetting=0.04,
            learning=-0.56, answers=-0.17, matched=-0.01),
    ),
    "constant low": (
        "no schedule at all: a tenth of the final rate",
        Arm(old_weight=0.25, peak="pretraining.final/10", jump=0.01, forgetting=0.002,
            learning=-0.09, answers=-0.02, matched=0.0),
    ),
}  # fmt: skip
"""Arms of a made-up comparison, with their descriptions."""
