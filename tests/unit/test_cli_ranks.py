"""Which verbs many processes may be launched for."""

from __future__ import annotations

import pytest

from rewarm.cli import main


@pytest.mark.parametrize("verb", ["plan", "prepare", "run", "evaluate", "export", "report"])
def test_a_verb_that_is_not_shared_is_refused_once(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main([verb, "recipe.toml"]) == 2
    said = capsys.readouterr().err
    assert f"run `rewarm {verb}` once" in said
    monkeypatch.setenv("RANK", "1")
    assert main([verb, "recipe.toml"]) == 2
    assert capsys.readouterr().err == ""


def test_a_mistake_is_told_by_the_main_rank_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["train", "no-such-recipe.toml"]) == 2
        said.append(capsys.readouterr().err)
    assert "no-such-recipe.toml" in said[0]
    assert said[1] == ""


def test_variables_that_make_no_sense_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "7")
    assert main(["train", "recipe.toml"]) == 1
    assert "RANK='7'" in capsys.readouterr().err
