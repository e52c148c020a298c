"""`rewarm init`: asks at a terminal until an answer can be used, and writes a legal recipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.recipe.load import load_recipe
from tests.support.road import make_reader_folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader_folder(tmp_path_factory.mktemp("init"))


def converse(folder: Path, answers: list[str], *arguments: str) -> tuple[int, str]:
    """Run `rewarm init` at a terminal that types these lines; return code and what was shown."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "rewarm", "init", *arguments],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
    )
    os.close(theirs)
    # Ctrl-D behind them: a question too many ends the conversation.
    os.write(ours, ("".join(f"{answer}\n" for answer in answers) + "\x04").encode())
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return child.wait(timeout=120), shown.decode().replace("\r", "")


def test_every_answer_is_checked_as_it_is_given(reader: Path) -> None:
    answers = [
        *("", "no-such-model", "my-text", "my-model"),
        *("no-such-text", "my-text"),
        *("many", "20k"),
        *("no-old-text", "my-old-text"),
        "",
        *("abc", "7", "1e-3"),
        "1e-4",
    ]
    code, shown = converse(reader, answers, "asked.toml")
    assert code == 0, shown
    for reason in (
        "an answer is needed",
        "there is no folder no-such-model, and a hub id looks like org/model",
        "my-text holds no config.json",
        "no-such-text matches no file and no folder",
        "'many' is not a count",
        "no-old-text matches no file",
        "'abc' is not a number",
        "7 is not a learning rate",
    ):
        assert reason in shown
    assert "()" not in shown
    recipe = load_recipe(reader / "asked.toml")
    assert recipe.base.path == "my-model"
    assert recipe.base.pretraining.peak_lr == 1e-3
    assert recipe.base.pretraining.final_lr == 1e-4
    assert recipe.budget.tokens == 20_000
    assert recipe.sources["replay"].path == "my-old-text"
    assert "qa" not in recipe.sources


def test_an_empty_answer_takes_what_is_known_of_the_base(reader: Path) -> None:
    (reader / "pythia").mkdir()
    config = {
        "model_type": "gpt_neox",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    }
    (reader / "pythia" / "config.json").write_text(json.dumps(config))
    answers = ["pythia", "my-text", "10M", "my-old-text", "", "", "2e-5"]
    code, shown = converse(reader, answers, "known.toml")
    assert code == 0, shown
    assert "it has the shape of Pythia 410M or Pythia 410M deduped" in shown
    assert "Peak learning rate of the base's pretraining (empty: 0.0003)" in shown
    recipe = load_recipe(reader / "known.toml")
    assert recipe.base.pretraining.peak_lr == 3e-4
    assert recipe.base.pretraining.final_lr == 2e-5


@pytest.mark.parametrize(
    ("output", "name"),
    [("é.toml", "e"), ("my recipe.toml", "my-recipe"), ("東京.toml", "run"), ("_x_.toml", "x")],
)
def test_the_name_is_legal_whatever_the_file_is_called(
    reader: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    name: str,
) -> None:
    monkeypatch.chdir(reader)
    (reader / "größer").mkdir(exist_ok=True)
    (reader / "größer" / "a.txt").write_text("some words " * 2000)
    flags = ["--base", "my-model", "--text", "größer", "--budget", "2k", "--peak-lr", "1e-3"]
    assert main(["init", output, *flags]) == 0
    assert load_recipe(reader / output).name == name
    assert "größer" in (reader / output).read_text()
    assert "assumes a tenth of the peak" in (reader / output).read_text()
    quoted = f"'{output}'" if not output.isascii() or " " in output else output
    assert f"rewarm plan {quoted}, then rewarm run {quoted}" in capsys.readouterr().out
