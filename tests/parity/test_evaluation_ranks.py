"""The same weights give the same figures on every number of ranks, tasks included."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.support.harness_tasks import make_harness_tasks
from tests.support.ranks import run_ranks
from tests.support.tiny_models import make_tiny_base

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed"
)


@pytest.mark.parametrize("num_ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_figures_do_not_depend_on_the_number_of_ranks(tmp_path: Path, num_ranks: int) -> None:
    from tests.support.rank_evaluation import measured

    base = make_tiny_base(tmp_path / "base")
    tasks = make_harness_tasks(tmp_path / "tasks")
    alone = {f"{r.domain} {r.metric}": [r.value, *r.item_values] for r in measured(base, tasks)}
    assert len(alone) == 3 + 8
    job = "tests.support.rank_evaluation:measure"
    run_ranks(job, str(base), str(tasks), str(tmp_path), num_ranks=num_ranks)
    for rank in range(num_ranks):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.keys() == alone.keys()
        for name, values in alone.items():
            assert found[name] == pytest.approx(values, rel=1e-6), name
