"""`rewarm init`: the few questions that matter, then a commented recipe that `plan` accepts."""

from __future__ import annotations

import glob
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rewarm.artifacts import parse_json, write_atomically
from rewarm.errors import Problems, RecipeError, UserError
from rewarm.recipe.load import parse_recipe
from rewarm.stages.base import looks_like_hub_id
from rewarm.units import parse_count

__all__ = ["Answers", "recipe_text", "write_recipe"]

_DEFAULT_LENGTH = 2048
_LARGEST_BATCH = 524_288
_SMALL_CORPUS_BYTES = 100 * 2**20
_WANTED_STEPS = 200
# Used for 3B and 8B models by Guo et al. 2024; a stated stand-in where nothing is known.
_FALLBACK_LR = 3e-5


@dataclass(frozen=True, slots=True)
class Answers:
    """What the person said; None or empty where not asked or not answered."""

    base: str | None = None
    text: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    qa: tuple[str, ...] = ()
    budget: str | None = None
    peak_lr: float | None = None
    final_lr: float | None = None


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
    if answers.replay or answers.qa or answers.peak_lr or answers.final_lr:
        return answers

    def path(question: str) -> tuple[str, ...]:
        said = _asked(f"{question} (empty: none)", _trouble_with_text, "")
        return (said,) if said else ()

    def rate(question: str) -> float | None:
        said = _asked(f"{question} (empty: unknown)", _trouble_with_rate, "")
        return float(said) if said else None

    return replace(
        answers,
        replay=path("Text like the base's pretraining, to replay"),
        qa=path("JSONL with question and answer"),
        peak_lr=rate("Peak learning rate of the base's pretraining"),
        final_lr=rate("Final learning rate of the base's pretraining"),
    )


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


def recipe_text(answers: Answers, output: Path) -> str:
    """Return the commented recipe; paths are written as seen from the recipe's folder."""
    assert answers.base is not None
    assert answers.budget is not None
    folder = output.resolve().parent
    budget = parse_count(answers.budget)
    length = _sequence_length(answers.base)
    batch = _batch_tokens(budget, length)
    return "\n".join(
        [
            "# How to continue the pretraining of a model; `rewarm plan` shows what it comes to,",
            "# `rewarm run` takes the whole road. Any key can be overridden: -o budget.tokens=10M",
            f"name = {_quote(_name_from(output))}",
            "",
            "[base]",
            f"path = {_quote(_seen_from(folder, answers.base))}",
            "",
            *_pretraining(answers),
            "",
            "[budget]",
            f"tokens = {_quote(answers.budget)}  # never exceeded",
            "",
            "[batch]",
            f"tokens = {batch}  # per optimizer step: {budget // batch} steps",
            f"sequence_length = {length}",
            "",
            *_schedule(answers),
            "",
            *_sources(answers, folder),
            *_phases(answers),
        ]
    )


def _name_from(output: Path) -> str:
    """Return a legal name for the run, as near to the file's as letters without accents come."""
    plain = unicodedata.normalize("NFKD", output.stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:64]
    return name or "run"


def _pretraining(answers: Answers) -> list[str]:
    lines = ["[base.pretraining]  # what is known of how the base was trained"]
    for key, value in (("peak_lr", answers.peak_lr), ("final_lr", answers.final_lr)):
        lines.append(f"{key} = {value!r}" if value is not None else f"# {key} = 3e-4")
    lines.append("# sequence_length = 4096")
    return lines


def _schedule(answers: Answers) -> list[str]:
    if answers.final_lr or answers.peak_lr:
        peak = '"pretraining.final"  # continue where the pretraining ended: nothing jumps'
        if not answers.final_lr:
            peak += (
                "\n# The final rate is not known: the plan assumes a tenth of the peak, and says so"
            )
    else:
        peak = (
            f"{_FALLBACK_LR:g}  # ASSUMED: nothing is known of the base's rates\n"
            "# (3e-5 served 3B and 8B models, 3e-4 a 1.1B model in Guo et al. 2024). Better: give\n"
            '# base.pretraining above and write "pretraining.final" here'
        )
    return [
        "[schedule]  # Parmar et al. 2024: no warm-up, cosine to a hundredth",
        'kind = "cosine"',
        f"peak_lr = {peak}",
        'final_lr = "peak/100"',
        "warmup_fraction = 0.0",
    ]


def _sources(answers: Answers, folder: Path) -> list[str]:
    lines: list[str] = []
    given = (
        ("new", "new", answers.text, "what is to be learned"),
        ("replay", "replay", answers.replay, "like the pretraining: keeps what the base knows"),
        ("qa", "qa", answers.qa, "questions with answers, for the end of the run"),
    )
    for name, role, paths, comment in given:
        if not paths:
            continue
        shown = [_quote(_seen_from(folder, path)) for path in paths]
        lines += [
            f"[sources.{name}]  # {comment}",
            f"path = {shown[0]}" if len(shown) == 1 else f"path = [{', '.join(shown)}]",
            f'role = "{role}"',
            *(['question_field = "question"', 'answer_field = "answer"'] if role == "qa" else []),
            f"held_out = {_held_out(paths)}  # never trained on; measures learning and forgetting",
            "",
        ]
    return lines


def _held_out(paths: Sequence[str]) -> float:
    """Return 1 % of large corpora and 6 % of small ones, so that there is enough to measure on."""
    total = 0
    for path in paths:
        found = Path(os.path.expanduser(path))
        files = found.rglob("*") if found.is_dir() else [found]
        total += sum(file.stat().st_size for file in files if file.is_file())
    return 0.06 if 0 < total < _SMALL_CORPUS_BYTES else 0.01


def _phases(answers: Answers) -> list[str]:
    blend = {"new": 0.75, "replay": 0.25} if answers.replay else {"new": 1.0}
    if not answers.replay:
        lines = [
            "# Nothing is replayed: expect forgetting. Text like the pretraining's would help."
        ]
    else:
        lines = ["# 25 % replay for a strong shift, 5 % for a weak one (Ibrahim et al. 2024)."]
    if not answers.qa:
        return [*lines, "[[phases]]", 'name = "general"', f"weights = {_table(blend)}", ""]
    with_qa = {name: round(weight * 0.9, 4) for name, weight in blend.items()} | {"qa": 0.1}
    return [
        *lines,
        "[[phases]]",
        'name = "general"',
        f"weights = {_table(blend)}",
        'until = { lr_below = "start/5" }  # the switch of Parmar et al. 2024',
        "",
        "[[phases]]",
        'name = "qa"',
        f"weights = {_table(with_qa)}",
        "",
    ]


def _table(weights: dict[str, float]) -> str:
    return "{ " + ", ".join(f"{name} = {weight:g}" for name, weight in weights.items()) + " }"


def _quote(text: str) -> str:
    """Return a TOML basic string: JSON's, but for characters beyond U+FFFF and for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _seen_from(folder: Path, path: str) -> str:
    """Return an existing local path (or a glob's) as seen from the recipe; others as they are."""
    expanded = os.path.expanduser(path)
    stem = expanded.split("*", 1)[0]
    looks_local = os.path.exists(stem or ".") and (stem or "*" in path)
    if not looks_local or os.path.isabs(expanded):
        return expanded if looks_local else path
    return os.path.relpath(os.path.abspath(expanded), folder)


def _sequence_length(base: str) -> int:
    """Return the base's positions, at most 2,048; a hub id is not opened for this."""
    config = Path(os.path.expanduser(base)) / "config.json"
    try:
        value = parse_json(config.read_bytes())
        positions = value.get("max_position_embeddings") or value.get("n_positions")
        return min(int(positions), _DEFAULT_LENGTH)
    except (OSError, ValueError, TypeError, AttributeError):
        return _DEFAULT_LENGTH


def _batch_tokens(budget: int, length: int) -> int:
    """Return a whole number of sequences that gives about 200 steps, within usual batch sizes."""
    wanted = min(budget // _WANTED_STEPS, _LARGEST_BATCH)
    return max(length, wanted // length * length)


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
