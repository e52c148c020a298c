"""The command line on a machine that has nothing of a run but its recipe, its text and its base."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.records.run_folder import RunFolder
from tests.resume.test_kills import NUM_STEPS, final_hashes
from tests.support.road import make_reader_folder


def make_machine(folder: Path, recipe: str) -> Path:
    """Lay out what a user has: the same bytes on every machine, at other times."""
    make_reader_folder(folder)
    for number, path in enumerate(sorted(folder.rglob("*.txt"))):
        os.utime(path, (number, len(folder.name)))
    (folder / "recipe.toml").write_text(recipe)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_reader_folder(tmp_path_factory.mktemp("recipe"))
    flags = "--base my-model --text my-text --replay my-old-text --budget 18432 --peak-lr 1e-2"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "recipe.toml", *flags.split()]) == 0
    text = (folder / "recipe.toml").read_text().replace("tokens = 128 ", "tokens = 512 ")
    mirror = tmp_path_factory.mktemp("mirror") / "of the run"
    text += f'[checkpoints]\nevery_steps = 7\nmirror = "file://{mirror}"\n'
    return text + "[evaluation]\nevery_steps = 20\n[training]\nnum_threads = 1\n"


@pytest.fixture
def at(tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def go(name: str) -> Path:
        folder = tmp_path / name
        if not folder.exists():
            make_machine(folder, recipe)
            monkeypatch.chdir(folder)
            assert main(["prepare", "recipe.toml"]) == 0
        monkeypatch.chdir(folder)
        return folder

    return go


def test_the_same_command_goes_on_where_nothing_of_the_run_is(
    at: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Other folder, other times of the text's files, no run folder: the same bits."""
    lost = at("lost")
    without = ["-o", "name=whole", "-o", 'checkpoints={"every_steps"=7}']
    assert main(["train", "recipe.toml", *without]) == 0
    expected = final_hashes(RunFolder(lost / "runs" / "whole"))
    assert main(["train", "recipe.toml", "--until-step", "23"]) == 0
    records = RunFolder(lost / "runs" / "recipe").steps()
    shutil.rmtree(lost)
    capsys.readouterr()

    new = at("new")
    assert main(["train", "recipe.toml"]) == 0
    told = capsys.readouterr().out
    assert "restoring step-00000023 (" in told
    assert "resumed from step-00000023" in told
    run = RunFolder(new / "runs" / "recipe")
    assert final_hashes(run) == expected
    assert run.steps()[:23] == records
    assert [record.step for record in run.steps()] == list(range(NUM_STEPS))
    # The base was measured on the machine that is lost; changes are told against it.
    assert {record.step for record in run.evals()} >= {0, 1, 2, 4, 8, 16, 20, NUM_STEPS}
    assert f"step {NUM_STEPS} held-out: " in told
    assert "(+" in told.rpartition("held-out")[2] or "(-" in told.rpartition("held-out")[2]
    assert main(["report", "runs/recipe"]) == 0

    # A third machine gets the finished run, and can evaluate and export it.
    shutil.rmtree(new)
    third = at("third")
    assert main(["train", "recipe.toml"]) == 0
    assert final_hashes(RunFolder(third / "runs" / "recipe")) == expected
    assert main(["evaluate", "runs/recipe"]) == 0
    assert main(["export", "runs/recipe"]) == 0

    # A recipe that was changed is not gone on with, here as little as where the run began.
    fourth = at("fourth")
    capsys.readouterr()
    assert main(["train", "recipe.toml", "-o", "seed=2"]) == 2
    assert "seed: 1 → 2" in capsys.readouterr().err
    assert not RunFolder(fourth / "runs" / "recipe").has_begun()


def test_mistakes_in_the_mirror_are_told_by_plan(
    at: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    at("lost")
    told = {
        "moon://bucket/run": "no file system is called 'moon'",
        "bucket/run": "'bucket/run' is not the URL of a folder",
        "file://backup/run": "is not the URL of a folder",
        "simplecache::s3://bucket/run": "is not the URL of a folder",
        "s3://bucket/run?X-Amz-Signature=abcdef": "is not the URL of a folder",
        "ftp://me:geheim@host/run": "it holds a password",
        "ftp://me:ge/heim@host/run": "it holds a password",
        f"file://{Path.cwd()}/runs/recipe/copies": "lies within the run folder",
    }
    for url, what in told.items():
        assert main(["plan", "recipe.toml", "-o", f"checkpoints.mirror={url}"]) == 2, url
        said = capsys.readouterr().err
        assert what in said
        assert "checkpoints.mirror" in said
        assert "heim" not in said
        assert "abcdef" not in said
        assert "Traceback" not in said
    assert main(["plan", "recipe.toml", "-o", "checkpoints.mirror.x=ftp://me:geheim@host"]) == 2
    assert "heim" not in capsys.readouterr().err
