"""How long a plan of 1,000 sources takes, facts at hand: by tokens and by UniMax in two phases.

The ratio is to a plan of 10 sources in the same process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from record import Figure, median_s, write_results

from rewarm.order.blend import deal_cycle
from rewarm.order.position import _whole_phase
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.fake_facts import make_corpus_facts, make_model_facts

_HEAD = """
name = "x"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget.tokens = "1B"
batch = { tokens = 131_072, sequence_length = 128 }
"""


def seconds(num_sources: int, rule: str) -> float:
    corpora = {
        f"s{index}": make_corpus_facts(f"s{index}", num_tokens=2_000_000_000 // (index + 1))
        for index in range(num_sources)
    }
    text = _HEAD + "".join(f'[sources.{name}]\npath = "{name}"\nrole = "new"\n' for name in corpora)
    for name, until in (("a", "until.fraction = 0.7\n"), ("b", "")):
        text += f'[[phases]]\nname = "{name}"\nweights = "{rule}"\n{until}'

    def plan() -> None:
        deal_cycle.cache_clear()
        _whole_phase.cache_clear()
        resolve(parse_recipe(text), make_model_facts(), corpora, base_folder="base")

    return median_s(plan, repeats=5)


def main() -> None:
    figures = []
    for rule in ("tokens", "unimax"):
        many, few = seconds(1000, rule), seconds(10, rule)
        figures += [
            Figure(f"plan of 1,000 sources by {rule}", many, "s", "lower", 1.0),
            Figure(f"the same, of one of 10 ({rule})", many / few, "×", "lower"),
        ]
    write_results("plan_sources", figures)


if __name__ == "__main__":
    main()
