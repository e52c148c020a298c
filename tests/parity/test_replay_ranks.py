"""A share of old text that is raised on many ranks: the same samples and losses as alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewarm.planning.amendments import read_amendments
from rewarm.records.run_folder import RunFolder
from tests.support.rank_jobs import losses_of
from tests.support.rank_replay import replay_plan, train_replayed
from tests.support.ranks import run_ranks

JOB = "tests.support.rank_replay:train"


@pytest.mark.slow
def test_ranks_raise_the_share_as_one_process_does(tmp_path: Path) -> None:
    """Two ranks past the amendment of step 7, then one process to the end."""
    alone, ranks = tmp_path / "alone", tmp_path / "ranks"
    train_replayed(alone)
    run_ranks(JOB, str(ranks), "9", num_ranks=2)
    train_replayed(ranks)
    assert losses_of(ranks) == pytest.approx(losses_of(alone), rel=1e-12)
    fingerprint = replay_plan().fingerprint
    chains = [read_amendments(RunFolder(run).amendments, fingerprint) for run in (alone, ranks)]
    assert chains[0] == chains[1]
    assert [found.from_step for found in chains[0].chain] == [7]
    samples = [[found.samples for found in RunFolder(run).steps()] for run in (alone, ranks)]
    assert samples[0] == samples[1]
    assert samples[0][8] != samples[0][6]
