"""One evaluation, lm-evaluation-harness included, on many ranks and alone to compare with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from rewarm.distributed.fsdp import make_mesh, shard
from rewarm.distributed.world import ALONE, World, join, launched_world
from rewarm.evaluation.harness import open_harness
from rewarm.evaluation.held_out import bits_per_byte
from rewarm.evaluation.likelihood import evaluate
from rewarm.evaluation.suite import build_suite
from rewarm.evaluation.tasks import ClozeItem, MinimalPair, cloze, minimal_pairs
from rewarm.model.load import load_base
from rewarm.recipe.records import HarnessRecipe
from rewarm.records.facts import EvalRecord
from tests.support.harness_tasks import NAMES
from tests.support.held_out import FRAMING, ListedDocuments, byte_tokenizer, random_bodies
from tests.support.rank_jobs import TIMEOUT_S


def new_model(base: Path) -> nn.Module:
    """The tiny base, far from uniform so that a wrong token shows."""
    model = load_base(base)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model.train()


def measured(base: Path, tasks: Path, world: World = ALONE) -> list[EvalRecord]:
    """Figures of every kind; an odd number of batches, so that some rank has none left."""
    model = new_model(base)
    root: Any = None if world.is_alone else shard(model, make_mesh(world, "cpu"), param_dtype=None)
    lengths = [3, 60, 17, 90, 31, 8, 45]
    tokenizer = byte_tokenizer()
    suite = build_suite(
        [
            bits_per_byte(
                ListedDocuments(random_bodies(lengths, vocab_size=250)),
                domain="web",
                role="general",
                framing=FRAMING,
                max_bytes=10**6,
            ),
            cloze(
                [ClozeItem("abc", "d"), ClozeItem("xyz", "q"), ClozeItem("the quick", "brown")],
                domain="cloze",
                tokenizer=tokenizer,
                framing=FRAMING,
            ),
            minimal_pairs(
                [MinimalPair("a b c", "c b a"), MinimalPair("hello", "olleh")],
                domain="pairs",
                tokenizer=tokenizer,
                framing=FRAMING,
            ),
        ],
        sequence_length=64,
        tokens_per_batch=130,
    )
    harness = open_harness(
        HarnessRecipe(tasks=list(NAMES), include_path=str(tasks), max_items=9),
        recipe_folder=Path("/"),
        tokenizer=AutoTokenizer.from_pretrained(str(base)),
        max_length=128,
    )
    found = evaluate(model, suite, step=0, within=root, world=world)
    return found + harness.measure(model, step=0, within=root, world=world)


def measure(base: str, tasks: str, output: str) -> None:
    """Measure on these ranks; each writes what it has found."""
    with join(launched_world(), device_type="cpu", timeout_s=TIMEOUT_S) as world:
        records = measured(Path(base), Path(tasks), world)
        values = {f"{r.domain} {r.metric}": [r.value, *r.item_values] for r in records}
        Path(output, f"{world.rank}.json").write_text(json.dumps(values))
