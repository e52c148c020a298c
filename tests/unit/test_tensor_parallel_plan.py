"""What a plan says where matrices cannot be cut over so many ranks."""

from __future__ import annotations

from typing import Any

import pytest

from rewarm.errors import PlanError
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from tests.support.fake_facts import make_model_facts
from tests.unit.test_plan import CORPORA
from tests.unit.test_presets import HEAD

SIZES = {"num_heads": 8, "num_key_value_heads": 4, "intermediate_size": 64}
EIGHT_BIT = "optimizer.kind='adamw8bit'"


def plan_of(count: int, *overrides: str, **changes: Any) -> Plan:
    recipe = parse_recipe(HEAD, overrides=(f"training.tensor_parallel={count}", *overrides))
    facts = make_model_facts().model_copy(update={"model_type": "llama", **SIZES, **changes})
    return resolve(recipe, facts, CORPORA, base_folder="base")


def test_what_can_be_cut_is_planned() -> None:
    assert plan_of(4).conduct.training.tensor_parallel == 4
    assert plan_of(1, EIGHT_BIT, model_type="mamba", num_heads=3)


def test_it_is_no_matter_of_science() -> None:
    assert plan_of(4).fingerprint == plan_of(1).fingerprint


@pytest.mark.parametrize(
    ("overrides", "changes", "said"),
    [
        ([], {"model_type": "gpt2"}, "it was not held against one process for model type 'gpt2'"),
        ([], {"num_heads": 6}, "4 does not divide the base's 6 attention heads"),
        ([], {"num_key_value_heads": 2}, "4 does not divide the base's 2 key-value heads"),
        ([], {"intermediate_size": 66}, "4 does not divide the base's 66 intermediate units"),
        ([EIGHT_BIT], {}, "8-bit moments are cut by rows alone"),
    ],
)
def test_what_cannot_be_cut_is_told_with_the_number(
    overrides: list[str], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(4, *overrides, **changes)
    (problem,) = caught.value.problems
    assert (problem.where, problem.what) == ("training.tensor_parallel", said)


def test_all_of_it_is_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(3, EIGHT_BIT, model_type="gpt2")
    assert len(caught.value.problems) == 5
