"""What readers take, what they reject and count, and what stops them: every file named."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from rewarm.corpus.inputs import find_inputs, resolve_inputs
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.corpus.streams import Caps, read_lines
from rewarm.errors import CorpusError, Problems
from rewarm.recipe.sources import SourceRecipe


def source(path: str = "*.jsonl", **fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"path": path, "role": "new", **fields})


def texts(path: Path, recipe: SourceRecipe, **caps: Any) -> tuple[list[str], dict[str, int]]:
    rejections = Rejections()
    found = [d.text for d, _ in read_documents(path, recipe, rejections, Caps(**caps))]
    return found, dict(rejections.counts)


def test_jsonl_is_read_in_all_its_wrappings(tmp_path: Path) -> None:
    raw = b'{"text": "one"}\n\n{"text": "tw\\u00f6"}'
    for name, content in {
        "a.jsonl": raw,
        "a.jsonl.gz": gzip.compress(raw) + gzip.compress(b'\n{"text": "three"}'),
        "a.jsonl.zst": zstandard.compress(raw) + zstandard.compress(b'\n{"text": "three"}'),
    }.items():
        (tmp_path / name).write_bytes(content)
        expected = ["one", "twö"] + (["three"] if name != "a.jsonl" else [])
        assert texts(tmp_path / name, source()) == (expected, {})


def test_bad_documents_are_counted_by_reason(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b'{"text": "\xff"}',
        b'{"text": "a\\ud800"}',
        b'{"text": "a\\u0000b"}',
        b'\xef\xbb\xbf{"text": "marked"}',
        b'{"text": "\\ufeffmarked inside"}',
        b'{"text": "joined \\ufeffblindly"}',
        b'{"text": ',
        b'{"text": NaN}',
        b"[" * 100_000,
        b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"text": 7}',
        b'{"other": "x"}',
        b'{"text": "  "}',
        b'["text"]',
        b'{"text": "' + b"x" * 300_000 + b'"}',
        b'{"text": "also good"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    found, counts = texts(tmp_path / "a.jsonl", source(), line_bytes=250_000)
    assert found == ["good", "also good"]
    assert counts == {
        "invalid_utf8": 1,
        "lone_surrogate": 1,
        "nul": 1,
        "bom": 3,
        "malformed_json": 4,
        "not_a_string": 1,
        "missing_field": 1,
        "empty": 1,
        "not_an_object": 1,
        "line_too_long": 1,
    }


def test_a_rejection_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n{}\n')
    rejections = Rejections()
    list(read_documents(tmp_path / "a.jsonl", source(), rejections))
    assert rejections.examples == ["a.jsonl:2 (missing_field)"]


def test_a_line_without_end_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    """A sparse line of 1 GB: were it read whole, the process would grow by as much."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.seek(10**9)
        file.write(b'\n{"text": "after"}\n')
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, counts = texts(path, source(), line_bytes=2**20)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (found, counts) == (["after"], {"line_too_long": 1})
    assert grown_kib < 100 * 1024


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_bomb_is_stopped(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bomb.jsonl{ending}"
    content = b"\0" * 50_000_000
    packed = gzip.compress(content) if ending == ".gz" else zstandard.compress(content)
    path.write_bytes(packed)
    with pytest.raises(CorpusError, match=r"expands to more than 100 times its size") as caught:
        texts(path, source(), ratio=100, expanded_bytes=2**20)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_cut_short_is_told_and_not_taken_as_whole(tmp_path: Path, ending: str) -> None:
    raw = b"".join(json.dumps({"text": os.urandom(50).hex()}).encode() + b"\n" for _ in range(999))
    path = tmp_path / f"a.jsonl{ending}"
    packed = gzip.compress(raw) if ending == ".gz" else zstandard.compress(raw)
    path.write_bytes(packed[:-20])
    with pytest.raises(CorpusError, match=r"cannot be read \(Truncated compressed stream\)"):
        texts(path, source())
    path.write_bytes(b"this is not compressed at all")
    with pytest.raises(CorpusError, match="cannot be read"):
        texts(path, source())


def test_questions_come_with_their_rendering(tmp_path: Path) -> None:
    rows = [{"id": 5, "q": "Why?", "a": "Because.", "m": "mod"}, {"q": "How?"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = source(question_field="q", answer_field="a", group_field="m")
    rejections = Rejections()
    ((document, _),) = read_documents(tmp_path / "a.jsonl", recipe, rejections)
    assert document.text == "Question: Why?\nAnswer: Because."
    assert (document.id, document.group) == ("5", "mod")
    assert (document.question, document.answer) == ("Why?", "Because.")
    assert rejections.counts == {"missing_field": 1}


def test_parquet_by_column(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "body": ["one", None, "three"], "n": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet", source(text_field="body")) == (
        ["one", "three"],
        {"missing_field": 1},
    )
    with pytest.raises(CorpusError, match=r"has no column 'text'\n.*its columns.*: id, body, n"):
        texts(tmp_path / "a.parquet", source())
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(CorpusError, match="cannot be read as parquet"):
        texts(tmp_path / "b.parquet", source())


def test_parquet_whose_strings_are_no_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"one", b"\xff\xfe", b"three"], type=pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
    found = texts(tmp_path / "a.parquet", source())
    assert found == (["one", "three"], {"invalid_utf8": 1})


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "ä b.txt").write_bytes("línea\r\nzwei".encode())
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.txt").write_bytes(b"")
    assert texts(tmp_path / "ä b.txt", source()) == (["línea\r\nzwei"], {})
    assert texts(tmp_path / "bad.txt", source()) == ([], {"invalid_utf8": 1})
    assert texts(tmp_path / "empty.txt", source()) == ([], {"empty": 1})


def test_a_source_tree_is_walked(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("b/x.py", "a.c", ".git/h.py", "node_modules/y.js", "data.bin", "b/notes.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("content")
    (tree / "loop").symlink_to(tree)
    found = resolve_inputs("code", source("tree", format="code"), tmp_path)
    assert [os.path.relpath(str(path), tree) for path in found] == ["a.c", "b/x.py"]


def test_globs_folders_and_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "Größe und mehr"
    folder.mkdir()
    (folder / "x y.jsonl").write_text('{"text": "t"}')
    (folder / "z.jsonl.gz").write_bytes(gzip.compress(b'{"text": "t"}'))
    for pattern in ("Größe und mehr", "Größe*/*", "**/*.jsonl*"):
        assert len(resolve_inputs("s", source(pattern), tmp_path)) == 2
    assert len(resolve_inputs("s", source(str(folder / "x y.jsonl")), tmp_path)) == 1


def test_all_that_is_wrong_with_paths_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.xyz").write_text("")
    (tmp_path / "empty").mkdir()
    recipe = source(["a.jsonl", "./a.jsonl", "absent/*.jsonl", "b.xyz", "empty"])  # type: ignore[arg-type]
    with pytest.raises(CorpusError) as caught:
        resolve_inputs("s", recipe, tmp_path)
    told = str(caught.value)
    assert "a.jsonl is named 2 times" in told
    assert "'absent/*.jsonl' matches no file" in told
    assert "'empty' matches no file" in told
    assert "the format of b.xyz cannot be told from its ending" in told
    assert len(caught.value.problems) == 4


def test_an_unreadable_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root reads everything
    with pytest.raises(CorpusError, match=r"a\.jsonl cannot be read\n.*permissions"):
        resolve_inputs("s", source("a.jsonl"), tmp_path)


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(CorpusError, match="cannot be read"):
        list(read_lines(tmp_path / "a.jsonl", Caps()))


def test_two_sources_of_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    sources = {"x": source("a.jsonl"), "y": source("link.jsonl")}
    problems = Problems()
    assert find_inputs(sources, tmp_path, problems).keys() == {"x", "y"}
    with pytest.raises(CorpusError, match="is also read by source 'x'") as caught:
        problems.raise_as(CorpusError)
    assert "sources.y.path" in str(caught.value)


def test_a_file_of_a_folder_that_has_two_names_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "real" / "deep" / "a.jsonl").write_text("")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    with pytest.raises(CorpusError, match=r"a\.jsonl is named 2 times"):
        resolve_inputs("s", source(["real", "linked/deep/a.jsonl"]), tmp_path)  # type: ignore[arg-type]


def test_many_files_that_two_sources_read_are_one_problem(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}.txt").write_text("")
    problems = Problems()
    find_inputs({"x": source("*.txt"), "y": source(".")}, tmp_path, problems)
    assert len(problems) == 1
    with pytest.raises(CorpusError, match=r"00\.txt and 29 more files are also read by source 'x'"):
        problems.raise_as(CorpusError)


def test_a_file_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/bad\xff.txt"
    with open(name, "wb"):
        pass
    with pytest.raises(CorpusError, match=r"bad\\udcff\.txt' is not UTF-8\n.*rename it"):
        resolve_inputs("s", source("*.txt"), tmp_path)


def test_positions_tell_how_far_the_reading_is(tmp_path: Path) -> None:
    stream = io.BytesIO()
    for number in range(1000):
        stream.write(json.dumps({"text": f"document {number}"}).encode() + b"\n")
    (tmp_path / "a.jsonl").write_bytes(stream.getvalue())
    positions = [p for _, p in read_documents(tmp_path / "a.jsonl", source(), Rejections())]
    assert positions == sorted(positions)
    assert positions[-1] == (tmp_path / "a.jsonl").stat().st_size


def test_brackets_in_the_recipes_folder_are_no_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[old]"
    folder.mkdir()
    (folder / "x.jsonl").write_text('{"text": "t"}')
    for pattern in ("*.jsonl", str(folder / "*.jsonl"), "../a[old]/*.jsonl"):
        (found,) = resolve_inputs("s", source(pattern), folder)
        assert os.path.samefile(str(found), folder / "x.jsonl")


def test_a_loop_of_links_under_a_glob_ends(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.jsonl").write_text('{"text": "t"}')
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.jsonl").symlink_to(tmp_path / "self.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    found = resolve_inputs("s", source("**/*.jsonl"), tmp_path)
    assert found == [tmp_path / "sub" / "x.jsonl"]


def test_many_loops_of_links_end_as_well(tmp_path: Path) -> None:
    """Two loops side by side have 2^40 names for each file, were links followed."""
    (tmp_path / "x.py").write_text("content")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "y.py").write_text("content")
    for name in ("one", "two", "three"):
        (tmp_path / name).symlink_to(tmp_path)
    for pattern in ("**/*.py", "**", str(tmp_path / "**" / "*.py")):
        assert resolve_inputs("s", source(pattern), tmp_path) == [tmp_path / "x.py"]
    assert resolve_inputs("s", source(".hidden/*.py"), tmp_path) == [tmp_path / ".hidden" / "y.py"]


@pytest.mark.parametrize("pattern", ["x" * 300, "x" * 300 + "/*", "a**b", "*/" * 900])
def test_a_path_that_no_system_can_hold_matches_nothing(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(CorpusError, match="matches no file"):
        resolve_inputs("s", source(pattern), tmp_path)


def test_a_closed_folder_is_told_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "x.jsonl").write_text('{"text": "t"}')
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: Any) -> Any:  # root may read everything
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(CorpusError, match=r"closed: the folder cannot be read \(Permission denied"):
        resolve_inputs("s", source("."), tmp_path)


def test_a_file_of_line_feeds_is_read_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" + b"\n" * 30_000_000)
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, _ = texts(tmp_path / "a.txt", source())
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(found[0]) == 30_000_001
    assert grown_kib < 300 * 1024
