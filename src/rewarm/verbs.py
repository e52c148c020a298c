"""The verbs of the command line and their options, each handed to its stage.

Only here are imports lazy: `--help` and `plan` must answer at once, and torch takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rewarm import __version__
from rewarm.errors import FaultElsewhere, UserError

if TYPE_CHECKING:
    from rewarm.corpus.chat import ChatTemplate
    from rewarm.corpus.neighbours import Embedding
    from rewarm.corpus.scores import DocumentScorer, Scoring
    from rewarm.corpus.views import View
    from rewarm.recipe.records import HarnessRecipe
    from rewarm.stages.job import Job

__all__ = ["EndedError", "app"]

app = typer.Typer(
    name="rewarm",
    help="Continue the pretraining of a language model instead of training a new one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a TOML file.", show_default=False)]
RecipeOrRun = Annotated[
    Path, typer.Argument(help="The recipe (TOML) or a run folder.", show_default=False)
]
Override = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", help="Change one key, e.g. -o budget.tokens=10M."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before training.")]
UntilStep = Annotated[
    int | None, typer.Option(min=1, help="Stop (with a checkpoint) after this many steps.")
]
Sinks = Annotated[
    list[str] | None,
    typer.Option("--sink", help="Also send records to: tensorboard, wandb."),
]


class EndedError(Exception):
    """A verb's own exit code. Not click's: that is what a key press in any verb becomes."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _open_chat(folder: Path) -> ChatTemplate:
    """Open a base's chat template, which takes transformers: only where there are conversations."""
    from rewarm.model.chat_template import chat_renderer

    return chat_renderer(folder)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rewarm {__version__}")
        raise typer.Exit


def _check_alone(verb: str | None) -> None:
    """Refuse a verb that many processes were launched for, unless it is theirs to share."""
    if verb == "train" or os.environ.get("WORLD_SIZE", "1") == "1":
        return
    fix = f"run `rewarm {verb}` once, by itself; only `rewarm train` is launched by torchrun"
    if os.environ.get("RANK", "0") != "0":
        raise FaultElsewhere(0, "the verb is not for many processes", UserError.exit_code)
    raise UserError.one(f"rewarm {verb}", "it is not shared between processes", fix)


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print tracebacks of errors.")
    ] = False,
) -> None:
    """Continue the pretraining of a language model instead of training a new one."""
    if traceback:
        os.environ["REWARM_TRACEBACK"] = "1"
    _check_alone(context.invoked_subcommand)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-run"),
) -> None:
    """Take the whole road on this machine: base, five recipes, one table, one report."""
    from rewarm.stages.demo import run_demo

    run_demo(folder)


@app.command()
def init(
    output: Annotated[Path, typer.Argument(help="Recipe to write.")] = Path("recipe.toml"),
    base: Annotated[str | None, typer.Option(help="Folder or hub id of the base.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="New text: file, folder or glob; may be repeated.")
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="Text like the base's pretraining; may be repeated.")
    ] = None,
    qa: Annotated[
        list[str] | None, typer.Option(help="JSONL with question and answer; may be repeated.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help='Tokens to train on, e.g. "300M".')] = None,
    peak_lr: Annotated[
        float | None, typer.Option(help="Peak learning rate of the base's pretraining.")
    ] = None,
    final_lr: Annotated[
        float | None, typer.Option(help="Final learning rate of the base's pretraining.")
    ] = None,
    shift: Annotated[
        str | None,
        typer.Option(help="How far the new text is from the pretraining's: weak or strong."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="A preset by name, in place of the one that is advised.")
    ] = None,
    more_to_come: Annotated[
        bool, typer.Option("--more-to-come", help="Further data sets will follow.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the recipe.")] = False,
) -> None:
    """Ask the few questions that matter and write a commented recipe."""
    from rewarm.stages.init import write_recipe
    from rewarm.stages.init_recipe import Answers

    write_recipe(
        output,
        Answers(
            base=base,
            text=tuple(text or ()),
            replay=tuple(replay or ()),
            qa=tuple(qa or ()),
            budget=budget,
            peak_lr=peak_lr,
            final_lr=final_lr,
            shift=shift,  # type: ignore[arg-type]  # checked there, with everything else
            preset=preset,
            more_to_come=more_to_come,
        ),
        force=force,
    )


@app.command()
def plan(
    recipe: RecipePath,
    override: Override = None,
    why: Annotated[
        bool, typer.Option("--why", help="Say first which preset fits, and why the others do not.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Take a few steps on this machine first; estimates then stand on them."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
) -> None:
    """Resolve and check everything; show schedule, blends, epochs, cost and the reasons."""
    from rewarm.stages.plan import run_plan

    run_plan(recipe, override or (), as_json=as_json, why=why, probe=probe, open_chat=_open_chat)


@app.command()
def prepare(recipe: RecipePath, override: Override = None) -> None:
    """Read, check, split and tokenize the text of every source; score it where some is kept."""
    from rewarm.stages.prepare import ModelTools, run_prepare
    from rewarm.stages.selecting import ScoringModels

    models = ScoringModels(_base_scorer, _open_embedding)
    run_prepare(recipe, override or (), ModelTools(_open_chat, models, _harness_texts))


def _harness_texts(wanted: HarnessRecipe, folder: Path) -> Mapping[str, Sequence[str]]:
    """Return the texts of tasks of lm-evaluation-harness; it is loaded where some are named."""
    from rewarm.stages.harness import harness_texts

    return harness_texts(wanted, folder)


def _base_scorer(job: Job, scoring: Scoring, view: View) -> DocumentScorer:
    """Return what scores documents by the base's own loss; torch is loaded where that is asked."""
    from rewarm.stages.base_loss import base_scorer

    return base_scorer(job, scoring, view)


def _open_embedding(job: Job, folder: Path) -> Embedding:
    """Open a model that embeds texts; torch is loaded where that is asked."""
    from rewarm.stages.text_embedding import open_embedding

    return open_embedding(job, folder)


@app.command()
def rehearse(recipe: RecipePath, override: Override = None) -> None:
    """Let the base make up text to rehearse; the same command goes on where it was."""
    from rewarm.stages.rehearse import run_rehearse

    run_rehearse(recipe, override or ())


@app.command()
def train(
    recipe: RecipeOrRun,
    override: Override = None,
    until_step: UntilStep = None,
    sink: Sinks = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Watch some steps: a trace, and a page of where time went."),
    ] = False,
) -> None:
    """Train as planned; the same command resumes."""
    if profile:
        from rewarm.stages.profile import run_profiled_train as run_train
    else:
        from rewarm.stages.train import run_train

    raise EndedError(
        run_train(recipe, override or (), until_step=until_step, sinks=tuple(sink or ()))
    )


AtStep = Annotated[
    int | None,
    typer.Option(min=1, help="Checkpoint to go on from; default: the newest at a constant rate."),
]
NewName = Annotated[str | None, typer.Option(help="Of the new run, beside this one.")]
PlanOnly = Annotated[bool, typer.Option("--plan-only", help="Make the run, do not train it yet.")]
FinalLr = Annotated[
    float | None, typer.Option(min=0, help="Rate to anneal to; default: where the run would end.")
]


@app.command()
def branch(
    run: RecipeOrRun,
    anneal: Annotated[str, typer.Option(help='Tokens to anneal over, e.g. "20M".')],
    at_step: AtStep = None,
    shape: Annotated[
        str, typer.Option(help="exponential, linear, cosine, 1-sqrt or inverse-sqrt.")
    ] = "exponential",
    final_lr: FinalLr = None,
    weights: Annotated[
        str | None, typer.Option(help="Another blend for it, e.g. new=0.7,qa=0.3.")
    ] = None,
    name: NewName = None,
    plan_only: PlanOnly = False,
) -> None:
    """Anneal a copy of a run from a step of constant rate; the run itself may go on."""
    from rewarm.stages.continued import run_branch
    from rewarm.stages.continued_options import anneal_of, name_of

    chosen = anneal_of(anneal, shape, final_lr, weights)
    raise EndedError(
        run_branch(run, at_step=at_step, anneal=chosen, name=name_of(name), plan_only=plan_only)
    )


@app.command()
def extend(
    run: RecipeOrRun,
    budget: Annotated[str, typer.Option(help='Tokens to add, e.g. "+1B".')],
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose text and blends follow; default: the same.")
    ] = None,
    override: Override = None,
    at_step: AtStep = None,
    anneal: Annotated[
        str | None, typer.Option(help="Tokens of the extension, at its end, to anneal over.")
    ] = None,
    final_lr: FinalLr = None,
    name: NewName = None,
    plan_only: PlanOnly = False,
) -> None:
    """Go on with a run at its constant rate, on the same text or another recipe's."""
    from rewarm.stages.continued import run_extend
    from rewarm.stages.continued_options import extension_of, name_of

    chosen = extension_of(budget, recipe, override or (), anneal, final_lr)
    raise EndedError(
        run_extend(run, at_step=at_step, extension=chosen, name=name_of(name), plan_only=plan_only)
    )


@app.command()
def evaluate(
    recipe: RecipeOrRun,
    override: Override = None,
    model: Annotated[
        Path | None, typer.Option(help="Evaluate this model folder instead of the run's newest.")
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(help="Run from the same base on old text alone: its gap is taken off."),
    ] = None,
    joint: Annotated[
        Path | None,
        typer.Option(help="Run trained on old and new text together: what of it was recovered."),
    ] = None,
) -> None:
    """Measure held-out text, answers and tasks; print what was learned and what was forgotten."""
    from rewarm.stages.evaluate import run_evaluate

    run_evaluate(recipe, override or (), model=model, control=control, joint=joint)


@app.command()
def report(recipe: RecipeOrRun, override: Override = None) -> None:
    """Write the run's report, one HTML file that opens offline."""
    from rewarm.stages.report import run_report

    run_report(recipe, override or ())


@app.command()
def watch(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A recipe or run folder; an experiment file or a comparison's folder.",
            show_default=False,
        ),
    ],
    override: Override = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Default: 8473, or a free one where it is taken."),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Show a run's report, or an experiment, live on this machine alone; Ctrl-C ends it."""
    from rewarm.stages.watch import run_watch

    run_watch(recipe, override or (), port=port, open_browser=browser)


@app.command()
def export(
    recipe: RecipeOrRun,
    override: Override = None,
    output: Annotated[Path | None, typer.Option(help="Default: export in the run folder.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: the base's.")
    ] = None,
    average: Annotated[
        bool,
        typer.Option(
            "--average", help="The average of the weights (retention.ema), to export-average."
        ),
    ] = False,
) -> None:
    """Write a verified Hugging Face folder with a model card."""
    from rewarm.stages.export import run_export

    run_export(recipe, override or (), output=output, dtype=dtype, average=average)


@app.command()
def merge(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Folder, hub id, run folder, RUN@step or RUN@all; may be repeated."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="linear, slerp, average, task-arithmetic or chat-vector.")
    ] = "linear",
    base: Annotated[
        str | None, typer.Option(help="What the models began as; default: the run's own base.")
    ] = None,
    instruct: Annotated[
        str | None, typer.Option(help="chat-vector: the tuned model made from the base.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(help="w of the method's formula, one per model.")
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Measure many weights on the run's held-out text, pick one."),
    ] = False,
    grid: Annotated[
        str | None, typer.Option(help='--sweep: weights to measure; default: "0,0.1,…,1".')
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="--sweep: bits per byte that old text may lose; default: the knee."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Default: merged in the run folder.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: the base's.")
    ] = None,
) -> None:
    """Average the weights of several models into one verified Hugging Face folder."""
    from rewarm.stages.merge import MergeRequest, run_merge

    run_merge(
        MergeRequest(
            method=method,
            base=base,
            models=tuple(model or ()),
            instruct=instruct,
            weights=tuple(weight or ()),
            sweep=sweep,
            grid=grid or "",
            tolerance=tolerance,
            output=output,
            dtype=dtype,
        )
    )


@app.command()
def expand(
    base: Annotated[str, typer.Argument(help="Folder or hub id.", show_default=False)],
    output: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    every: Annotated[
        int | None, typer.Option(min=1, help="Copy each block of this distance, e.g. each 4th.")
    ] = None,
    copies: Annotated[
        int | None, typer.Option(min=1, help="Copy so many blocks, spread evenly.")
    ] = None,
) -> None:
    """Add copies of blocks that change nothing until they are trained, into a verified folder."""
    from rewarm.stages.expand import ExpandRequest, run_expand

    run_expand(ExpandRequest(base=base, output=output, every=every, copies=copies))


@app.command(name="extend-vocabulary")
def extend_vocabulary(
    base: Annotated[str, typer.Argument(help="Folder or hub id.", show_default=False)],
    text: Annotated[list[str], typer.Option(help="Text: file, folder or glob; may be repeated.")],
    tokens: Annotated[int, typer.Option(min=1, help="Pieces to add.", show_default=False)],
    output: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    text_field: Annotated[str, typer.Option(help="Field or column that holds the text.")] = "text",
) -> None:
    """Add trained pieces to a base's tokenizer, with rows for them, into a verified folder."""
    from rewarm.stages.vocabulary import VocabularyRequest, run_extend_vocabulary

    run_extend_vocabulary(
        VocabularyRequest(
            base=base,
            text=tuple(text),
            num_pieces=tokens,
            output=output,
            text_field=text_field,
        )
    )


@app.command()
def trace(
    recipe: RecipeOrRun,
    step: Annotated[int, typer.Option(min=0, help="0-based optimizer step.")],
    override: Override = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Print which documents of which sources a step saw (or will see)."""
    from rewarm.stages.trace import run_trace

    run_trace(recipe, override or (), step=step, as_json=as_json)


@app.command()
def inspect(
    target: Annotated[
        Path,
        typer.Argument(
            help="The recipe (TOML), a run folder, or a source's prepared folder.",
            show_default=False,
        ),
    ],
    source: Annotated[
        str | None, typer.Argument(help="One source of it; default: all.", show_default=False)
    ] = None,
    override: Override = None,
    document: Annotated[
        str | None, typer.Option(help="One document, by number (from 0) or id.")
    ] = None,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="What was rejected, with some of each reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="What was rejected for this reason.")] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Scores: how they lie, best, worst, at the cut.")
    ] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="Some of the windows that it is trained in.")
    ] = False,
    window: Annotated[int | None, typer.Option(help="One window, by number (from 0).")] = None,
    phase: Annotated[
        str | None, typer.Option(help="The first windows that this phase shows.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a window; default: the recipe's.")
    ] = None,
    packing: Annotated[
        str | None, typer.Option(help="contiguous or best-fit; default: the recipe's.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Held-out documents, not training ones.")
    ] = False,
    number: Annotated[
        int | None,
        typer.Option(
            "--number", "-n", min=1, help="How many documents, windows, rejects a reason."
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="How many tokens of each are shown.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another number draws others.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the base, where a prepared folder lost it.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write all of it into one HTML file instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at prepared text: sources, documents, rejects, scores, windows; as text or a page."""
    from rewarm.stages.inspect import InspectRequest, run_inspect

    run_inspect(
        target,
        override or (),
        InspectRequest(
            source=source,
            document=document,
            rejects=rejects,
            reason=reason,
            scores=scores,
            windows=windows,
            window=window,
            phase=phase,
            length=length,
            packing=packing,
            held_out=held_out,
            number=number,
            tokens=tokens,
            seed=seed,
            tokenizer=tokenizer,
            page=page,
            as_json=as_json,
        ),
    )


@app.command()
def tune(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe, a TOML file.", show_default=False)
    ] = None,
    override: Override = None,
    lr: Annotated[
        bool, typer.Option("--lr", help="Measure three constant learning rates in short runs.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Fit a law of replay to short runs, and ask it for a share."),
    ] = False,
    around: Annotated[
        float | None,
        typer.Option(help="Middle of the three rates; default: the peak of the recipe's schedule."),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens of each short run (--replay: of the longest but one); default: "
            "a fiftieth of the budget, and at least 40 steps each."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="--replay: bits per byte that old text may lose on the base; default 0.05."
        ),
    ] = None,
) -> None:
    """Measure in short runs what the plan would assume: --lr, the rate; --replay, the share of old
    text.

    The rule that picks an answer is printed before the runs begin. Each is a run folder under the
    recipe's; the same command goes on where it was, and done runs are skipped. The result goes to
    tune/lr.json or tune/replay.json in the run folder; the recipe is never edited.
    """
    from rewarm.stages.tune import run_tune

    raise EndedError(
        run_tune(
            recipe,
            override or (),
            lr=lr,
            replay=replay,
            around=around,
            tokens=tokens,
            tolerance=tolerance,
        )
    )


@app.command()
def compare(
    experiment: Annotated[
        Path, typer.Argument(help="The experiment, a TOML file.", show_default=False)
    ],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show arms, seeds, tokens, time and exposure; run nothing."),
    ] = False,
) -> None:
    """Run arms by seeds from one base at one budget, and say what may be said of them.

    Hypothesis and primary metrics stand in the file and are fixed once a run has begun. The same
    command goes on where it was; done runs are skipped, failed ones tried again.
    """
    from rewarm.stages.compare import run_compare

    raise EndedError(run_compare(experiment, dry_run=dry_run, open_chat=_open_chat))


@app.command()
def stream(
    experiment: Annotated[
        Path, typer.Argument(help="The experiment, a TOML file.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show scenario, learners and runs; run nothing.")
    ] = False,
) -> None:
    """Run backbones by learners by seeds over a stream: class after class, or corpus after corpus.

    The same command goes on where it was; done runs are skipped.
    """
    from rewarm.stages.stream import run_stream

    raise EndedError(run_stream(experiment, dry_run=dry_run))


@app.command()
def run(
    recipe: RecipePath, override: Override = None, yes: Yes = False, sink: Sinks = None
) -> None:
    """Take the whole road: plan, prepare, train, evaluate, report, export; skip what is done."""
    from rewarm.stages.run import run_road

    raise EndedError(run_road(recipe, override or (), yes=yes, sinks=tuple(sink or ())))
