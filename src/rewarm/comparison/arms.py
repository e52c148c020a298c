"""From an experiment to the recipe of each of its runs.

Paired seeds: the runs of one seed share the `seed` of their recipes, and everything drawn in a run
is a function of it: which window of a source comes as its j-th sample follows from (seed, source,
epoch), the dropout of a step from (seed, step). So arms of one blend see the same sequences in the
same steps, and arms of other blends the same sequences of each source in the same order.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewarm.artifacts import fingerprint
from rewarm.comparison.experiment import NOISE_FLOOR, ArmRecipe, WrittenExperiment
from rewarm.errors import Problem, Problems, RecipeError, UserError
from rewarm.order.shuffle import derive_key
from rewarm.planning.plan import Plan
from rewarm.recipe.load import recipe_of, recipe_tree
from rewarm.recipe.overrides import key_path, lay_over
from rewarm.recipe.reading import section_in
from rewarm.recipe.schema import Recipe
from rewarm.recipe.section import Section
from rewarm.records.comparison import ArmKind

__all__ = ["Arm", "ArmProblems", "arms_of", "order_seed", "pairing"]

_ITS_OWN = ("name", "seed", "run_folder")
_SEED_MARK = "{seed}"
# How a run is computed and kept, which its science does not hang on.
_NOT_CLAIMED = {
    "name",
    "seed",
    "run_folder",
    "prepared_folder",
    "training",
    "hardware",
    "checkpoints",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm with its recipe as a tree; paths in it are relative to `folder`."""

    name: str
    description: str
    kind: ArmKind
    tree: Mapping[str, Any]
    folder: Path
    from_scratch: bool
    budget_differs: str | None

    def recipe(self, seed: int) -> Recipe:
        """Return the recipe of the run with this seed; `{seed}` in `base.path` stands for it.

        Raises RecipeError with what is wrong, as a recipe's own problems.
        """
        tree = copy.deepcopy(dict(self.tree))
        tree["name"] = f"{self.name}-seed-{seed}"
        tree["seed"] = order_seed(seed) if self.kind == "noise floor" else seed
        base = tree.get("base")
        if isinstance(base, dict) and isinstance(base.get("path"), str):
            base["path"] = base["path"].replace(_SEED_MARK, str(seed))
        return recipe_of(tree, Problems())

    def claim(self) -> dict[str, Any]:
        """Return what this arm is, as far as its results hang on it."""
        recipe = recipe_of({**self.tree, "name": self.name, "seed": 0}, Problems())
        dumped = recipe.model_dump(mode="json", exclude=_NOT_CLAIMED)
        return {
            "recipe": fingerprint(dumped),
            "from_scratch": self.from_scratch,
            "budget_differs": self.budget_differs,
        }


def order_seed(seed: int) -> int:
    """Return the data order's seed of the control's copy that is paired with a seed."""
    return derive_key(seed, "noise floor") >> 2


def arms_of(written: WrittenExperiment) -> list[Arm]:
    """Return the arms, the control first and its copy (if wanted) last.

    Raises RecipeError with the mistakes of all arms together, each told of its arm.
    """
    problems = Problems()
    experiment = written.experiment
    beside = written.path.resolve().parent
    shared: tuple[dict[str, Any], Path] | None = None
    if any(arm.recipe is None for arm in experiment.arms.values()):
        shared = _base_recipe(experiment.recipe, beside, "recipe", problems)
    names = sorted(experiment.arms, key=lambda name: name != experiment.control)
    found: list[Arm] = []
    mistakes = ArmProblems()
    for name in names:
        arm = experiment.arms[name]
        base = shared
        if arm.recipe is not None:
            base = _base_recipe(arm.recipe, beside, f"arms.{name}.recipe", problems)
        if base is None:
            continue
        tree = _with_changes(base[0], arm, name, problems)
        kind: ArmKind = "control" if name == experiment.control else "arm"
        made = Arm(name, arm.description, kind, tree, base[1], arm.from_scratch, arm.budget_differs)
        try:
            made.recipe(experiment.seed_list[0])
        except UserError as error:
            mistakes.add(name, error)
        found.append(made)
    problems.extend(mistakes.told(len(found)))
    problems.raise_as(RecipeError)
    return [*found, _copy_of_control(found[0])] if experiment.noise_floor else found


def _copy_of_control(control: Arm) -> Arm:
    return Arm(
        NOISE_FLOOR,
        f"{control.name} again, its data in another order",
        "noise floor",
        control.tree,
        control.folder,
        control.from_scratch,
        control.budget_differs,
    )


def _base_recipe(
    recipe: str | dict[str, Any], beside: Path, where: str, problems: Problems
) -> tuple[dict[str, Any], Path] | None:
    if isinstance(recipe, dict):
        return recipe, beside
    path = beside / recipe
    try:
        return recipe_tree(path, problems), path.parent
    except RecipeError as error:
        problems.extend(Problem(where, f"{p.where}: {p.what}", p.fix) for p in error.problems)
        return None


def _with_changes(
    base: Mapping[str, Any], arm: ArmRecipe, name: str, problems: Problems
) -> dict[str, Any]:
    """Return a recipe's tree with an arm's changes: what is left out first, then what is set."""
    tree = copy.deepcopy(dict(base))
    for key in arm.without:
        path = key_path(key)
        if path is None or not _leave_out(tree, path):
            problems.add(
                f"arms.{name}.without", f"the recipe has no {key!r}", "leave it out of this list"
            )
    for path, value in _changes(arm.set, Recipe):
        shown = ".".join(path)
        if path[0] in _ITS_OWN:
            problems.add(
                f"arms.{name}.set.{shown}",
                "every run of a comparison gets its own",
                "leave it out; seeds are the experiment's, so that arms stay paired",
            )
        elif not lay_over(tree, path, value):
            problems.add(
                f"arms.{name}.set.{shown}", "the recipe has nothing there", "see docs/recipe.md"
            )
    return tree


def _changes(
    table: Mapping[str, Any], section: type[Section], place: Sequence[str] = ()
) -> Iterator[tuple[list[str], Any]]:
    """Yield (path, value) of what a table changes.

    Tables are gone into as far as they are sections of a recipe; what is a value there (a list, the
    weights of a phase) is replaced whole. A key with dots or brackets is a path by itself.
    """
    for key, value in table.items():
        path = [*place, key]
        if any(mark in key for mark in ".["):
            yield [*place, *(key_path(key) or [key])], value
            continue
        field = section.model_fields.get(key)
        inner = section_in(field.annotation) if field is not None else None
        if not isinstance(value, dict) or inner is None or not issubclass(inner, Section):
            yield path, value
        elif field is not None and typing.get_origin(field.annotation) is dict:
            for name, entry in value.items():
                if isinstance(entry, dict):
                    yield from _changes(entry, inner, [*path, name])
                else:
                    yield [*path, name], entry
        else:
            yield from _changes(value, inner, path)


def _leave_out(tree: Any, path: Sequence[str]) -> bool:
    """Take the value at a path out of a tree; False where there is none."""
    for part in path[:-1]:
        tree = tree.get(part) if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or path[-1] not in tree:
        return False
    del tree[path[-1]]
    return True


class ArmProblems:
    """Mistakes by arm, each told once: with the arms that make it, or as the recipe's own."""

    def __init__(self) -> None:
        self._arms_of: dict[Problem, list[str]] = {}

    def add(self, arm: str, error: UserError) -> None:
        """Note what is wrong with an arm."""
        for problem in error.problems:
            arms = self._arms_of.setdefault(problem, [])
            arms += [] if arm in arms else [arm]

    def told(self, num_arms: int) -> Iterator[Problem]:
        """Yield every problem, saying whose it is."""
        for problem, arms in self._arms_of.items():
            whose = "every arm" if len(arms) == num_arms else ", ".join(f"arms.{a}" for a in arms)
            yield Problem(f"{whose}: {problem.where}", problem.what, problem.fix)


def pairing(plan: Plan, control: Plan) -> str:
    """Return what a run shares with the control's run of the same seed."""
    one, other = plan.science.order(), control.science.order()
    if one == other and _texts(plan) == _texts(control):
        return "same sequences in the same steps"
    if one.seed != other.seed:
        return "nothing: its data come in another order"
    shared = _texts(plan).keys() & _texts(control).keys()
    alike = [name for name in shared if _texts(plan)[name] == _texts(control)[name]]
    if not shared:
        return "no source"
    if len(alike) < len(shared):
        other_way = ", ".join(sorted(shared - set(alike)))
        return f"not the sequences of {other_way}, which are cut or drawn otherwise"
    return "same sequences of each source in the same order"


def _texts(plan: Plan) -> dict[str, tuple[Any, ...]]:
    """Return by source all that its sequences and their order hang on beside the seed."""
    length = plan.science.sequence_length
    return {
        source.name: (source.key, source.bins, source.num_windows, source.drawing(), length)
        for source in plan.science.sources
    }
