"""What holding on to the base costs: a step with each term against the same step without, in turn.

What is predicted is the plan's own estimate ("retention compute", "retention memory"): passes over
tokens against training's, bytes held on top of the plain step's peak. Peaks are the CPU
allocator's, as torch's profiler reports them, on top of what lies there between two steps. Times
are processor time of one thread, which others on the machine disturb least.
"""

from __future__ import annotations

import ast
import functools
import json
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from record import Figure, write_results
from torch import Tensor

from rewarm.batches.loader import BatchLoader
from rewarm.corpus.top_k import SourceTopK, open_top_k
from rewarm.distributed.fsdp import Root
from rewarm.distributed.world import ALONE
from rewarm.model.load import new_llama
from rewarm.model.vocabulary import train_bpe
from rewarm.planning.amendments import Amendments
from rewarm.planning.budget import flops_per_token
from rewarm.planning.plan import Plan
from rewarm.planning.retention import fisher_order, retention_cost
from rewarm.records.run_folder import RunFolder
from rewarm.retention.fisher import fisher_diagonal
from rewarm.stages.job import open_job
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.objective import Objective
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.rehearse import rehearse_job
from rewarm.stages.train import open_views
from rewarm.stages.trained import load_planned_base
from rewarm.training.hooks import AverageWeights
from rewarm.training.materials import Materials, load_root
from rewarm.training.optimizer import build_optimizer, moments, trainable_parameters
from rewarm.training.placement import autocast_of, choose_placement
from rewarm.training.retained import Retained
from rewarm.training.sinks import Journal
from rewarm.training.stages import let_train_at
from rewarm.training.state import TrainState
from rewarm.training.step import Stepper

VOCABULARY, LENGTH, SEQUENCES, STEPS = 2048, 256, 4, 24
NUM_ROUNDS = 15
FISHER_SEQUENCES = 4

RECIPE = f"""
name = "cost"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
budget = {{ tokens = {STEPS * SEQUENCES * LENGTH} }}
batch = {{ tokens = {SEQUENCES * LENGTH}, sequence_length = {LENGTH}, mask_documents = false }}
schedule = {{ kind = "constant" }}
sources.new = {{ path = "new.jsonl", role = "new" }}
sources.old = {{ path = "old.jsonl", role = "replay" }}
phases = [{{ name = "all", weights = {{ new = 0.75, old = 0.25 }} }}]
[training]
precision = "float32"
loss = "chunked"
num_threads = 1
micro_batch_sequences = {SEQUENCES}
"""

MADE = (
    'sources.made={role="replay", rehearse={tokens=4096, max_tokens_per_sample=96, '
    "top_k_logits=32, batch_samples=48}}",
    'phases=[{name="all", weights={new=0.75, made=0.25}}]',
)

TERMS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "l2sp": ("retention.l2sp.weight=0.1",),
    "ewc": (f"retention.ewc={{fisher_from='old', sequences={FISHER_SEQUENCES}}}",),
    "distill, new text (LwF)": ("retention.distill={}",),
    "distill, replayed text": ("retention.distill={on='replay'}",),
    "distill, replayed text, stored top-32": (
        *MADE,
        "retention.distill={on=['made'], teacher='stored'}",
    ),
    "agem": ("retention.agem.memory=['old']",),
    "ema": ("retention.ema={}",),
}
FISHER = "Fisher information, as many sequences"


@dataclass(frozen=True)
class Step:
    """The next step of a run that holds on to its base in one way."""

    plan: Plan
    stepper: Stepper
    state: TrainState
    batches: BatchLoader

    @classmethod
    def of(cls, recipe: Path, overrides: tuple[str, ...], run: RunFolder) -> Step:
        plan = plan_job(open_job(recipe, overrides), estimates_allowed=False)
        run.path.mkdir()
        run.make_log_folder()
        placement, _ = choose_placement(plan.conduct.training, plan.science, plan.conduct.model)
        objective = Objective.of(plan, placement)
        views = open_views(plan)
        stored = {}
        if (distill := plan.science.retention.distill) and distill.teacher == "stored":
            for name in distill.on:
                rows = open_top_k(plan.conduct.corpora[name])
                assert rows is not None
                stored[name] = SourceTopK(rows, views[name])
        materials = Materials(
            load_model=functools.partial(load_planned_base, plan, device="cpu"),
            fill_model=objective.settle,
            loss=objective.loss,
            views=views,
            stored=stored,
        )
        journal, notices = Journal(run), list[str]()
        retained = Retained.of(plan, placement, materials, ALONE, journal, notices)
        root = load_root(
            placement,
            materials,
            ALONE,
            notices,
            let_train=lambda model: let_train_at(model, plan.science, 0, Amendments()),
        )
        assert not notices, notices
        optimizer = build_optimizer(trainable_parameters(root.model), plan.science.optimizer)
        state = TrainState(root, optimizer)
        retained.hold(state)
        stepper = Stepper(
            plan.science,
            placement,
            objective.loss,
            tell=journal.event,
            retention=retained.retention,
        )
        batches = BatchLoader(
            plan.science.order(),
            views,
            sequence_length=LENGTH,
            vocab_size=plan.conduct.model.vocab_size,
            mask_documents=False,
            stored=stored,
        )
        return cls(plan, stepper, state, batches)

    def __call__(self) -> None:
        """Take the step."""
        record = self.stepper(self.state, self.batches.batch(self.state.step))
        if self.state.average is not None:
            AverageWeights().after_step(self.state, record)
        self.state.step += 1

    def held(self) -> int:
        """Return the bytes that lie in memory between two steps."""
        state = self.state
        found = [*state.model.parameters(), *state.model.buffers()]
        found += moments(state.optimizer).values()
        distillation = self.stepper.retention.distillation
        if distillation is not None and distillation.teacher is not None:
            found += distillation.teacher.model.parameters()
        if state.anchor is not None:
            found += [*state.anchor.base.values(), *state.anchor.fisher.values()]
        if state.average is not None:
            found += state.average.weights.values()
        return bytes_of(found)

    def fisher(self) -> None:
        """Estimate Fisher information from as many sequences as a step has."""
        root: Root = self.state.root
        loader = BatchLoader(
            fisher_order(self.plan.science),
            open_views(self.plan),
            sequence_length=LENGTH,
            vocab_size=self.plan.conduct.model.vocab_size,
            mask_documents=False,
        )
        fisher_diagonal(
            root,
            trainable_parameters(root.model),
            (loader.batch(index) for index in range(FISHER_SEQUENCES)),
            self.stepper.loss,
            autocast=lambda: autocast_of(self.stepper.placement),
        )


def bytes_of(tensors: list[Tensor]) -> int:
    """Return the bytes of tensors, of what they share once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def growth(act: Callable[[], object]) -> int:
    """Return by how much, at most, memory on the CPU grows while something is done."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        act()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    assert changes, "the profiler saw no memory"
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def seconds(act: Callable[[], object]) -> float:
    """Return the processor time that is spent on something."""
    started = time.process_time()
    act()
    return time.process_time() - started


def docstrings(text: str) -> Iterator[str]:
    """Yield what a module, its classes and functions say of themselves."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and (said := ast.get_docstring(node)):
            yield said


def write_inputs(folder: Path) -> Path:
    """Write base, text and recipe: Python source as the old, its docstrings as the new."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    modules = [path.read_text(encoding="utf-8", errors="ignore") for path in paths]
    prose = [said for module in modules for said in docstrings(module)]
    for name, texts in (("old", modules[:80]), ("new", prose)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    new_llama(
        folder / "base",
        tokenizer_json=train_bpe(modules[:80], VOCABULARY),
        bos_token="<s>",
        eos_token="</s>",
        hidden_size=192,
        num_layers=6,
        num_heads=3,
        max_positions=LENGTH,
        seed=0,
        intermediate_size=512,
    )
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    return recipe


def predicted(plan: Plan) -> tuple[float, float]:
    """Return what the plan says a step's term costs: a share of its compute, and bytes.

    Fisher information is taken before the first step, and has a figure of its own.
    """
    science, model = plan.science, plan.conduct.model
    cost = retention_cost(science, model)
    per_token = flops_per_token(model, LENGTH)
    if science.retention.ewc is not None:
        cost = cost._replace(
            flops=cost.flops - per_token * LENGTH * science.retention.ewc.sequences
        )
    return cost.flops / (per_token * STEPS * SEQUENCES * LENGTH), cost.num_bytes


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = write_inputs(folder)
        rehearse_job(open_job(recipe, MADE))
        prepare_job(open_job(recipe, MADE), MODEL_TOOLS)
        steps = {
            term: Step.of(recipe, overrides, RunFolder(folder / f"run-{index}"))
            for index, (term, overrides) in enumerate(TERMS.items())
        }
        acts: dict[str, Callable[[], None]] = {**steps, FISHER: steps["ewc"].fisher}
        for act in acts.values():
            act()
        rounds = [{term: seconds(act) for term, act in acts.items()} for _ in range(NUM_ROUNDS)]
        peaks = {term: step.held() + growth(step) for term, step in steps.items()}
    plain = peaks["nothing"]
    figures = []
    for term in [*list(TERMS)[1:], FISHER]:
        share, num_bytes = (0.0, 0.0) if term == FISHER else predicted(steps[term].plan)
        found = statistics.median(r[term] / r["nothing"] for r in rounds)
        versus = "a step without, interleaved; processor time"
        figures += [
            Figure(f"{term}: step time, predicted", 1 + share, "", "lower", None, "the plan"),
            Figure(f"{term}: step time", found, "", "lower", (1 + share) * 1.15, versus),
        ]
        if term != FISHER:
            expected = (plain + num_bytes) / plain
            what = f"{term}: peak memory"
            figures += [
                Figure(f"{what}, predicted", expected, "", "lower", None, "the plan"),
                Figure(what, peaks[term] / plain, "", "lower", expected * 1.05, "a step without"),
            ]
    write_results("retention_cost", figures)


if __name__ == "__main__":
    main()
