"""Files behind URLs: found, read once in bounded memory, tried again, and noticed when changed."""

from __future__ import annotations

import gzip
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from rewarm.artifacts import read_json
from rewarm.corpus import encoding, files, place
from rewarm.corpus.estimate import estimate_source
from rewarm.corpus.files import RemoteFile, fresh_stamps, open_input
from rewarm.corpus.inputs import find_inputs, resolve_inputs
from rewarm.corpus.place import SourceText, load_facts
from rewarm.corpus.prepare import prepare_source
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.corpus.views import open_view
from rewarm.errors import CorpusError, EnvironmentFault, Problems, RecipeError
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.load import load_recipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts
from tests.support.remote_files import TestFiles, fault


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(files, "WAITS_S", (0.0, 0.0, 0.0))
    TestFiles.store.clear()
    TestFiles.pseudo_dirs[:] = [""]
    yield
    TestFiles.store.clear()


def source(path: str | list[str] = "testfs://bucket/*", **fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"path": path, "role": "new", **fields})


def put(name: str, content: bytes) -> None:
    fsspec.filesystem("testfs").pipe(f"/bucket/{name}", content)


def lines(first: int, last: int) -> bytes:
    rows = [{"id": str(number), "text": f"document {number} " * 5} for number in range(first, last)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def text_of(folder: Path, base: Path, recipe: SourceRecipe) -> SourceText:
    inputs = resolve_inputs("s", recipe, folder)
    return SourceText("s", recipe, inputs, folder, base, TokenizerRecipe())


def prepare(folder: Path, base: Path, recipe: SourceRecipe) -> CorpusFacts:
    text = text_of(folder, base, recipe)
    return prepare_source(text, prepared_root=folder / "prepared", vocab_size=320)


def names(recipe: SourceRecipe) -> list[str]:
    return [file.name for file in resolve_inputs("s", recipe, Path())]


def texts(recipe: SourceRecipe) -> list[str]:
    return [
        document.text
        for file in resolve_inputs("s", recipe, Path())
        for document, _ in read_documents(file, recipe, Rejections())
    ]


def test_files_folders_and_globs_behind_a_url(tmp_path: Path) -> None:
    for name in ("a.jsonl", "sub/b.jsonl", ".hidden.jsonl", "sub/notes.bin", "sub/.git/c.jsonl"):
        put(name, b'{"text": "x"}\n')
    assert names(source("testfs://bucket/a.jsonl")) == ["a.jsonl"]
    assert names(source("testfs://bucket/**/*.jsonl")) == ["a.jsonl", "b.jsonl"]
    assert names(source("testfs://bucket", format="jsonl")) == ["a.jsonl", "b.jsonl"]
    assert names(source("testfs://bucket/*.jsonl")) == ["a.jsonl"]
    (tmp_path / "here.jsonl").write_text('{"text": "x"}\n')
    both = source([str(tmp_path / "*.jsonl"), "testfs://bucket/*.jsonl"])
    assert names(both) == ["here.jsonl", "a.jsonl"]
    assert names(source(f"file://{tmp_path}/here.jsonl")) == ["here.jsonl"]


def test_every_format_reads_alike_from_anywhere(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": f"text {number}"} for number in range(300)]
    raw = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet", row_group_size=50)
    table = "id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows)
    contents = {
        "a.jsonl": raw,
        "b.jsonl.gz": gzip.compress(raw),
        "c.jsonl.zst": zstandard.compress(raw),
        "d.csv": table.encode(),
        "e.parquet": (tmp_path / "e.parquet").read_bytes(),
    }
    for name, content in contents.items():
        put(name, content)
        assert texts(source(f"testfs://bucket/{name}")) == [row["text"] for row in rows], name
    put("f.txt", b"one document")
    assert texts(source("testfs://bucket/f.txt")) == ["one document"]


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "e.parquet"])
def test_what_fails_on_the_way_is_tried_again_where_it_was(tmp_path: Path, name: str) -> None:
    """Every third read fails: nothing is lost and nothing comes twice."""
    rows = [{"text": f"text {number} " * 9} for number in range(3000)]
    raw = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet", row_group_size=100)
    whole = {
        "a.jsonl": raw,
        "b.jsonl.gz": gzip.compress(raw),
        "e.parquet": (tmp_path / "e.parquet").read_bytes(),
    }
    Flaky.content = whole[name]
    Flaky.fail_every, Flaky.reads = 3, 0
    assert texts(source(f"flaky://{name}")) == [row["text"] for row in rows]
    assert Flaky.failures > 3


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "e.parquet"])
def test_what_keeps_failing_is_the_environment_s_fault(name: str) -> None:
    Flaky.content = b'{"text": "x"}\n' * 1000
    Flaky.fail_every, Flaky.reads = 1, 0
    with pytest.raises(
        EnvironmentFault, match=r"flaky://.* cannot be read .*tried 4 times"
    ) as told:
        texts(source(f"flaky://{name}"))
    assert "the same command then goes on" in str(told.value)


def test_a_side_that_gives_no_parts_is_read_from_the_beginning_again(tmp_path: Path) -> None:
    rows = [{"text": f"text {number} " * 9} for number in range(3000)]
    Flaky.content = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    Flaky.fail_every, Flaky.reads, Flaky.failures, Flaky.most_failures = 9, 0, 0, 2
    try:
        assert texts(source("onward://a.jsonl")) == [row["text"] for row in rows]
    finally:
        Flaky.most_failures = 10**9
    assert Flaky.failures == 2
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    Flaky.content = (tmp_path / "e.parquet").read_bytes()
    Flaky.fail_every = 10**9
    with pytest.raises(CorpusError, match=r"gives no parts of files.*\n.*download it"):
        texts(source("onward://e.parquet"))


def test_an_end_before_the_size_that_was_told_is_no_end() -> None:
    """A side that closes early must not pass a cut file off as a whole one."""
    Flaky.content = lines(0, 100)
    Flaky.fail_every, Flaky.reads = 10**9, 0
    Flaky.cut_after = len(Flaky.content) // 2
    try:
        with pytest.raises(EnvironmentFault, match="it ended after"):
            texts(source("flaky://a.jsonl"))
    finally:
        Flaky.cut_after = None


def test_memory_does_not_grow_with_a_remote_file() -> None:
    """200 MB come out of thin air; the process must not grow by them."""
    resource = pytest.importorskip("resource")
    Flaky.content = b""
    Flaky.fail_every, Flaky.reads = 10**9, 0
    (file,) = [RemoteFile("endless://a.jsonl", Endless.num_bytes, "v", "endless://a.jsonl")]
    with open_input(file) as stream:
        stream.read(2**20)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total = 2**20
        while block := stream.read(2**20):
            total += len(block)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert total == Endless.num_bytes
    assert grown_kib < 60 * 1024


def test_prepared_once_and_again_only_where_its_side_says_it_changed(
    tmp_path: Path, tiny_base: Path
) -> None:
    put("a.jsonl", lines(0, 30))
    put("b.jsonl", lines(30, 60))
    first = prepare(tmp_path, tiny_base, source(held_out=0.1))
    assert first.num_documents + first.held_out_documents == 60

    def unread(operation: str, path: str) -> None:
        assert operation != "read", path

    with fault(unread):
        assert prepare(tmp_path, tiny_base, source(held_out=0.1)) == first
    manifest = read_json(Path(first.folder) / "MANIFEST.json", what="it", error=CorpusError)
    assert [entry["url"] for entry in manifest["inputs"]] == [
        "testfs:///bucket/a.jsonl",
        "testfs:///bucket/b.jsonl",
    ]
    assert all(entry["version"] and "sha256" not in entry for entry in manifest["inputs"])
    put("b.jsonl", lines(31, 61))  # as large as before
    assert load_facts(text_of(tmp_path, tiny_base, source(held_out=0.1)), tmp_path) is None
    again = prepare(tmp_path, tiny_base, source(held_out=0.1))
    assert (again.key, again.tokens) != (first.key, first.tokens)


def test_every_remote_file_is_read_once(tmp_path: Path, tiny_base: Path) -> None:
    for number in range(5):
        put(f"{number}.jsonl", lines(number * 10, number * 10 + 10))
    opened: list[str] = []
    with fault(lambda operation, path: opened.append(path) if operation == "read" else None):
        prepare(tmp_path, tiny_base, source())
    assert sorted(opened) == [f"/bucket/{number}.jsonl" for number in range(5)]


def test_a_kill_costs_the_shard_at_work_and_no_file_before_it(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1)
    for number in range(4):
        put(f"{number}.jsonl", lines(number * 10, number * 10 + 10))
    whole = prepare(tmp_path / "whole", tiny_base, source())

    class KilledError(BaseException):
        pass

    def kill(operation: str, path: str) -> None:
        if operation == "read" and path.endswith("2.jsonl"):
            raise KilledError

    with fault(kill), pytest.raises(KilledError):
        prepare(tmp_path / "killed", tiny_base, source())
    opened: list[str] = []
    with fault(lambda operation, path: opened.append(path) if operation == "read" else None):
        after = prepare(tmp_path / "killed", tiny_base, source())
    assert sorted(set(opened)) == ["/bucket/2.jsonl", "/bucket/3.jsonl"]
    assert after.tokens == whole.tokens
    for path in sorted(Path(whole.folder).glob("shard-*")):
        assert (Path(after.folder) / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_file_that_changes_while_it_is_prepared_is_refused(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("a.jsonl", lines(0, 30))
    flushed = encoding.flushed_size

    def change(path: str) -> int:
        put("a.jsonl", lines(100, 130))
        return flushed(path)

    monkeypatch.setattr(encoding, "flushed_size", change)
    with pytest.raises(CorpusError, match=r"a\.jsonl: it changed while it was prepared"):
        prepare(tmp_path, tiny_base, source())


def test_an_estimate_reads_the_beginning(tmp_path: Path, tiny_base: Path) -> None:
    put("a.jsonl", lines(0, 300))
    estimate = estimate_source(text_of(tmp_path, tiny_base, source()), vocab_size=320)
    facts = prepare(tmp_path, tiny_base, source())
    assert not estimate.measured
    assert abs(estimate.num_tokens / facts.num_tokens - 1) < 0.05


def test_all_that_is_wrong_with_urls_is_told_at_once() -> None:
    put("a.jsonl", b"")
    recipe = source(
        [
            *("testfs://bucket/absent/*", "testfs://bucket/a.jsonl", "testfs://bucket/a.jsonl"),
            *("htps://bucket/a", "zip://a::s3://b", "testfs://bucket/absent.jsonl"),
        ]
    )
    with pytest.raises(CorpusError) as caught:
        resolve_inputs("s", recipe, Path())
    told = str(caught.value)
    assert "'testfs://bucket/absent/*' matches no file" in told
    assert "'testfs://bucket/absent.jsonl' matches no file" in told
    assert "testfs:///bucket/a.jsonl is named 2 times" in told
    assert "zip://a::s3://b leads through several file systems" in told
    assert "no file system is called 'htps'" in told
    assert "did you mean https://?" in told
    assert all(problem.where == "sources.s.path" for problem in caught.value.problems)


def test_a_side_that_fails_is_no_mistake_of_the_person_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to ftp://me:hunter2@host")

    problems = Problems()
    faults: list[EnvironmentFault] = []
    monkeypatch.setattr(TestFiles, "glob", down)
    assert not find_inputs({"s": source("testfs://bucket/*")}, Path(), problems, faults)
    assert len(problems) == len(faults) == 1
    assert "tried 4 times" in faults[0].what
    assert "hunter2" not in str(faults[0])


def test_a_side_that_fails_hides_no_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(TestFiles, "glob", down)
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(CorpusError) as caught:
        resolve_inputs(
            "s", source(["testfs://bucket/*", "absent.jsonl", "a.jsonl", "a.jsonl"]), tmp_path
        )
    told = str(caught.value)
    assert "tried 4 times" in told
    assert "'absent.jsonl' matches no file" in told
    assert "is named 2 times" in told


def test_a_refusal_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(self: TestFiles, path: str, **_: Any) -> None:
        asked.append(path)
        raise PermissionError("AccessDenied for https://me:secret@host/x?sig=abc")

    monkeypatch.setattr(TestFiles, "glob", refuse)
    with pytest.raises(CorpusError, match="access is refused") as caught:
        resolve_inputs("s", source("testfs://bucket/*"), Path())
    assert len(asked) == 1
    assert "credentials" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_token_shards_elsewhere_are_refused() -> None:
    put("a.bin", b"")
    put("a.idx", b"")
    with pytest.raises(CorpusError, match=r"a\.bin lies elsewhere"):
        resolve_inputs("s", source(format="tokens"), Path())


def test_two_sources_of_one_remote_file_are_refused() -> None:
    put("a.jsonl", b"")
    problems = Problems()
    find_inputs({"x": source(), "y": source("testfs://bucket/a.jsonl")}, Path(), problems)
    with pytest.raises(CorpusError, match="is also read by source 'x'"):
        problems.raise_as(CorpusError)


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hunter2@bucket/a.jsonl",
        "https://host/a.jsonl?X-Amz-Signature=abcdef",
        "https://host/a.jsonl?v=1&sig=abcdef",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'name = "x"\nbase = {{ path = "b" }}\nbudget = {{ tokens = 1 }}\n'
        f'sources.s = {{ path = "{url}", role = "new" }}\n[[phases]]\nname = "a"\n'
        "weights = { s = 1.0 }\n"
    )
    with pytest.raises(RecipeError, match="credentials belong in the environment") as caught:
        load_recipe(path)
    assert "hunter2" not in str(caught.value)
    assert "abcdef" not in str(caught.value)


def test_held_out_and_tokens_are_those_of_a_local_copy(tmp_path: Path, tiny_base: Path) -> None:
    put("a.jsonl", lines(0, 50))
    (tmp_path / "a.jsonl").write_bytes(lines(0, 50))
    far = prepare(tmp_path, tiny_base, source(held_out=0.2))
    near = prepare(tmp_path, tiny_base, source("a.jsonl", held_out=0.2))
    assert (far.tokens, far.held_out_documents) == (near.tokens, near.held_out_documents)
    assert far.key != near.key
    assert open_view(far).document(3).tolist() == open_view(near).document(3).tolist()


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server that knows ETags as little as Python's own does, and ranges not at all."""
    handler = partial(Silent, directory=str(folder))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Silent(SimpleHTTPRequestHandler):
    """Says nothing; answers requests with `statuses` first, as long as there are some."""

    statuses: ClassVar[list[int]] = []

    def send_head(self) -> Any:
        if self.statuses:
            self.send_error(self.statuses.pop(0))
            return None
        return super().send_head()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.filterwarnings("ignore")
def test_over_http(tmp_path: Path, tiny_base: Path) -> None:
    pytest.importorskip("aiohttp", reason="pip install aiohttp to read from https://")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.jsonl").write_bytes(lines(0, 50))
    with serving(tmp_path / "web") as url:
        recipe = source(f"{url}/a.jsonl", held_out=0.2)
        facts = prepare(tmp_path, tiny_base, recipe)
        assert facts.num_documents + facts.held_out_documents == 50
        (file,) = resolve_inputs("s", recipe, Path())
        assert isinstance(file, RemoteFile)
        assert fresh_stamps([file]) == [(file.size, file.version)]
        with pytest.raises(CorpusError, match="matches no file"):
            resolve_inputs("s", source(f"{url}/absent.jsonl"), Path())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pattern", ["*.jsonl", "", "a b.jsonl", "**/*.jsonl"])
def test_a_page_of_links_is_a_folder(tmp_path: Path, pattern: str) -> None:
    """A web server lists names alone; the size of each is asked for."""
    pytest.importorskip("aiohttp", reason="pip install aiohttp to read from https://")
    (tmp_path / "more").mkdir()
    for name in ("a b.jsonl", "c.jsonl", "more/d.jsonl", ".hidden.jsonl", "page.html.bak"):
        (tmp_path / name).write_bytes(lines(0, len(name)))
    expected = {
        "*.jsonl": ["a b.jsonl", "c.jsonl"],
        "a b.jsonl": ["a b.jsonl"],
    }.get(pattern, ["a b.jsonl", "c.jsonl", "d.jsonl"])
    with serving(tmp_path) as url:
        found = resolve_inputs("s", source(f"{url}/{pattern}"), Path())
        assert [file.name for file in found] == expected
        assert all(isinstance(file, RemoteFile) and file.size for file in found)
        rejections = Rejections()
        taken = [doc.id for doc, _ in read_documents(found[0], source("x"), rejections)]
    assert taken == [str(number) for number in range(len("a b.jsonl"))]
    assert not rejections.counts


@pytest.mark.filterwarnings("ignore")
def test_a_web_server_that_fails_is_no_file_that_is_absent(tmp_path: Path) -> None:
    """fsspec says of every failure that nothing is there: a network that is down is told as such,
    a closed door as such, and what fails once is tried again."""
    pytest.importorskip("aiohttp", reason="pip install aiohttp to read from https://")
    (tmp_path / "a.jsonl").write_bytes(lines(0, 3))
    with serving(tmp_path) as url:
        recipe = source(f"{url}/a.jsonl")
        Silent.statuses[:] = [500, 500]  # HEAD, and GET in its place
        assert [file.name for file in resolve_inputs("s", recipe, Path())] == ["a.jsonl"]
        assert not Silent.statuses
        Silent.statuses[:] = [403] * 2
        with pytest.raises(CorpusError, match="access is refused"):
            resolve_inputs("s", recipe, Path())
        Silent.statuses[:] = [503] * 99
        with pytest.raises(EnvironmentFault, match="tried 4 times"):
            resolve_inputs("s", recipe, Path())
        Silent.statuses.clear()
    with pytest.raises(EnvironmentFault, match="check the network"):
        resolve_inputs("s", recipe, Path())


def test_small_files_are_fetched_side_by_side(tmp_path: Path, tiny_base: Path) -> None:
    """Several are asked for at a time, and the tokens are those of files read one by one."""
    for number in range(20):
        put(f"{number:02d}.jsonl", lines(3 * number, 3 * number + 3))
        (tmp_path / f"{number:02d}.jsonl").write_bytes(lines(3 * number, 3 * number + 3))
    met = threading.Barrier(4, timeout=20)
    at_work = []

    def meet(operation: str, path: str) -> None:
        at_work.append(path)
        if operation == "read" and len(at_work) <= 4:
            met.wait()

    text = text_of(tmp_path, tiny_base, source())
    with fault(meet):
        far = prepare_source(text, prepared_root=tmp_path / "prepared", vocab_size=320)
    assert not met.broken
    near = prepare(tmp_path, tiny_base, source("*.jsonl"))
    assert far.tokens == near.tokens
    assert far.num_documents + far.held_out_documents == 60


@pytest.mark.parametrize("failure", ["raises", "is short"])
def test_what_fails_while_it_is_fetched_ahead_is_read_again(
    monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    for number in range(4):
        put(f"{number}.jsonl", lines(10 * number, 10 * number + 10))
    whole = TestFiles.cat_file

    def cut(self: TestFiles, path: str, *arguments: Any, **more: Any) -> bytes:
        if failure == "raises" and "2" in path:
            raise ConnectionResetError("reset")
        content = bytes(whole(self, path, *arguments, **more))
        return content[: content.index(b"\n") + 1] if "2" in path else content

    monkeypatch.setattr(TestFiles, "cat_file", cut)
    found = list(files.read_ahead(resolve_inputs("s", source(), Path())))
    assert [isinstance(file, RemoteFile) and file.content is None for file in found] == [
        *(False, False, True, False)
    ]
    read = [doc.id for file in found for doc, _ in read_documents(file, source(), Rejections())]
    assert read == [str(number) for number in range(40)]


class Flaky(AbstractFileSystem):  # type: ignore[misc]
    """One file of `content`; every so many reads of a block fail, or it ends early."""

    protocol = "flaky"
    content = b""
    fail_every = 10**9
    reads = 0
    failures = 0
    most_failures = 10**9
    cut_after: int | None = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{cls.protocol}://").strip("/")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {"name": path, "size": len(self.content), "type": "file", "ETag": "v1"}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return FlakyFile(self, path, mode, **{**kwargs, "block_size": 4096})


class FlakyFile(AbstractBufferedFile):  # type: ignore[misc]
    def read(self, length: int = -1) -> bytes:
        return bytes(super().read(min(length, 5000)))  # less than was asked for, as sockets do

    def _fetch_range(self, start: int, end: int) -> bytes:
        Flaky.reads += 1
        if Flaky.reads % Flaky.fail_every == 0 and Flaky.failures < Flaky.most_failures:
            Flaky.failures += 1
            raise ConnectionResetError("reset by peer")
        stop = end if Flaky.cut_after is None else min(end, Flaky.cut_after)
        return Flaky.content[start:stop]


class Onward(Flaky):
    """Gives what is read from the beginning on, as a web server without ranges."""

    protocol = "onward"

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return OnwardFile(self, path, mode, **{**kwargs, "block_size": 4096})


class OnwardFile(FlakyFile):
    def seek(self, loc: int, whence: int = 0) -> int:
        raise ValueError("Cannot seek streaming file")


class Endless(Flaky):
    protocol = "endless"
    num_bytes = 200 * 2**20

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return {"name": path, "size": self.num_bytes, "type": "file", "ETag": "v1"}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return EndlessFile(self, path, mode, **kwargs)


class EndlessFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        return b"x" * (end - start)


fsspec.register_implementation("flaky", Flaky, clobber=True)
fsspec.register_implementation("onward", Onward, clobber=True)
fsspec.register_implementation("endless", Endless, clobber=True)
