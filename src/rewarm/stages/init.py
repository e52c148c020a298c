"""`rewarm init`: the few questions that matter, then a commented recipe that `plan` accepts."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rewarm.artifacts import write_atomically
from rewarm.errors import Problems, RecipeError, UserError
from rewarm.planning.known_bases import Recognition, recognise, shape_in_config
from rewarm.recipe.load import parse_recipe
from rewarm.stages.base import looks_like_hub_id
from rewarm.stages.init_recipe import Answers, config_of, recipe_text, told
from rewarm.units import parse_count

__all__ = ["write_recipe"]


def write_recipe(output: Path, answers: Answers, *, force: bool) -> None:
    """Complete the answers (by asking, at a terminal), write the recipe, and try to plan it.

    Raises RecipeError where answers are missing and nobody can be asked, or the file is there.
    """
    if output.exists() and not force:
        raise RecipeError.one(
            str(output), "there is a file already", "give another name, or --force to overwrite it"
        )
    if sys.stdin.isatty() and sys.stdout.isatty():
        answers = _ask(answers)
    answers = _with_known_rates(answers)
    _check(answers)
    text = recipe_text(answers, output)
    parse_recipe(text, where=str(output))
    write_atomically(output, text)
    sys.stdout.write(f"written: {output}\n")
    _try_to_plan(output)


def _ask(answers: Answers) -> Answers:
    """Return the answers with those that were missing asked for, each until it can be used."""
    base = answers.base or _asked(
        "Base model (folder in Hugging Face format, or hub id)", _trouble_with_base
    )
    text = answers.text or (_asked("New text (file, folder or glob)", _trouble_with_text),)
    budget = answers.budget or _asked("Budget in tokens", _trouble_with_budget, "300M")
    answers = replace(answers, base=base, text=text, budget=budget)
    known = _recognised(base)
    if known is not None:
        sys.stdout.write(f"  {told(known)}\n")
    if answers.replay or answers.qa or answers.peak_lr or answers.final_lr:
        return answers

    def path(question: str) -> tuple[str, ...]:
        said = _asked(f"{question} (empty: none)", _trouble_with_text, "")
        return (said,) if said else ()

    def rate(question: str, key: Literal["peak_lr", "final_lr"]) -> float | None:
        fact = known.fact(key) if known is not None else None
        empty = "unknown" if fact is None else f"{fact.value:g}"
        trouble = _trouble_with_final_rate if key == "final_lr" else _trouble_with_rate
        said = _asked(f"{question} (empty: {empty})", trouble, "")
        if said:
            return float(said)
        return None if fact is None else float(fact.value)

    return replace(
        answers,
        replay=path("Text like the base's pretraining, to replay"),
        qa=path("JSONL with question and answer"),
        peak_lr=rate("Peak learning rate of the base's pretraining", "peak_lr"),
        final_lr=rate("Final learning rate of the base's pretraining", "final_lr"),
    )


def _recognised(base: str) -> Recognition | None:
    """Return what a folder's shape or a hub id tells of a base; a hub id is not opened for this."""
    config = config_of(base)
    return recognise((base,), None if config is None else shape_in_config(config))


def _with_known_rates(answers: Answers) -> Answers:
    """Return the answers with the base's rates where it is known and neither was given.

    Where one was given it is another pretraining than the table's, and the other stays open.
    """
    known = _recognised(answers.base) if answers.base else None
    if known is None:
        return answers
    if answers.peak_lr is None and answers.final_lr is None:
        peak, final = known.fact("peak_lr"), known.fact("final_lr")
        answers = replace(
            answers,
            peak_lr=None if peak is None else peak.value,
            final_lr=None if final is None else final.value,
        )
    return replace(answers, known=known)


def _asked(question: str, trouble: Callable[[str], str | None], default: str | None = None) -> str:
    """Return what a person answers, asking again with the reason while it cannot be used.

    An empty answer is the default; where the default is empty, it says that there is none.
    """
    from rich.prompt import Prompt
    from rich.text import Text

    while True:
        said = Prompt.ask(Text(question), default=default or "", show_default=bool(default)).strip()
        if not said and default == "":
            return said
        reason = trouble(said) if said else "an answer is needed"
        if reason is None:
            return said
        sys.stdout.write(f"  {reason}\n")


def _trouble_with_base(said: str) -> str | None:
    folder = os.path.expanduser(said)
    if os.path.isdir(folder):
        found = os.path.exists(os.path.join(folder, "config.json"))
        return None if found else f"{said} holds no config.json: it is no model's folder"
    if looks_like_hub_id(said):
        return None
    return f"there is no folder {said}, and a hub id looks like org/model"


def _trouble_with_text(said: str) -> str | None:
    pattern = os.path.expanduser(said)
    # Spelled out, a name may hold brackets and stars.
    if os.path.exists(pattern) or next(glob.iglob(pattern, recursive=True), None) is not None:
        return None
    return f"{said} matches no file and no folder"


def _trouble_with_budget(said: str) -> str | None:
    try:
        parse_count(said)
    except ValueError as error:
        return str(error)
    return None


def _trouble_with_rate(said: str) -> str | None:
    try:
        return None if 0 < float(said) < 1 else f"{said} is not a learning rate; e.g. 3e-4"
    except ValueError:
        return f"{said!r} is not a number; e.g. 3e-4"


def _trouble_with_final_rate(said: str) -> str | None:
    """A base may have been decayed to nothing, though none was trained at nothing."""
    try:
        return None if float(said) == 0 else _trouble_with_rate(said)
    except ValueError:
        return _trouble_with_rate(said)


def _check(answers: Answers) -> None:
    problems = Problems()
    if not answers.base:
        problems.add(
            "--base", "no base is given", "give a folder in Hugging Face format or a hub id"
        )
    if not answers.text:
        problems.add("--text", "no new text is given", "give a file, folder or glob")
    if not answers.budget:
        problems.add("--budget", "no budget is given", 'give the tokens to train on, e.g. "300M"')
    else:
        try:
            parse_count(answers.budget)
        except ValueError as error:
            problems.add("--budget", str(error), 'write e.g. "300M"')
    for flag, value in (("--peak-lr", answers.peak_lr), ("--final-lr", answers.final_lr)):
        if value is not None and not 0 <= value < 1:
            problems.add(flag, f"{value} is not a learning rate", "e.g. 3e-4")
    for path in (answers.base, *answers.text, *answers.replay, *answers.qa):
        if path is not None and any("\ud800" <= character <= "\udfff" for character in path):
            problems.add(ascii(path), "its name is not valid Unicode", "rename the file or folder")
    problems.raise_as(RecipeError)


def _try_to_plan(output: Path) -> None:
    """Check the recipe against base and text at once, so that a mistake shows now."""
    from rewarm.stages.job import command_line, open_job
    from rewarm.stages.plan import plan_job

    try:
        plan = plan_job(open_job(output), estimates_allowed=True)
    except UserError as error:
        sys.stdout.write(f"The recipe is written, but it cannot be planned yet:\n{error}\n")
        return
    lines: Sequence[str] = [f"  warning: {warning}" for warning in plan.warnings]
    steps = plan.science.num_steps
    sys.stdout.write(
        "".join(f"{line}\n" for line in lines)
        + f"It plans {steps} step{'' if steps == 1 else 's'}. "
        f"Next: {command_line('plan', output)}, then {command_line('run', output)}\n"
    )
