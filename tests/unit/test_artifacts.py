"""Files that are whole or absent, and what stands before what on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rewarm.artifacts import (
    append_json_line,
    parse_json,
    read_json_lines,
    temporary_folder,
    write_atomically,
)


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


_HOLDS_ONE = """
import sys, time
from pathlib import Path
from rewarm.artifacts import temporary_folder
with temporary_folder(Path(sys.argv[1]), ".model.writing-") as folder:
    (folder / "weights").write_bytes(b"half of them")
    print("there", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / ".model.writing-mine").write_text("a file of somebody's")
    (tmp_path / ".other.writing-12345678").mkdir()
    others = set(tmp_path.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS_ONE, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        with temporary_folder(tmp_path, ".model.writing-") as mine:
            assert mine.is_dir()
        (theirs,) = set(tmp_path.iterdir()) - others
        assert (theirs / "weights").is_file(), "it is being written"
        process.send_signal(signal.SIGKILL)
    assert theirs.is_dir()
    with temporary_folder(tmp_path, ".model.writing-") as mine:
        assert set(tmp_path.iterdir()) - others == {mine}
    assert set(tmp_path.iterdir()) == others


def test_a_temporary_folder_that_was_renamed_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path, ".model.writing-") as folder:
        (folder / "weights").write_bytes(b"all of them")
        folder.rename(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_bytes() == b"all of them"
