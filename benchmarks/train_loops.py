"""One training loop over given windows, timed step by step and told as JSON.

    python benchmarks/train_loops.py LOOP SETTINGS.json

`benchmarks/train_peers.py` runs it, each time in a process of its own. All loops have one model,
the same windows in the same order, the same batch, precision, optimizer, decay and clipping.

rewarm     a launch as `rewarm train` makes it, with all that is on by default: documents masked,
           guard, records; no save falls among the steps; `rewarm, compiled` with blocks compiled
trainer    transformers' Trainer; `trainer, compiled` with torch_compile=True
litgpt     `litgpt.pretrain`, which always compiles; `litgpt, eager` with torch.compile left out
bare       a loop of ten lines over transformers' model; `bare, compiled` with it compiled

Steps are timed from one's end to the next one's, on a clock that each loop's own hook strikes; as
processor time of the process with one thread where the settings say that other work shares the
machine. After the steps that warm up, and after each turn of some steps from then on, the loop says
`turn` and waits for a line: so several such processes take turns, and a machine that drifts drifts
for all of them. The first step of a turn, with cold caches and threads that slept, is not timed.
Memory is the peak of the process's own pages until the last step, and what it held after each, less
what it had once all was imported and nothing loaded. Where the settings say so, the operators of
the last turn are watched, and what share of it each kind of work took is told.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from rewarm.model.load import base_without_weights
from rewarm.training.usage import MemoryMeter

LR = 1e-4
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0


class Settings(NamedTuple):
    """What all loops have in common; as JSON from the benchmark."""

    model: str
    windows: str
    output: str
    recipe: str
    num_sequences: int
    length: int
    num_steps: int
    num_warmups: int
    turn: int
    half: bool
    shared: bool
    watched: bool = False

    @property
    def clock(self) -> Callable[[], float]:
        """What tells the seconds."""
        return time.process_time if self.shared else time.perf_counter

    def rows(self) -> Tensor:
        """Return all windows, int64 [steps · sequences, length + 1], mapped from the disk."""
        return torch.from_numpy(np.load(self.windows, mmap_mode="c"))


PARTS = {
    "optimizer": ("optimizer", "Optimizer.step", "adamw", "vector_norm", "clip"),
    "attention": ("scaled_dot_product", "split_attention", "_Padded", "_Unpadded"),
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "mkldnn"),
}
"""What operators of a part of a step have in their names; all others lie between products."""


def part_of(event: Any) -> str:
    """Return the part that an operator belongs to, by its name or by what called it."""
    while event is not None:
        for part, names in PARTS.items():
            if any(name in event.name for name in names):
                return part
        event = event.cpu_parent
    return "between"


class Clock:
    """Struck at the end of each step; lets others have their turn in between."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.memory = MemoryMeter("cpu")
        self.memory.take_peak()
        self.begin()
        self.peak_bytes = 0
        self.profile: Any = None

    def begin(self) -> None:
        """Note that steps begin."""
        self.steps_s: list[float] = []
        self.held_bytes: list[int] = []
        self.began = self.settings.clock()

    def strike(self) -> None:
        """Note the end of a step; after the last of a turn, wait for the next turn."""
        self.steps_s.append(self.settings.clock() - self.began)
        self.held_bytes.append(MemoryMeter("cpu").process_bytes - self.memory.process_bytes)
        taken = len(self.steps_s) - self.settings.num_warmups
        if len(self.steps_s) == self.settings.num_steps:
            self.peak_bytes = self.memory.take_peak().used_bytes - self.memory.process_bytes
            if self.profile is not None:
                self.profile.stop()
        elif taken >= 0 and taken % self.settings.turn == 0:
            print("turn", file=sys.__stdout__, flush=True)
            if not sys.stdin.readline():
                raise SystemExit("nobody gives turns any more")
            if (
                self.settings.watched
                and self.settings.num_steps - len(self.steps_s) == self.settings.turn
            ):
                self.profile = torch.profiler.profile(activities=[ProfilerActivity.CPU])
                self.profile.start()
        self.began = self.settings.clock()

    def is_timed(self, step: int) -> bool:
        """Return whether a step, from 0, counts: warmed up and not the first of a turn."""
        taken = step - self.settings.num_warmups
        return taken >= 0 and taken % self.settings.turn > 0

    def told(self) -> dict[str, Any]:
        """Return seconds of a step, a mean for each turn; the peak, and what each step left."""
        steps = self.steps_s[: self.settings.num_steps]
        assert len(steps) == self.settings.num_steps, "the loop took fewer steps"
        warm, turn = self.settings.num_warmups, self.settings.turn
        turns = [steps[first : first + turn] for first in range(warm, len(steps), turn)]
        return {
            "turns_s": [statistics.mean(turn[1:]) for turn in turns],
            "warm_up_s": sum(steps[:warm]),
            "peak_bytes": self.peak_bytes,
            "held_bytes": self.held_bytes[: self.settings.num_steps],
            **({} if self.profile is None else {"parts": self._parts(sum(steps[-turn:]))}),
        }

    def _parts(self, seconds: float) -> dict[str, float]:
        """Return what share of the last turn each part took; in the rest no operator ran."""
        found = dict.fromkeys([*PARTS, "between"], 0.0)
        for event in self.profile.events():
            found[part_of(event)] += event.self_cpu_time_total / 1e6 / seconds
        return found


def load(settings: Settings) -> Any:
    """Return transformers' model in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32).train()


def bare(settings: Settings, *, compiled: bool) -> dict[str, Any]:
    """Take the steps without any library but the model's."""
    base_without_weights(Path(settings.model))
    clock = Clock(settings)
    model = load(settings)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=True
    )
    for rows in torch.split(settings.rows(), settings.num_sequences):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.half):
            loss = run(input_ids=rows[:, :-1], labels=rows[:, :-1]).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.strike()
    return clock.told()


def trainer(settings: Settings, *, compiled: bool) -> dict[str, Any]:
    """Take the steps by transformers' Trainer, as its arguments come but for what is compared."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    base_without_weights(Path(settings.model))
    clock = Clock(settings)

    class Strike(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.strike()

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any, **__: Any) -> None:
            """Return none: windows come as they lie."""

    arguments = TrainingArguments(
        output_dir=settings.output,
        max_steps=settings.num_steps,
        per_device_train_batch_size=settings.num_sequences,
        learning_rate=LR,
        weight_decay=DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        bf16=settings.half,
        torch_compile=compiled,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = settings.rows()
    data = [{"input_ids": row[:-1], "labels": row[:-1]} for row in rows]
    InOrder(model=load(settings), args=arguments, train_dataset=data, callbacks=[Strike()]).train()
    return clock.told()


def litgpt(settings: Settings, *, compiled: bool) -> dict[str, Any]:
    """Take the steps by `litgpt.pretrain.setup` over its own model of the same shape."""
    from litgpt import Config, pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule
    from torch.utils.data import DataLoader

    shape = json.loads((Path(settings.model) / "config.json").read_text(encoding="utf-8"))
    config = Config(
        name="same",
        block_size=settings.length,
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        n_layer=shape["num_hidden_layers"],
        n_head=shape["num_attention_heads"],
        n_query_groups=shape["num_key_value_heads"],
        n_embd=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
    )
    clock = Clock(settings)
    fetched = iter(range(1 + settings.num_steps))

    class Windows(DataModule):  # type: ignore[misc]
        """The windows; the loop fetches a batch when a step has ended, but for the first."""

        def connect(self, *_: Any, **__: Any) -> None:
            self.rows: Any = settings.rows()

        def train_dataloader(self) -> Any:
            return DataLoader(
                self.rows, batch_size=settings.num_sequences, collate_fn=self.collated
            )

        def val_dataloader(self) -> Any:
            return DataLoader(self.rows[:1], batch_size=1)

        def collated(self, rows: list[Tensor]) -> Tensor:
            if next(fetched, 0) > 0:
                clock.strike()
            else:
                clock.begin()
            return torch.stack(rows)

    if not compiled:
        torch.compile = lambda model: model  # type: ignore[assignment]
    pretrain.save_checkpoint = lambda *_, **__: None
    pretrain.setup(
        model_name="same",
        model_config=config,
        out_dir=Path(settings.output),
        precision="bf16-mixed" if settings.half else "32-true",
        data=Windows(),
        train=TrainArgs(
            save_interval=None,
            log_interval=10**9,
            global_batch_size=settings.num_sequences,
            micro_batch_size=settings.num_sequences,
            max_tokens=settings.num_steps * settings.num_sequences * settings.length,
            max_norm=CLIP,
            min_lr=LR,
            lr_warmup_steps=0,
            tie_embeddings=shape["tie_word_embeddings"],
        ),
        eval=EvalArgs(interval=10**9, final_validation=False),
        optimizer={
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": LR, "betas": list(BETAS), "weight_decay": DECAY},
        },
        devices=1,
        logger_name="csv",
    )
    return clock.told()


def rewarm(settings: Settings, *, compiled: bool) -> dict[str, Any]:
    """Take the steps as a launch does, evaluations left out."""
    from rich.console import Console

    from rewarm.records.run_folder import RunFolder
    from rewarm.stages.job import keep_plan, open_job
    from rewarm.stages.plan import plan_job
    from rewarm.stages.train import train_plan

    overrides = [f'run_folder="{settings.output}"']
    if compiled:
        overrides.append('training.compile="blocks"')
    job = open_job(Path(settings.recipe), overrides)
    plan = plan_job(job, estimates_allowed=False)
    plan = plan.model_copy(
        update={"conduct": plan.conduct.model_copy(update={"evaluation_steps": ()})}
    )
    keep_plan(plan, job)
    run = RunFolder(Path(settings.output))
    base_without_weights(Path(settings.model))
    clock = Clock(settings)

    class Strike:
        def before_train(self, state: Any, /) -> None: ...

        def after_step(self, state: Any, record: Any, /) -> None:
            clock.strike()

        def on_stop(self, state: Any, /) -> None: ...

    train_plan(
        plan,
        run,
        command="",
        console=Console(quiet=True),
        hooks=[Strike()],
        until_step=settings.num_steps,
    )
    # Windows are gathered ahead, in the pause between turns too: that can hide a wait of the steps
    # after it. `window_gather.py` measures the loading by itself.
    timed = [record for step, record in enumerate(run.steps()) if clock.is_timed(step)]
    waits = sum(record.data_wait_s for record in timed) / sum(r.step_s for r in timed)
    return {**clock.told(), "data_wait_share": waits}


LOOPS: dict[str, Callable[..., dict[str, Any]]] = {
    "rewarm": rewarm,
    "trainer": trainer,
    "litgpt": litgpt,
    "bare": bare,
}


def names() -> Iterator[str]:
    """Yield how loops are called."""
    for name in LOOPS:
        yield from (name, f"{name}, compiled") if name != "litgpt" else (f"{name}, eager", name)


def main() -> None:
    warnings.simplefilter("ignore")
    name, path = sys.argv[1:]
    settings = Settings(**json.loads(Path(path).read_text(encoding="utf-8")))
    loop, _, way = name.partition(", ")
    out, sys.stdout = sys.stdout, sys.stderr
    found = LOOPS[loop](settings, compiled=way == "compiled" or name == "litgpt")
    print(json.dumps(found), file=out)


if __name__ == "__main__":
    main()
