"""Muon beside AdamW: what an update costs, and what it gains in a comparison of short runs.

Cost is CPU time of one thread in turns, so that other work on the machine does not count: of the
update alone, and of the step that it is part of. Gain is what `rewarm compare
benchmarks/muon/experiment.toml` finds on the bases that `make reproduce` made (English → German,
131k tokens, three seeds); it is run where it was not, and left out where there are no bases.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from record import Figure, write_results
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from rewarm.cli import main as rewarm
from rewarm.planning.machine import cpu_multiplies_bf16
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.records.comparison import ComparisonResult
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.training.optimizer import (
    build_optimizer,
    masked_step,
    moments,
    set_learning_rate,
    trainable_parameters,
)

EXPERIMENT = Path(__file__).resolve().parent / "muon" / "experiment.toml"
WORK = EXPERIMENT.parents[2] / "reproduction" / "work"
LENGTH, ROWS, TURNS = 256, 16, 5
# Hidden, layers, intermediate.
SHAPES = {"6M": (256, 6, 688), "25M": (512, 7, 1376)}
KINDS = ("adamw", "muon")
GAINS = {
    "adaptation": ("learned of new text", "higher"),
    "forgetting": ("forgotten of old text", "lower"),
}


class Arm:
    """A model and its optimizer."""

    def __init__(self, kind: str, shape: tuple[int, int, int]) -> None:
        hidden, layers, intermediate = shape
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=4096,
                hidden_size=hidden,
                intermediate_size=intermediate,
                num_hidden_layers=layers,
                num_attention_heads=hidden // 64,
                num_key_value_heads=hidden // 64,
                max_position_embeddings=LENGTH,
                tie_word_embeddings=True,
            )
        ).train()
        recipe = OptimizerRecipe.model_validate({"kind": kind})
        self.optimizer = build_optimizer(trainable_parameters(self.model), recipe)
        self.half = cpu_multiplies_bf16()
        set_learning_rate(self.optimizer, 1e-4)

    def step(self, ids: torch.Tensor) -> tuple[float, float]:
        """Return the CPU seconds of a step's update, and of all of the step."""
        started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.half):
            loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        before = time.process_time()
        dtype = torch.bfloat16 if self.half else None
        masked_step(self.optimizer, skip=torch.tensor(False), product_dtype=dtype)
        ended = time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        return ended - before, ended - started


def cost_figures() -> list[Figure]:
    """Return what an update takes, as shares."""
    torch.set_num_threads(1)
    figures = []
    for name, shape in SHAPES.items():
        arms = {kind: Arm(kind, shape) for kind in KINDS}
        ids = torch.randint(4096, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
        taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for turn in range(TURNS + 1):
            for kind, arm in arms.items():
                found = arm.step(ids)
                if turn:
                    taken[kind].append(found)
        steps = [
            muon / adamw
            for (_, adamw), (_, muon) in zip(taken["adamw"], taken["muon"], strict=True)
        ]
        shares = {kind: statistics.median(u / s for u, s in taken[kind]) for kind in KINDS}
        sizes = [sum(t.numel() for t in moments(arms[kind].optimizer).values()) for kind in KINDS]
        told = f"{name}, {ROWS * LENGTH:,} tokens a step"
        figures += [
            Figure(
                f"{told}: step with Muon", statistics.median(steps), "", "lower", versus="AdamW's"
            ),
            *(
                Figure(f"{told}: update by {kind}", share, "", "lower", versus="its step")
                for kind, share in shares.items()
            ),
            Figure(f"{name}: moments of Muon", sizes[1] / sizes[0], "", "lower", versus="AdamW's"),
        ]
    return figures


def gain_figures() -> list[Figure]:
    """Return what the comparison found; nothing where its bases are missing."""
    if not (WORK / "bases").is_dir():
        print("no bases (make reproduce): the comparison is left out")
        return []
    folder = ComparisonFolder(WORK / "comparisons" / "muon")
    if not folder.result.exists() and rewarm(["compare", str(EXPERIMENT)]):
        raise SystemExit("the comparison did not come to its end")
    result = ComparisonResult.model_validate_json(folder.result.read_text(encoding="utf-8"))
    print(result.verdict)
    figures = []
    for effect in (*result.primary, *result.secondary):
        if effect.metric not in GAINS or effect.mean is None or effect.against != result.control:
            continue
        what, better = GAINS[effect.metric]
        told = f"{what}, {effect.arm} less AdamW, {len(effect.seeds)} seeds"
        ends = (("", effect.mean), (", low end of 95 %", effect.low), (", high end", effect.high))
        figures += [
            Figure(f"{told}{which}", value, "bits per byte", better)  # type: ignore[arg-type]
            for which, value in ends
            if value is not None
        ]
    for metric, (what, better) in GAINS.items():
        values = [run.values[metric] for run in result.runs_of(result.control) if run.values]
        figures.append(
            Figure(f"{what}, AdamW", statistics.fmean(values), "bits per byte", better)  # type: ignore[arg-type]
        )
    return figures


def main() -> None:
    write_results("muon", [*gain_figures(), *cost_figures()])


if __name__ == "__main__":
    main()
