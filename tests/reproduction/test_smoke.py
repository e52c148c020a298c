"""Every experiment of the reproduction goes through, in little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "reproduction"))

import suite  # noqa: E402

from rewarm.comparison.experiment import read_experiment  # noqa: E402

EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / "reproduction/experiments").glob("*.toml"))
SUITE = [sys.executable, str(REPOSITORY / "reproduction" / "suite.py")]


def data() -> Path:
    """The corpora: beside the checkout, or where REWARM_DATA says."""
    named = os.environ.get("REWARM_DATA")
    found = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (found / "text").is_dir():
        pytest.skip("the corpora are not here: name their folder in REWARM_DATA")
    return found


def listed(*options: str) -> list[list[str]]:
    said = subprocess.run(
        [*SUITE, "--list", *options], check=True, capture_output=True, text=True
    ).stdout
    return [line.split() for line in said.splitlines()]


def test_the_suite_keeps_to_its_budget_and_knows_every_experiment() -> None:
    rows = listed()
    assert {row[0] for row in rows[2:-1]} <= {*EXPERIMENTS}
    hours = rows[-1]
    assert hours[0] == "all"
    assert hours[2] == "h"
    assert int(hours[1]) < 3
    assert {row[0] for row in listed("--unbounded")} >= {*EXPERIMENTS, "bases", "all"}


@pytest.mark.parametrize(
    ("script", "name", "there", "lacks"),
    [
        ("suite.py", "german", "text", ("qa/xquad_de.jsonl.zst", "text/bundestag.jsonl.zst")),
        ("suite.py", "reuse", "text", ("qa/arc_easy_train.jsonl.zst",)),
        ("stream_suite.py", "domains", "images", ("text/code_python.jsonl.zst",)),
        ("stream_suite.py", "mnist-online", "images", ("images/mnist_12k.parquet",)),
    ],
)
def test_corpora_that_are_not_there_are_named_before_anything_is_made(
    script: str, name: str, there: str, lacks: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / there).mkdir()
    command = [sys.executable, str(REPOSITORY / "reproduction" / script)]
    finished = subprocess.run(
        [*command, "--smoke", "--data", str(tmp_path), name],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2, finished.stderr[-2000:]
    assert "Traceback" not in finished.stderr
    first, fix = finished.stderr.strip().splitlines()
    assert first.startswith(f"{tmp_path}: it lacks ")
    for file in lacks:
        assert file in first
    assert "--data FOLDER or REWARM_DATA" in fix


def test_every_file_that_is_looked_for_is_one_of_the_corpora() -> None:
    experiments = REPOSITORY / "reproduction" / "experiments"
    written = [read_experiment(experiments / f"{name}.toml") for name in suite.EVERY]
    there = {str(path.relative_to(data())) for path in data().rglob("*") if path.is_file()}
    assert suite._read(written) <= there


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_goes_through_in_little(name: str) -> None:
    finished = subprocess.run(
        [*SUITE, "--smoke", "--data", str(data()), name],
        check=False,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-2000:]
    assert "No verdict: one seed claims nothing about training" in finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_mixture_law_goes_through_in_little() -> None:
    """From the base and the arms of `german` in little, whose results are not touched."""
    folder = REPOSITORY / "reproduction"
    kept = {path: path.read_bytes() for path in (folder / "README.md", folder / "results/law.json")}
    written = folder / "work" / "smoke" / "work" / "law"
    (written / "law.json").unlink(missing_ok=True)
    law = [sys.executable, str(folder / "law.py"), "--smoke"]
    for command in ([*SUITE, "--smoke", "--data", str(data()), "german"], law):
        finished = subprocess.run(command, check=False, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-2000:]
    (held,) = json.loads((written / "law.json").read_text(encoding="utf-8"))["laws"]
    assert {arm["replay"] for arm in held["arms"]} == {0.0, 0.01, 0.05, 0.25, 0.5}
    assert "The run that the law had not seen" in finished.stdout
    assert {path: path.read_bytes() for path in kept} == kept
