"""Tasks of lm-evaluation-harness on a model in memory, as records like those of any other domain.

Every figure of a task becomes a record: `arc_easy acc`, `arc_easy acc_norm`. Means keep a value per
question and perplexities nats and weights, so that changes are compared item by item; figures that
are taken over all items at once (F1 over a corpus, BLEU) have a value and no items. A group's
tasks are pooled, each question weighing alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval import evaluator
from lm_eval.api.metrics import bits_per_byte, mean, perplexity, weighted_perplexity
from lm_eval.tasks import TaskManager
from torch import nn

from rewarm.distributed.world import ALONE, World
from rewarm.errors import BaseModelError, EnvironmentFault, RecipeError
from rewarm.evaluation.harness_index import task_names
from rewarm.evaluation.harness_model import LiveModel
from rewarm.evaluation.likelihood import Scorer, Within, measuring
from rewarm.evaluation.statistics import ratio_standard_error
from rewarm.recipe.records import HarnessRecipe
from rewarm.records.facts import EvalRecord, Metric

__all__ = ["HarnessTasks", "open_harness", "read_texts"]

_FEWSHOT_SEED = 1234  # the harness's own
_FIELD = "evaluation.harness.tasks"


@dataclass(frozen=True, slots=True)
class HarnessTasks:
    """Tasks with their data loaded, by the names that the recipe has for them."""

    by_name: Mapping[str, Mapping[str, Any]]
    tokenizer: Any
    max_length: int
    max_items: int | None

    def measure(
        self,
        model: nn.Module,
        *,
        step: int,
        autocast_dtype: torch.dtype | None = None,
        within: Within | None = None,
        world: World = ALONE,
    ) -> list[EvalRecord]:
        """Return the records of a model after `step` updates; collective.

        A task that is named beside a group of it has each of its figures once.
        Raises BaseModelError where its loss is not finite, and RecipeError naming a task that the
        model cannot be asked.
        """
        lm = LiveModel(Scorer(model, world, within), self.tokenizer, max_length=self.max_length)
        found: dict[tuple[Metric, str], EvalRecord] = {}
        with measuring(model, autocast_dtype):
            for name, tasks in self.by_name.items():
                started = time.perf_counter()
                figures = _figures(lm, name, tasks, self.max_items)
                seconds = (time.perf_counter() - started) / max(1, len(figures))
                for figure in figures:
                    known = (figure.metric, figure.domain)
                    found.setdefault(known, figure.record(step, seconds))
        return list(found.values())

    def figures(self) -> set[tuple[Metric, str]]:
        """Return kind and domain of all records that there may be, without what filters add.

        A group's figures stand under its own name and its tasks': which of them are pooled the
        items tell.
        """
        found: set[tuple[Metric, str]] = set()
        for name, tasks in self.by_name.items():
            for own, task in tasks.items():
                higher = task.higher_is_better()
                for metric, aggregation in task.aggregation().items():
                    kind, _, _ = _items_of(aggregation, (), bool(higher.get(metric, True)))
                    found |= {(kind, f"{name} {metric}"), (kind, f"{own} {metric}")}
        return found

    def are_in(self, records: Iterable[EvalRecord]) -> bool:
        """Tell whether each task has a record among these."""
        heads = {record.domain.split(" ")[0] for record in records}
        return all(name in heads or heads.intersection(own) for name, own in self.by_name.items())


def open_harness(
    recipe: HarnessRecipe, *, recipe_folder: Path, tokenizer: Any, max_length: int
) -> HarnessTasks:
    """Load the tasks of a recipe with their data.

    Raises RecipeError for a name that the harness does not know and for what is in a person's own
    task files, EnvironmentFault where data cannot be loaded.
    """
    found = _load(recipe, recipe_folder)
    for tasks in found.values():
        for task in tasks.values():
            _settle(task, recipe.num_fewshot)
    return HarnessTasks(found, tokenizer, max_length, recipe.max_items)


def read_texts(recipe: HarnessRecipe, recipe_folder: Path) -> dict[str, list[str]]:
    """Return the texts of a recipe's tasks, by name: what text that is trained on must not hold.

    It is what a task itself is looked for by, where it says so; else what is asked, with each
    choice or with what is right. Raises as `open_harness` does.
    """
    found: dict[str, list[str]] = {}
    for name, tasks in _load(recipe, recipe_folder).items():
        texts = found[name] = []
        for own, task in tasks.items():
            try:
                for document in itertools.islice(task.eval_docs, recipe.max_items):
                    texts += _texts_of(task, document)
            except Exception as error:  # whatever a task's templates and code come to
                raise RecipeError.one(
                    _FIELD,
                    f"the items of {own!r} cannot be read: {type(error).__name__}: {error}",
                    "mend its file, or leave it out",
                ) from error
    return found


def _texts_of(task: Any, document: Any) -> list[str]:
    """Return the texts of an item, without examples before it and without what frames all items."""
    if task.should_decontaminate():
        return [str(task.doc_to_decontamination_query(document))]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return [str(task.doc_to_target(document))]
    asked = task.doc_to_text(document)
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(document)
        if isinstance(asked, str):
            return [asked, *(f"{asked} {choice}" for choice in choices)]
        # Texts to choose from, before one and the same end.
        return [f"{choice} {task.doc_to_target(document)}" for choice in choices]
    right = task.doc_to_target(document)
    return [f"{asked} {one}" for one in (right if isinstance(right, list) else [right])]


def _load(recipe: HarnessRecipe, recipe_folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the tasks of each name; raises as `open_harness` does."""
    own = None if recipe.include_path is None else recipe_folder / recipe.include_path
    local = task_names(own) if own is not None else frozenset()
    # The harness's own index takes many seconds: only where it is needed.
    needs_all = not local.issuperset(recipe.tasks)
    found: dict[str, Mapping[str, Any]] = {}
    # Data files of a person's own tasks are relative to the folder that these lie in.
    with _quiet_harness(), contextlib.chdir(own or Path.cwd()):
        manager = TaskManager(
            include_path=None if own is None else str(own), include_defaults=needs_all
        )
        for name in recipe.tasks:
            found.update(_loaded(manager, name, is_own=name in local))
    return found


def _loaded(manager: TaskManager, name: str, *, is_own: bool) -> dict[str, Mapping[str, Any]]:
    """Return the tasks of a name: a group's under its name, a tag's under their own.

    `is_own` where a file of the person's own names it.
    """
    if name not in manager.all_tasks:
        if is_own:
            raise RecipeError.one(
                _FIELD,
                f"a file in evaluation.harness.include_path names {name!r}, and the harness does "
                "not find it there",
                "see whether the file is valid YAML, and names it as its task, group or tag",
            )
        raise RecipeError.one(
            _FIELD,
            f"lm-evaluation-harness has no task, group or tag {name!r}",
            "look at `lm_eval ls tasks`, or give its file's folder as include_path",
        )
    try:
        loaded = manager.load([name])
    except Exception as error:  # whatever a task's code, data or network comes to
        raise EnvironmentFault(
            f"task {name!r} of lm-evaluation-harness cannot be loaded: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "look at its file and at what that names: data_files are relative to include_path"
            if is_own
            else "its data comes from the hub: be online, or name tasks of your own with "
            "evaluation.harness.include_path",
        ) from error
    tasks = dict(loaded["tasks"])
    if name in loaded.get("groups", {}):
        return {name: tasks}
    return {own: {own: task} for own, task in tasks.items()}


def _settle(task: Any, num_fewshot: int | None) -> None:
    """Give a task its number of examples, as the harness's own command does."""
    default = task.get_config("num_fewshot")
    if num_fewshot is not None and default != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif default is None:
        task.set_config(key="num_fewshot", value=0)


class _Figure(NamedTuple):
    """One metric of a task, or of a group's tasks together."""

    domain: str
    metric: Metric
    value: float
    values: tuple[float, ...]
    weights: tuple[int, ...]
    items_key: str

    def record(self, step: int, seconds: float) -> EvalRecord:
        error = ratio_standard_error(self.values, self.weights) if len(self.values) > 1 else None
        if error is not None and self.metric == "task_perplexity":
            error *= self.value
        elif error is not None and self.metric == "bits_per_byte":
            error /= math.log(2.0)
        return EvalRecord(
            step=step,
            domain=self.domain,
            role="task",
            metric=self.metric,
            value=self.value,
            standard_error=error,
            item_values=self.values,
            item_weights=self.weights,
            items_key=self.items_key,
            seconds=seconds,
        )


def _figures(
    lm: LiveModel, name: str, tasks: Mapping[str, Any], max_items: int | None
) -> list[_Figure]:
    for task in tasks.values():
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)  # the same examples at every evaluation
    try:
        with _quiet_harness():
            results = evaluator.evaluate(
                lm, {"tasks": dict(tasks)}, limit=max_items, bootstrap_iters=0, log_samples=True
            )
    except ValueError as error:
        raise RecipeError.one(
            _FIELD, f"{name!r} cannot be asked of this model: {error}", "leave it out"
        ) from error
    of_tasks = {
        own: list(_figures_of(own, task, results["samples"][own], results["results"][own]))
        for own, task in tasks.items()
    }
    figures = _pooled(name, of_tasks) if set(tasks) != {name} else of_tasks[name]
    for figure in figures:
        if not math.isfinite(figure.value):
            raise BaseModelError.one(
                figure.domain,
                "the figure is not finite",
                "the base is damaged or overflows in this precision (try float32); later on, lower "
                "the learning rate and resume from an earlier checkpoint",
            )
    return figures


def _figures_of(
    name: str, task: Any, samples: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> Iterator[_Figure]:
    """Yield a task's figures, each by metric and filter."""
    aggregations, higher = task.aggregation(), task.higher_is_better()
    by_filter: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_filter.setdefault(str(sample["filter"]), []).append(sample)
    for filter_name, own in by_filter.items():
        for metric, aggregation in aggregations.items():
            value = results.get(f"{metric},{filter_name}")
            if not isinstance(value, int | float):
                continue
            shown = "" if filter_name == "none" else f" ({filter_name})"
            of_items = [sample[metric] for sample in own if metric in sample]
            kind, values, weights = _items_of(aggregation, of_items, bool(higher.get(metric, True)))
            yield _Figure(
                f"{name} {metric}{shown}", kind, float(value), values, weights, _key_of(own)
            )


def _items_of(
    aggregation: Any, of_items: Sequence[Any], higher_is_better: bool
) -> tuple[Metric, tuple[float, ...], tuple[int, ...]]:
    """Return what kind of figure it is, and the items whose ratio it is; none where it is not."""
    if aggregation in (weighted_perplexity, bits_per_byte):
        kind: Metric = "bits_per_byte" if aggregation is bits_per_byte else "task_perplexity"
        return kind, tuple(-float(n) for n, _ in of_items), tuple(int(w) for _, w in of_items)
    if aggregation is perplexity:
        return "task_perplexity", tuple(-float(n) for n in of_items), (1,) * len(of_items)
    kind = "task_score" if higher_is_better else "task_loss"
    if aggregation is mean and all(isinstance(value, int | float) for value in of_items):
        return kind, tuple(map(float, of_items)), (1,) * len(of_items)
    return kind, (), ()


def _key_of(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return a fingerprint of what was asked: prompts and targets, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        asked = [sample["doc_id"], sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]]
        digest.update(json.dumps(asked).encode())
    return digest.hexdigest()


def _pooled(name: str, of_tasks: Mapping[str, Sequence[_Figure]]) -> list[_Figure]:
    """Return a group's figures over all items of its tasks; what does not add up stays by task."""
    by_metric: dict[tuple[str, Metric], list[_Figure]] = {}
    for own, figures in of_tasks.items():
        for figure in figures:
            key = figure.domain.removeprefix(f"{own} "), figure.metric
            by_metric.setdefault(key, []).append(figure)
    pooled: list[_Figure] = []
    for (metric_name, metric), found in by_metric.items():
        is_mean = metric in ("task_score", "task_loss") and all(figure.values for figure in found)
        if not is_mean or len(found) != len(of_tasks):
            pooled += found
            continue
        values = tuple(value for figure in found for value in figure.values)
        asked = hashlib.blake2b("".join(f.items_key for f in found).encode(), digest_size=16)
        pooled.append(
            _Figure(
                f"{name} {metric_name}",
                metric,
                sum(values) / len(values),
                values,
                (1,) * len(values),
                asked.hexdigest(),
            )
        )
    return pooled


@contextlib.contextmanager
def _quiet_harness() -> Iterator[None]:
    """Keep the harness's bars and log lines off the terminal; what it raises is not touched."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
