"""`rewarm demo`: the whole road on one small machine, on text that every machine has.

A base of a few million parameters is pretrained on English technical prose; five recipes then
continue it at one budget; one table and one page say what each learned and forgot. Everything is
done by the same stages as the other verbs, from recipes that are written out to be read, and all
of it goes on where it was when the command is given again.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from rewarm import __version__
from rewarm.artifacts import fingerprint, make_folder, write_atomically
from rewarm.errors import RewarmError
from rewarm.planning.plan import Plan
from rewarm.planning.schedule import area_under
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.arms import ArmView, load_arm
from rewarm.stages.board import Board
from rewarm.stages.demo_experiment import experiment_text
from rewarm.stages.demo_text import DemoLimits, DemoText, harvest_demo_text
from rewarm.stages.job import command_line, keep_plan, open_job
from rewarm.stages.launches import Launch, num_cores, run_here, seen_whole, threads_of_each
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.terminated import TerminatedError, sigterm_raises, tell_stopped
from rewarm.units import format_count, format_duration

__all__ = ["ARMS", "DemoSizes", "run_demo"]

_BASE_RECIPE = """\
# The base: pretrained from scratch on the old domain, warm-up and cosine to a tenth.
name = "base"
prepared_folder = "prepared"

[base]
path = "new-model"
[base.pretraining]
peak_lr = {peak_lr}

[budget]
tokens = {base_tokens}
[batch]
tokens = {batch_tokens}
sequence_length = {sequence_length}

[schedule]
kind = "cosine"
peak_lr = "pretraining.peak"
final_lr = "peak/10"
warmup_fraction = 0.05

{sources}
[[phases]]
name = "pretraining"
weights = {{ old = 1.0 }}

[evaluation]
every_steps = {base_steps}
max_bytes_per_domain = 32000  # a glance: the arms measure the base on more
stride_fraction = 1.0
max_answers = 8

[checkpoints]
every_steps = {evaluate_every}
"""

_ARM_RECIPE = """\
# {description}
name = "{name}"
prepared_folder = "prepared"

[base]
path = "base"
[base.pretraining]  # as base.toml trained it
peak_lr = {peak_lr}
final_lr = {final_lr}
schedule = "cosine"
tokens = {base_tokens}
batch_tokens = {batch_tokens}
sequence_length = {sequence_length}

[budget]
tokens = {arm_tokens}
[batch]
tokens = {batch_tokens}

{schedule}
{sources}
{phases}
[evaluation]
every_steps = {evaluate_every}
max_bytes_per_domain = {held_out_bytes}
stride_fraction = 1.0
matched_continuation_items = {matched_items}
max_answers = {max_answers}

[checkpoints]
every_steps = {evaluate_every}
"""

_SOURCES = """\
[sources.old]  # English technical prose: docstrings, the language reference, descriptions
path = "{text}/old.jsonl"
role = "general"
held_out = 0.12
licence = "{old_licence}"

[sources.new]  # Python source of the standard library, docstrings and comments stripped
path = "{text}/new.jsonl"
role = "new"
held_out = 0.12
licence = "{new_licence}"

[sources.qa]  # questions from signatures and docstrings, held out by module
path = "{text}/qa.jsonl"
role = "qa"
group_field = "module"
question_field = "question"
answer_field = "answer"
held_out = 0.08
licence = "{qa_licence}"
"""

_FROM_FINAL = """\
[schedule]  # from the rate at which the base ended, no warm-up, cosine to a hundredth
peak_lr = "pretraining.final"
final_lr = "peak/100"
"""
_REWARMED = """\
[schedule]  # re-warmed to the pretraining's peak, re-decayed to a tenth
peak_lr = "pretraining.peak"
final_lr = "peak/10"
warmup_fraction = 0.05
"""
_NEW_ONLY = """\
[[phases]]
name = "new"
weights = { new = 1.0 }
"""
_OLD_ONLY = """\
[[phases]]
name = "old"
weights = { old = 1.0 }
"""
_REPLAY = """\
[[phases]]
name = "replay"
weights = { new = 0.75, old = 0.25 }
"""
# The QA share is above the paper's 6 to 11 %: a short run would see a handful of pairs otherwise.
_REUSE = """\
[[phases]]
name = "general"
weights = { new = 0.75, old = 0.25 }
until = { lr_below = "start/5" }

[[phases]]
name = "qa"
weights = { new = 0.525, old = 0.175, qa = 0.3 }
"""


@dataclass(frozen=True, slots=True)
class Arm:
    """One recipe of the comparison."""

    name: str
    description: str
    schedule: str
    phases: str


ARMS = (
    Arm("naive", "new text only, re-warmed to the pretraining's peak", _REWARMED, _NEW_ONLY),
    Arm("baseline", "continued on the old distribution alone", _FROM_FINAL, _OLD_ONLY),
    Arm(
        "reuse",
        "from the base's final rate; general blend, then QA blend at a fifth of it",
        _FROM_FINAL,
        _REUSE,
    ),
    Arm(
        "reuse-area-matched",
        "as reuse, the rate scaled until the area under it equals rewarm's",
        _FROM_FINAL + "match_area = {area}\n",
        _REUSE,
    ),
    Arm("rewarm", "re-warmed, re-decayed, a quarter replayed", _REWARMED, _REPLAY),
)


@dataclass(frozen=True, slots=True)
class DemoSizes:
    """How large the demo is; the defaults end within minutes on two cores."""

    num_old_characters: int = 4_000_000
    num_new_characters: int = 3_000_000
    num_qa_pairs: int = 15_000
    vocab_size: int = 2048
    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 3
    sequence_length: int = 256
    sequences_per_step: int = 8
    base_steps: int = 180
    arm_steps: int = 40
    peak_lr: float = 4e-3
    held_out_bytes: int = 20_000
    matched_items: int = 180
    max_answers: int = 40
    evaluate_every: int = 20

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step, base and arms alike."""
        return self.sequence_length * self.sequences_per_step

    def values(self) -> dict[str, object]:
        """Return what the recipes are filled with."""
        return {
            **asdict(self),
            "batch_tokens": self.batch_tokens,
            "base_tokens": self.base_steps * self.batch_tokens,
            "arm_tokens": self.arm_steps * self.batch_tokens,
            "final_lr": self.peak_lr / 10,
        }


def run_demo(folder: Path, sizes: DemoSizes | None = None) -> Path:
    """Take the whole road in `folder` and return the path of the comparison's page.

    SIGTERM lets what is under way save and end, as a key press does; SystemExit has the code then.
    """
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        with sigterm_raises():
            return _take_the_road(folder, sizes or DemoSizes(), console)
    except TerminatedError:
        command = shlex.join(["rewarm", "demo", "--folder", str(folder)])
        raise SystemExit(tell_stopped(command, say)) from None


def _take_the_road(folder: Path, sizes: DemoSizes, console: Console) -> Path:
    from rewarm.reporting.report import main_figure_svg, write_comparison_report
    from rewarm.reporting.terminal import arms_table

    started = time.monotonic()
    text = _harvest(folder / "text", sizes, console)
    # Another Python or other packages bring other text: that is another demo, in its own folder.
    key = fingerprint(
        [asdict(sizes), text.old.sha256, text.new.sha256, text.qa.sha256, __version__]
    )
    work = folder / f"demo-{key[:8]}"
    make_folder(work)
    _base(work, text, sizes, console)
    plans = _plan_arms(work, text, sizes)
    experiment = work / "experiment.toml"
    write_atomically(experiment, experiment_text(sizes.batch_tokens))
    _train_arms(work, plans, console)

    arms = _arm_views(work, plans)
    notes = _notes(plans, text)
    report = write_comparison_report(
        folder / "report.html", "Five ways to continue one base", arms, notes
    )
    write_atomically(folder / "figure.svg", main_figure_svg(arms))
    console.print()
    console.print(arms_table(arms))
    for note in notes:
        console.print(f"- {note}", markup=False, highlight=False)
    console.print(
        f"\n{format_duration(time.monotonic() - started)}. The report, one file that opens "
        f"offline:\n{report.resolve()}\n\nThree seeds instead of one: "
        f"{command_line('compare', experiment)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return report


def _harvest(folder: Path, sizes: DemoSizes, console: Console) -> DemoText:
    limits = DemoLimits(
        num_old_characters=sizes.num_old_characters,
        num_new_characters=sizes.num_new_characters,
        num_qa_pairs=sizes.num_qa_pairs,
    )
    with console.status("reading what Python and its packages bring") as status:
        return harvest_demo_text(
            folder,
            limits=limits,
            progress=lambda what, num_files: status.update(f"reading {what}: {num_files} files"),
        )


def _base(work: Path, text: DemoText, sizes: DemoSizes, console: Console) -> None:
    """Pretrain and export the base, unless it is there."""
    from rewarm.stages.export import export_run
    from rewarm.stages.train import train_plan

    if (work / "base" / "config.json").exists():
        console.print("the base is there already", markup=False, highlight=False)
    if not (work / "new-model" / "config.json").exists():
        _new_model(work / "new-model", text, sizes)
    recipe = work / "base.toml"
    write_atomically(recipe, _BASE_RECIPE.format(**sizes.values(), sources=_sources(work, text)))
    job = open_job(recipe)
    prepare_job(job, MODEL_TOOLS)
    if (work / "base" / "config.json").exists():
        return
    plan = plan_job(job, estimates_allowed=False)
    keep_plan(plan, job)
    console.print(
        f"pretraining a base of {format_count(plan.conduct.model.num_parameters)} parameters on "
        f"{format_count(plan.science.num_tokens)} tokens",
        markup=False,
        highlight=False,
    )
    _checked(train_plan(plan, job.run, command="rewarm demo", console=console))
    export_run(plan, job.run, output=work / "base", console=console)


def _checked(code: int) -> None:
    """Leave with the code of a training that was stopped; the same command goes on there."""
    if code:
        raise SystemExit(code)


def _new_model(folder: Path, text: DemoText, sizes: DemoSizes) -> None:
    """Write a Llama with random weights and a BPE tokenizer trained on the old domain."""
    from rewarm.artifacts import parse_json
    from rewarm.model.load import new_llama
    from rewarm.model.vocabulary import train_bpe

    def documents() -> Iterator[str]:
        with text.old.path.open("rb") as lines:
            for line in lines:
                yield parse_json(line)["text"]

    new_llama(
        folder,
        tokenizer_json=train_bpe(documents(), sizes.vocab_size),
        bos_token="<s>",
        eos_token="</s>",
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        max_positions=sizes.sequence_length,
        seed=1,
    )


def _sources(work: Path, text: DemoText) -> str:
    return _SOURCES.format(
        text=os.path.relpath(text.old.path.parent, work),
        old_licence=text.old.licence,
        new_licence=text.new.licence,
        qa_licence=text.qa.licence,
    )


def _plan_arms(work: Path, text: DemoText, sizes: DemoSizes) -> dict[str, Plan]:
    """Write and plan the arms' recipes; the area-matched one needs rewarm's area first."""
    plans: dict[str, Plan] = {}
    for arm in sorted(ARMS, key=lambda arm: "{area}" in arm.schedule):
        area = area_under(plans["rewarm"].science.schedule) if "{area}" in arm.schedule else 0.0
        recipe = work / f"{arm.name}.toml"
        values = {
            **sizes.values(),
            "name": arm.name,
            "description": arm.description,
            "schedule": arm.schedule.replace("{area}", repr(area)),
            "phases": arm.phases,
            "sources": _sources(work, text),
        }
        write_atomically(recipe, _ARM_RECIPE.format(**values))
        job = open_job(recipe)
        plans[arm.name] = plan_job(job, estimates_allowed=False)
        keep_plan(plans[arm.name], job)
    return {arm.name: plans[arm.name] for arm in ARMS}


def _train_arms(work: Path, plans: Mapping[str, Plan], console: Console) -> None:
    """Train all arms, as many side by side as cores allow, and show how far each is."""
    launches = [Launch(name, plan, RunFolder(work / "runs" / name)) for name, plan in plans.items()]
    num_workers = min(len(launches), num_cores())
    with Board(launches, console) as board:
        states = run_here(
            launches,
            command="rewarm demo",
            num_workers=num_workers,
            num_threads=threads_of_each(num_workers),
            show=board.show,
        )
    states = seen_whole(launches, states)
    for launch in launches:
        if states[launch.name] != "done":
            raise RewarmError(
                f"the training of {launch.name!r} did not come to its end:\n"
                f"{launch.run.last_lines()}\n"
                f"    → run the demo again, it goes on; {launch.run.output} says more"
            )


def _arm_views(work: Path, plans: Mapping[str, Plan]) -> list[ArmView]:
    descriptions = {arm.name: arm.description for arm in ARMS}
    return [load_arm(name, descriptions[name], RunFolder(work / "runs" / name)) for name in plans]


def _notes(plans: Mapping[str, Plan], text: DemoText) -> list[str]:
    ratio = area_under(plans["rewarm"].science.schedule) / area_under(
        plans["reuse"].science.schedule
    )
    return [
        "Intervals are evaluation noise of one seed: other held-out documents, not other runs.",
        f"A model of a few million parameters and a short run give the low rate of reuse very "
        f"little area: rewarm's is {ratio:.1f} times as large. The area-matched arm takes that "
        f"difference away.",
        f"Text: {text.old.licence}",
    ]
