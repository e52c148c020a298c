"""Steps of real shapes on one GPU: share of the peak rate, tokens per second, memory, waiting.

    python benchmarks/gpu.py                  all of it, in a process of its own for each shape
    python benchmarks/gpu.py --shapes 1B      some shapes
    python benchmarks/gpu.py --limits         what this GPU's products and attentions reach alone,
                                              and no shape but those that are named
    python benchmarks/gpu.py --shapes tiny    a look at this script, without a GPU

No network, no hub: weights are random, text is made up. The road is a launch's: the placement
chooses micro-batch and precision, documents are kept apart, the loss is held against the model's
own logits, blocks are compiled, batches come from the prefetching loader; only checkpoints and
evaluations are left out. Each shape also trains eagerly, and compiled with whole windows as
documents. Where a compiled step goes is told by the kernels of one. At the end stands a table, with
this beneath.

MFU = tokens/s × FLOPs per token / 989e12 (989 TFLOP/s: dense bf16 of an H100 or H200 by its
datasheet), where
FLOPs per token = 6 × (parameters of the blocks + the output head, tied or not)
                + 6 × layers × heads × head width × sequence length
The last term is attention over whole windows, halved for being causal, and forward and twice that
backward; with documents kept apart less than that is computed, and the same is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_limits import limits
from numpy.typing import NDArray
from record import Figure, machine, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from rewarm.batches.loader import BatchLoader, PrefetchedBatches
from rewarm.corpus.views import Sequences
from rewarm.distributed.fsdp import Root
from rewarm.model.load import quiet_transformers
from rewarm.planning.footprint import peak_of_placement
from rewarm.planning.plan import Plan
from rewarm.recipe.steps import TrainingRecipe
from rewarm.records.facts import ModelFacts, StepRecord
from rewarm.stages.objective import Objective
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.placement import apply_placement, autocast_of, choose_placement
from rewarm.training.state import TrainState
from rewarm.training.step import Stepper
from tests.support.tiny_plans import make_plan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PEAK_FLOPS = 989e12
FORMULA = (__doc__ or "").partition("this beneath.\n\n")[2].strip()
LENGTH = 4096 if DEVICE == "cuda" else 256
GOAL = 0.55

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (  # for a look at this script without a GPU
        "LlamaConfig",
        {
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 70_000,
            "tie_word_embeddings": True,
        },
    ),
    "0.5B": (  # Qwen 2.5 0.5B
        "Qwen2Config",
        {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
            "tie_word_embeddings": True,
        },
    ),
    "1B": (  # OLMo 2 1B
        "Olmo2Config",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": 100_352,
            "tie_word_embeddings": False,
            "rope_theta": 500_000.0,
        },
    ),
    "3B": (  # Llama 3.2 3B
        "LlamaConfig",
        {
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "vocab_size": 128_256,
            "tie_word_embeddings": True,
            "rope_theta": 500_000.0,
        },
    ),
}


@dataclass(frozen=True)
class Text:
    """Made-up tokens in documents of some hundreds to thousands."""

    vocab_size: int
    seed: int = 1

    def sequences(self, windows: NDArray[np.int64], length: int, /) -> Sequences:
        """Return what each window reads and should say."""
        places = windows[:, None] * length + np.arange(length + 1)
        tokens = ((places * 2654435761 + self.seed) % 2**32 >> 7) % self.vocab_size
        return Sequences(tokens[:, :-1], tokens[:, 1:])

    def positions(self, windows: NDArray[np.int64], length: int, /) -> NDArray[np.int64]:
        """Return each input's place in its document."""
        rows = []
        for window in windows.tolist():
            draw = np.random.default_rng((self.seed, window))
            lengths = np.exp(draw.normal(6.5, 1.0, size=length)).astype(np.int64) + 16
            ends = np.cumsum(lengths)
            starts = np.concatenate([[0], ends[ends < length]])
            row = np.arange(length)
            rows.append(row - starts[np.searchsorted(starts, row, side="right") - 1])
        return np.stack(rows)


def model_of(name: str, device: str = DEVICE) -> Any:
    """Return a model of a shape with random weights in float32, on the GPU if there is one."""
    import transformers

    kind, sizes = SHAPES[name]
    config = getattr(transformers, kind)(max_position_embeddings=LENGTH, **sizes)
    torch.manual_seed(0)
    with quiet_transformers(), torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()


def facts_of(name: str, model: Any) -> ModelFacts:
    """Return what a plan would know of the model."""
    config = model.config
    tied = bool(config.tie_word_embeddings)
    embedding = model.get_input_embeddings().weight.numel()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelFacts(
        folder=name,
        model_type=config.model_type,
        architecture=type(model).__name__,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_embedding_parameters=embedding,
        num_head_parameters=0 if tied else embedding,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_size=width,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_positions=LENGTH,
        tied_embeddings=tied,
        saved_dtype="float32",
        bos_token_id=0,
        eos_token_id=1,
        weights_fingerprint="w" * 64,
        tokenizer_fingerprint="t" * 64,
        tensor_shapes={key: tuple(tensor.shape) for key, tensor in model.state_dict().items()},
    )


def flops_per_token(facts: ModelFacts) -> float:
    """Return the FLOPs that `FORMULA` counts."""
    blocks = facts.num_parameters - facts.num_embedding_parameters - facts.num_head_parameters
    head = facts.vocab_size * facts.hidden_size
    attention = 6 * facts.num_layers * facts.num_heads * facts.head_size * LENGTH
    return 6 * (blocks + head) + attention


def plan_of(facts: ModelFacts, sequences: int, *, masked: bool, training: TrainingRecipe) -> Plan:
    """Return a plan of steps of so many sequences."""
    plan = make_plan(num_steps=1000, peak_lr=1e-5)
    science = plan.science.model_copy(
        update={
            "sequence_length": LENGTH,
            "sequences_per_step": sequences,
            "mask_documents": masked,
            "num_layers": facts.num_layers,
            "precision": training.precision,
        }
    )
    conduct = plan.conduct.model_copy(update={"model": facts, "training": training})
    return plan.model_copy(update={"science": science, "conduct": conduct})


@dataclass
class Launch:
    """A model laid as a plan says, from whose steps figures are taken."""

    plan: Plan
    state: TrainState
    stepper: Stepper
    notices: list[str]
    seconds: float

    @classmethod
    def of(cls, state: TrainState, plan: Plan, *, micro_batch: int | None = None) -> Launch:
        """Lay a state's model as the placement that is chosen here says."""
        started = time.perf_counter()
        placement, warnings = choose_placement(
            plan.conduct.training, plan.science, plan.conduct.model
        )
        if micro_batch is not None:
            placement = placement.model_copy(update={"micro_batch_sequences": micro_batch})
        apply_placement(placement)
        objective = Objective.of(plan, placement)
        notices = [*warnings, *objective.settle(state.root)]
        placement = objective.settled(placement)
        stepper = Stepper(
            plan.science,
            placement,
            objective.loss,
            tell=lambda kind, step, message: notices.append(f"{kind} at {step}: {message}"),
        )
        _wait()
        return cls(plan, state, stepper, notices, time.perf_counter() - started)

    def take(
        self, num_steps: int, *, each: Callable[[StepRecord], None] = lambda record: None
    ) -> list[tuple[StepRecord, float]]:
        """Take steps; return each record with the seconds from one step's end to the next one's."""
        science = self.plan.science
        loader = BatchLoader(
            science.order(),
            {source.name: Text(self.plan.conduct.model.vocab_size) for source in science.sources},
            sequence_length=LENGTH,
            vocab_size=self.plan.conduct.model.vocab_size,
            mask_documents=science.mask_documents,
        )
        last = self.state.step + num_steps
        found = []
        with PrefetchedBatches(loader, last, pins=DEVICE == "cuda") as batches:
            before = time.perf_counter()
            while self.state.step < last:
                record = self.stepper(self.state, batches.batch(self.state.step))
                self.state.step += 1
                now = time.perf_counter()
                found.append((record, now - before))
                before = now
                each(record)
        return found


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _peak_bytes() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0


def measured(name: str, kind: str, launch: Launch, num_steps: int) -> dict[str, Any]:
    """Return figures of some steps after two that warm up."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    warm_up = launch.take(2)
    steps = launch.take(num_steps)
    facts, science = launch.plan.conduct.model, launch.plan.science
    tokens = LENGTH * science.sequences_per_step
    took_s = launch.seconds + sum(seconds for _, seconds in (*warm_up, *steps))
    step_s = statistics.median(seconds for _, seconds in steps)
    placement = launch.stepper.placement
    return {
        "shape": name,
        "kind": kind,
        "step_s": step_s,
        "first_steps_s": [round(seconds, 3) for _, seconds in warm_up],
        "settled_s": round(launch.seconds, 2),
        "took_s": round(took_s, 2),
        "tokens_per_s": tokens / step_s,
        "mfu": tokens / step_s * flops_per_token(facts) / PEAK_FLOPS,
        "peak_gib": _peak_bytes() / 2**30,
        "planned_gib": peak_of_placement(placement, science, facts, facts.num_parameters) / 2**30,
        "wait_share": sum(record.data_wait_s for record, _ in steps) / sum(s for _, s in steps),
        "micro_batch": placement.micro_batch_sequences,
        "checkpointing": placement.checkpointing,
        "road": placement.document_attention,
        "compiled": placement.compiled,
        "loss_kind": placement.loss,
        "loss": [round(record.loss, 5) for record, _ in steps[-2:]],
        "notices": launch.notices,
    }


def against_float32(model: Any, facts: ModelFacts, launch: Launch) -> dict[str, Any]:
    """Return how loss and gradient of one window differ from plain float32, as shares."""
    from rewarm.model.loss import sum_of_token_losses

    torch.backends.cuda.matmul.allow_tf32 = False
    text = Text(facts.vocab_size, seed=7)
    windows = np.array([3])
    read = text.sequences(windows, LENGTH)
    ids, labels, positions = (
        torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)
        for array in (read.inputs, read.labels, text.positions(windows, LENGTH))
    )
    rows = launch.stepper.placement.micro_batch_sequences

    masked = launch.plan.science.mask_documents

    def taken(loss: Any, *, half: bool, rows: int) -> tuple[float, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        many = [tensor.expand(rows, -1).contiguous() for tensor in (ids, labels, positions)]
        with autocast_of(launch.stepper.placement) if half else contextlib.nullcontext():
            nats, _ = loss(model, *(many if masked else (*many[:2], None)))
        (nats / many[0].numel()).backward()
        parts = [p.grad.flatten()[:: max(1, p.numel() // 4096)] for p in model.parameters()]
        return float(nats.detach()) / many[0].numel(), torch.cat(parts).clone()

    ours_loss, ours = taken(launch.stepper.loss, half=True, rows=rows)
    own = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    forwards = {
        module: module.__dict__.pop("forward")
        for module in model.modules()
        if "forward" in module.__dict__
    }
    plain_loss, plain = taken(sum_of_token_losses, half=False, rows=1)
    for module, forward in forwards.items():
        module.forward = forward
    model.set_attn_implementation(own)
    model.zero_grad(set_to_none=True)
    return {
        "float32_loss": plain_loss,
        "loss_off": abs(ours_loss / plain_loss - 1),
        "gradient_off": float((ours - plain).norm() / plain.norm()),
    }


def profile_of(launch: Launch, path: Path | None) -> list[tuple[str, float]]:
    """Return the kernels of a step, longest first, each with its seconds."""
    from torch.autograd.profiler_util import DeviceType  # type: ignore[attr-defined]
    from torch.profiler import ProfilerActivity, profile

    kind = DeviceType.CUDA
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as watched:
        launch.take(1)
        _wait()
    if path is not None:
        watched.export_chrome_trace(str(path))
    rows = [
        (event.key, event.self_device_time_total / 1e6)
        for event in watched.key_averages()
        # What names a stretch of others counts their time once more.
        if event.device_type == kind and not event.is_user_annotation
    ]
    return sorted(rows, key=lambda row: -row[1])


_PARTS = {  # by the names of kernels; the first that is found
    "attention": re.compile("flash|sdpa|fmha", re.IGNORECASE),
    "products": re.compile("gemm|nvjet|cutlass|xmma", re.IGNORECASE),
    "clipping and update": re.compile("adam|multi_tensor_apply|lpnorm", re.IGNORECASE),
}
_OTHER = "norms, activations, loss, copies"


def shares_of(kernels: list[tuple[str, float]], step_s: float) -> dict[str, float]:
    """Return what parts of a step its kernels take, and the device's idle part, of its seconds.

    `step_s` is of steps that nobody watched. Copies that go on beside kernels count as well, so
    that the sum may be a little above one where nothing is idle; far above, something was counted
    twice: ValueError.
    """
    shares = dict.fromkeys([*_PARTS, _OTHER], 0.0)
    for name, seconds in kernels:
        part = next((part for part, names in _PARTS.items() if names.search(name)), _OTHER)
        shares[part] += seconds / step_s
    busy = sum(shares.values())
    if busy > 1.2:
        raise ValueError(f"kernels took {busy:.2f} times the step: {shares}")
    return {**shares, "the device idle": max(0.0, 1 - busy)}


def child(name: str, num_steps: int, sequences: int, out: Path | None, kinds: list[str]) -> None:
    """Print a JSON line for each kind of launch of a shape."""
    model = model_of(name)
    facts = facts_of(name, model)
    optimizer = build_optimizer(trainable_parameters(model), make_plan().science.optimizer)
    state = TrainState(Root(model), optimizer)
    for written in kinds:
        kind, _, micro = written.partition("@")
        training = TrainingRecipe(
            precision="bf16",
            compile="none" if kind == "eager" else "blocks",
            activation_checkpointing="auto",
        )
        plan = plan_of(facts, sequences, masked=kind != "whole windows", training=training)
        try:
            for module in model.modules():
                module.__dict__.pop("forward", None)
            torch._dynamo.reset()
            model.set_attn_implementation("sdpa")
            launch = Launch.of(state, plan, micro_batch=int(micro) if micro else None)
            found = measured(
                name, written, launch, max(3, num_steps // (2 if kind == "eager" else 1))
            )
            if written in ("compiled", "whole windows"):
                kernels = profile_of(launch, None if out is None else out / "trace.json")
                found["profile"] = [(name[:110], seconds) for name, seconds in kernels[:22]]
                try:
                    found["shares"] = shares_of(kernels, found["step_s"]) if kernels else {}
                except ValueError as error:
                    found["notices"] = [*found["notices"], str(error)]
            print("RESULT " + json.dumps(found), flush=True)
            if written in ("compiled", "whole windows"):
                off = against_float32(model, facts, launch)
                print("RESULT " + json.dumps({"shape": name, "of": kind, **off}), flush=True)
        except Exception as error:
            import traceback

            traceback.print_exc()
            print("RESULT " + json.dumps({"shape": name, "kind": kind, "error": str(error)[:300]}))


def figures_of(rows: list[dict[str, Any]]) -> list[Figure]:
    """Return figures in the form of all benchmarks."""
    figures = []
    for row in rows:
        if "limit" in row and "rate" in row:
            figures.append(Figure(row["limit"], row["rate"], row["unit"], "higher"))
        if "mfu" in row:
            what = f"{row['shape']}, {row['kind']}"
            goal = GOAL if row["shape"] == "1B" and row["kind"] == "compiled" else None
            figures += [
                Figure(f"{what}: MFU", row["mfu"], "", "higher", goal, "989 TFLOP/s"),
                Figure(f"{what}: rate", row["tokens_per_s"], "tokens/s", "higher"),
                Figure(f"{what}: peak memory", row["peak_gib"], "GiB", "lower"),
                Figure(f"{what}: memory estimate", row["planned_gib"], "GiB", "lower"),
                Figure(f"{what}: sequences at a time", row["micro_batch"], "", "higher"),
                Figure(f"{what}: waiting for data", row["wait_share"], "", "lower", 0.01, "steps"),
                Figure(f"{what}: time of the launch", row["took_s"], "s", "lower"),
            ]
            figures += [
                Figure(f"{what}: {part}, of a step", share, "", "lower")
                for part, share in row.get("shares", {}).items()
            ]
        if "total_s" in row:
            figures.append(Figure(f"{row['shape']}, in all: time", row["total_s"], "s", "lower"))
        if "loss_off" in row:
            what = f"{row['shape']}, {row['of']}, bf16 against plain float32"
            figures += [
                Figure(f"{what}: loss", row["loss_off"], "", "lower", 5e-3, "float32"),
                Figure(f"{what}: gradient", row["gradient_off"], "", "lower", 0.1, "float32"),
            ]
    return figures


_LIMITS = "limits"

_COLUMNS = (
    "shape, way",
    "MFU",
    "tokens/s",
    "at a time",
    "peak",
    "of the estimate",
    "waiting",
    "took",
)


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return a table for people of the launches among some rows, of limits too, and the formula."""
    lines = [
        (
            f"{row['shape']}, {row['kind']}",
            f"{row['mfu']:.3f}" if row["peak_gib"] else "–",
            f"{row['tokens_per_s']:,.0f}",
            f"{row['micro_batch']}",
            f"{row['peak_gib']:.1f} GiB" if row["peak_gib"] else "–",
            f"{row['peak_gib'] / row['planned_gib']:.2f}" if row["peak_gib"] else "–",
            f"{row['wait_share']:.2%}",
            f"{row['took_s']:.0f} s",
        )
        for row in rows
        if "mfu" in row
    ]
    told = [f"{row['limit']}: {row['rate']:.4g} {row['unit']}" for row in rows if "rate" in row]
    failed = [
        f"{row.get('limit') or '{shape}, {kind}'.format_map(row)}: {row['error']}"
        for row in rows
        if "error" in row
    ]
    if lines:
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *lines, strict=True)]
        for cells in (_COLUMNS, *lines):
            first, *others = (
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            told.append("  ".join([first, *others]))
        told += ["", FORMULA, f"Sequences of {LENGTH:,} tokens; on a CPU there is no MFU."]
    return "\n".join([*told, *failed])


def _is_of_others(taken: set[str], figure: str) -> bool:
    """Tell whether a figure on record is of a shape, or of the limits, that was not taken now."""
    shape = figure.partition(",")[0]
    return shape not in taken if shape in SHAPES else _LIMITS not in taken


def _told_by(command: list[str]) -> list[dict[str, Any]]:
    """Return the rows that a process prints, shown as they come; its errors where it has any."""
    rows = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("RESULT "):
                rows.append(json.loads(line[7:]))
                profiled = rows[-1].pop("profile", [])
                print(json.dumps(rows[-1]), flush=True)
                for key, seconds in profiled:
                    print(f"    {1e3 * seconds:7.1f} ms  {key}", flush=True)
        if process.wait() or any("error" in row for row in rows):
            errors.seek(0)
            print(errors.read()[-3000:], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES))
    parser.add_argument("--kinds", nargs="*", default=["eager", "compiled", "whole windows"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.shapes is None:
        given.shapes = [] if given.limits else list(SHAPES)[1:]
    if DEVICE == "cpu" and not given.child and given.shapes != ["tiny"]:
        sys.exit("no GPU that torch sees; --shapes tiny takes a look at the script on a CPU")
    if given.child == _LIMITS:
        for row in limits(LENGTH):
            print("RESULT " + json.dumps(row), flush=True)
        return
    if given.child:
        child(given.child, given.steps, given.sequences, given.out, given.kinds)
        return
    print(machine(), "torch", torch.__version__, flush=True)
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    for name in [*([_LIMITS] if given.limits else []), *given.shapes]:
        started = time.perf_counter()
        command = [
            sys.executable,
            __file__,
            "--child",
            name,
            "--steps",
            str(given.steps),
        ]
        command += ["--sequences", str(given.sequences), "--kinds", *given.kinds]
        command += [] if given.out is None else ["--out", str(given.out)]
        rows += (told := _told_by(command))
        if told:
            rows.append({"shape": name, "total_s": time.perf_counter() - started})
        if DEVICE == "cuda":  # what is measured stays, should another shape not come to its end
            taken = {row.get("shape", _LIMITS) for row in rows}
            write_results("gpu", figures_of(rows), stays=partial(_is_of_others, taken))
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"\n{table_of(rows)}\nall of it took {time.perf_counter() - began:.0f} s", flush=True)
    if given.out is not None:
        (given.out / "gpu-rows.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
