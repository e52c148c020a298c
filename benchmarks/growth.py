"""How cost grows: with the sequence, the batch, the sources and the length of a run.

Each series is one line in a figure of docs/speed.md, drawn by the project's own reporting from
`results/growth.json` (`python benchmarks/growth.py --draw` draws it again and measures nothing).

sequence   tokens/s and peak memory of training steps at 256 to 4,096 tokens a sequence
batch      the same at 1, 2 and 4 times the sequences of a step, in micro-batches of one size
sources    the order of one step, and its window gather, with 1 to 1,000 sources
run        the order of one step at step 10 to 10^9, and a launch that resumes there

All seconds are processor time of one thread, so that other work on the machine does not count.
Training steps run in a process of their own each, in turns, with documents kept apart; the median
over rounds is told.

    python benchmarks/growth.py [--rounds 3] [--only sequence,batch,sources,run]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from record import RESULTS, Figure, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from order_lookup import order
from resume_position import resume_s

from rewarm.order.position import slots_of_step
from rewarm.reporting.curves import LineChart, Point, Series, line_figure
from rewarm.reporting.figures import Axis, standalone
from rewarm.reporting.theme import DARK, LIGHT

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "figures"
TOKENS = 4096
LENGTHS = (256, 512, 1024, 2048, 4096)
BATCHES = (1, 2, 4)
SOURCES = (1, 3, 10, 30, 100, 300, 1000)
STEPS = (10, 10**3, 10**5, 10**7, 10**9)
DOCUMENT = 600
VOCABULARY, HIDDEN, LAYERS = 4096, 256, 4
NUM_WARMUPS, NUM_STEPS = 1, 3
NUM_LOOKS = 15


class Way(NamedTuple):
    """A training step: sequences in all and at a time."""

    length: int
    num_sequences: int
    micro_batch: int


def train_in_this_process(way: Way) -> None:
    """Take steps on made-up documents; print the seconds of each and the peak's bytes."""
    import torch
    from torch.nn.utils import clip_grad_norm_
    from transformers import LlamaConfig, LlamaForCausalLM

    from rewarm.distributed.fsdp import Root
    from rewarm.model.document_attention import document_roads, installed_packages
    from rewarm.model.head_loss import HeadLoss
    from rewarm.model.packing import DocumentAttention
    from rewarm.planning.machine import cpu_multiplies_bf16
    from rewarm.recipe.steps import OptimizerRecipe
    from rewarm.training.optimizer import (
        build_optimizer,
        masked_step,
        set_learning_rate,
        trainable_parameters,
    )
    from rewarm.training.usage import MemoryMeter

    torch.set_num_threads(1)
    half = cpu_multiplies_bf16()
    meter = MemoryMeter("cpu")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=688,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=way.length,
            tie_word_embeddings=True,
        )
    ).train()
    roads = document_roads(
        device_type="cpu", half=half, dropout=False, installed=installed_packages()
    )
    DocumentAttention(roads, sequence_length=way.length).settle(model)
    root, objective = Root(model), HeadLoss(None)
    optimizer = build_optimizer(trainable_parameters(model), OptimizerRecipe())
    set_learning_rate(optimizer, 1e-4)
    positions = (torch.arange(way.length) % DOCUMENT).repeat(way.micro_batch, 1)
    meter.take_peak()
    seconds = []
    for _ in range(NUM_WARMUPS + NUM_STEPS):
        started = time.process_time()
        for _ in range(way.num_sequences // way.micro_batch):
            ids = torch.randint(VOCABULARY, (way.micro_batch, way.length + 1))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                nats, _ = root(objective, ids[:, :-1], ids[:, 1:], positions)
            (nats / (way.num_sequences * way.length)).backward()
            del nats
        clip_grad_norm_(model.parameters(), 1.0)
        masked_step(optimizer, skip=torch.tensor(False))
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.process_time() - started)
    peak = meter.take_peak().used_bytes - meter.process_bytes
    print(json.dumps({"steps_s": seconds[NUM_WARMUPS:], "peak_bytes": peak}))


def trained(ways: dict[float, Way], num_rounds: int) -> dict[str, list[Point]]:
    """Return tokens/s, and the peak in MiB, of each way."""
    taken: dict[float, list[tuple[float, float]]] = {at: [] for at in ways}
    for _ in range(num_rounds):
        for at, way in ways.items():
            command = [sys.executable, __file__, "--step", *map(str, way)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            tokens = way.length * way.num_sequences
            speed = tokens / statistics.median(found["steps_s"])
            taken[at].append((speed, found["peak_bytes"] / 2**20))
            print(f"  {way}: {speed:.0f} tokens/s, {taken[at][-1][1]:.0f} MiB", flush=True)
    return {
        "tokens/s": [Point(at, statistics.median(s for s, _ in r)) for at, r in taken.items()],
        "peak": [Point(at, statistics.median(p for _, p in r)) for at, r in taken.items()],
    }


def in_turns(acts: dict[float, Callable[[], float]], num_rounds: int) -> list[Point]:
    """Return the median of each, taken in turns."""
    taken: dict[float, list[float]] = {at: [] for at in acts}
    for number in range(num_rounds + 1):
        for at, act in acts.items():
            value = act()
            if number:
                taken[at].append(value)
    return [Point(at, statistics.median(values)) for at, values in taken.items()]


def order_s(num_sources: int, step: int | None = None) -> Callable[[], float]:
    """Return what times the order of one step of 1,024 samples: new ones each time where no step
    is named.
    """
    spec = order(num_sources, 10**6)
    rng = np.random.default_rng(0)

    def act() -> float:
        at = int(rng.integers(spec.num_steps)) if step is None else step + int(rng.integers(7))
        started = time.process_time()
        slots_of_step(spec, at)
        return time.process_time() - started

    return act


class Chart(NamedTuple):
    """A figure: its title, what it shows in words, axes."""

    title: str
    description: str
    x: Axis
    y: Axis


_TOKENS = Axis("tokens of a sequence", short="tokens", kind="log", form="count")
_SEQUENCES = Axis("sequences of a step, times", short="times", form="count")
_SPEED = Axis("tokens per second of one thread", short="tokens/s", floor=0.0)
_MEMORY = Axis("peak memory, MiB", floor=0.0)
CHARTS = {
    "growth-sequence-speed": Chart(
        "Tokens per second by the length of a sequence",
        "Training steps of one number of tokens, documents of 600 tokens kept apart.",
        _TOKENS,
        _SPEED,
    ),
    "growth-sequence-memory": Chart(
        "Peak memory by the length of a sequence",
        "Training steps of one number of tokens, documents of 600 tokens kept apart.",
        _TOKENS,
        _MEMORY,
    ),
    "growth-batch-speed": Chart(
        "Tokens per second by the batch",
        "One, two and four times the sequences of a step, in micro-batches of one size.",
        _SEQUENCES,
        _SPEED,
    ),
    "growth-batch-memory": Chart(
        "Peak memory by the batch",
        "One, two and four times the sequences of a step, in micro-batches of one size.",
        _SEQUENCES,
        _MEMORY,
    ),
    "growth-sources": Chart(
        "The order of a step by the number of sources",
        "Which windows a step of 1,024 samples shows, looked up anew in two phases.",
        Axis("sources", kind="log", form="count"),
        Axis("milliseconds", floor=0.0),
    ),
    "growth-run-order": Chart(
        "The order of a step by how far the run is",
        "Which windows a step of 1,024 samples shows, of three sources, early and late.",
        Axis("step", kind="log", form="count"),
        Axis("milliseconds", floor=0.0),
    ),
    "growth-run-resume": Chart(
        "A launch that resumes, by how far the run is",
        "From the launch of a tiny model to the end of the first step after a checkpoint.",
        Axis("step", kind="log", form="count"),
        Axis("milliseconds", floor=0.0),
    ),
}


def measured(parts: Iterable[str], num_rounds: int) -> dict[str, list[Point]]:
    """Return the points of each chart whose part is asked for."""
    found: dict[str, list[Point]] = {}
    if "sequence" in parts:
        of = trained({n: Way(n, TOKENS // n, TOKENS // n) for n in LENGTHS}, num_rounds)
        found["growth-sequence-speed"], found["growth-sequence-memory"] = of.values()
    if "batch" in parts:
        of = trained({n: Way(512, 4 * n, 4) for n in BATCHES}, num_rounds)
        found["growth-batch-speed"], found["growth-batch-memory"] = of.values()
    if "sources" in parts:
        acts: dict[float, Callable[[], float]] = {n: order_s(n) for n in SOURCES}
        found["growth-sources"] = _in_ms(in_turns(acts, NUM_LOOKS))
    if "run" in parts:
        acts = {n: order_s(3, n) for n in STEPS}
        found["growth-run-order"] = _in_ms(in_turns(acts, NUM_LOOKS))
        acts = {n: partial(resume_s, n, time.process_time) for n in STEPS}
        found["growth-run-resume"] = _in_ms(in_turns(acts, max(3, num_rounds)))
    return found


def _in_ms(points: Iterable[Point]) -> list[Point]:
    return [Point(point.x, 1e3 * point.y) for point in points]


_UNITS: dict[str, tuple[str, Literal["higher", "lower"]]] = {
    "speed": ("tokens/s", "higher"),
    "memory": ("MiB", "lower"),
}
_AT = ", at "


def figures_of(name: str, points: list[Point]) -> list[Figure]:
    """Return a chart's points, and its last one against its first."""
    unit, better = _UNITS.get(name.rpartition("-")[2], ("ms", "lower"))
    title = CHARTS[name].title
    first, last = points[0], points[-1]
    against = f"{title}: {last.x:g} against {first.x:g}"
    return [
        Figure(against, last.y / first.y, "", better),
        *(Figure(f"{title}{_AT}{point.x:g}", point.y, unit, better) for point in points),
    ]


def draw() -> None:
    """Draw every chart from the results that are on record, for light and dark pages."""
    rows = json.loads((RESULTS / "growth.json").read_text(encoding="utf-8"))
    for name, chart in CHARTS.items():
        points = [
            Point(float(row["name"].rpartition(_AT)[2]), row["value"])
            for row in rows
            if row["name"].startswith(chart.title) and _AT in row["name"]
        ]
        if not points:
            continue
        figure = line_figure(
            LineChart(
                title=chart.title,
                description=chart.description,
                x=chart.x,
                y=chart.y,
                series=(Series(chart.y.label, tuple(points), marks=True),),
            )
        )
        for ending, theme in (("", LIGHT), ("-dark", DARK)):
            (FOLDER / f"{name}{ending}.svg").write_text(standalone(figure, theme), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="How cost grows.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="sequence,batch,sources,run")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--step", type=int, nargs=3)
    options = parser.parse_args()
    if options.step:
        train_in_this_process(Way(*options.step))
        return
    if not options.draw:
        found = measured(options.only.split(","), options.rounds)
        taken = tuple(CHARTS[name].title for name in found)
        write_results(
            "growth",
            [f for name, points in found.items() for f in figures_of(name, points)],
            stays=lambda name: not name.startswith(taken),
        )
    draw()


if __name__ == "__main__":
    main()
