"""Files that are whole or absent, and what stands before what on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rewarm.artifacts import append_json_line, parse_json, read_json_lines, write_atomically


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every flush and every rename, in order, by the name of the file."""
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        done.append(("flush", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def note_replace(source: str | Path, target: str | Path) -> None:
        done.append(("name", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    return done


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    folder = tmp_path / "folder"
    write_atomically(folder / "f.json", "content")
    (flushed, named, settled) = calls
    assert flushed[0] == "flush"
    assert flushed[1].startswith(".f.json.")
    assert named == ("name", "f.json")
    assert settled == ("flush", "folder")
    assert [path.name for path in folder.iterdir()] == ["f.json"]


def test_a_durable_line_is_flushed_and_a_torn_one_is_closed(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    log = tmp_path / "log.jsonl"
    append_json_line(log, {"a": 1})
    assert calls == []
    append_json_line(log, {"a": 2}, durable=True)
    assert calls == [("flush", "log.jsonl")]
    log.write_bytes(log.read_bytes()[:-3])
    append_json_line(log, {"a": 3})
    assert list(read_json_lines(log)) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e400]"])
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a JSON number|is beyond the range"):
        parse_json(text)


def test_the_largest_numbers_are_read() -> None:
    assert parse_json("[1.7976931348623157e308, 1e-400]") == [1.7976931348623157e308, 0.0]
