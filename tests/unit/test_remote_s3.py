"""Text behind s3://, over S3's own protocol, where s3fs and a server to talk to are installed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewarm.corpus.files import RemoteFile, fresh_stamps
from rewarm.corpus.inputs import resolve_inputs
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe
from tests.support.ranks import free_port

s3fs = pytest.importorskip("s3fs", reason="pip install s3fs 'moto[server]' to try S3's protocol")
moto = pytest.importorskip("moto.server", reason="pip install 'moto[server]' for an S3 server")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    port = free_port()
    monkeypatch = pytest.MonkeyPatch()
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "not to be told",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    server.start()
    s3fs.S3FileSystem().mkdir("texts")
    yield
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.undo()


def source(path: str) -> SourceRecipe:
    return SourceRecipe(path=path, role="new")


def test_text_in_a_bucket(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}"} for number in range(2000)]
    raw = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet", row_group_size=100)
    files = s3fs.S3FileSystem()
    files.pipe("texts/a/a.jsonl", raw)
    files.pipe("texts/a/b.jsonl.gz", gzip.compress(raw))
    files.pipe("texts/a/c.parquet", (tmp_path / "c.parquet").read_bytes())
    for pattern in ("s3://texts/a/*", "s3://texts/a", "s3://texts/**"):
        found = resolve_inputs("s", source(pattern), Path())
        assert [str(file) for file in found] == [
            "s3://texts/a/a.jsonl",
            "s3://texts/a/b.jsonl.gz",
            "s3://texts/a/c.parquet",
        ]
        for file in found:
            read = [d.text for d, _ in read_documents(file, source(pattern), Rejections())]
            assert read == [row["text"] for row in rows]


def test_an_object_that_is_written_again_is_another_version() -> None:
    files = s3fs.S3FileSystem()
    files.pipe("texts/one.jsonl", b'{"text": "a"}\n')
    (file,) = resolve_inputs("s", source("s3://texts/one.jsonl"), Path())
    assert isinstance(file, RemoteFile)
    assert file.version.startswith("ETag:")
    assert fresh_stamps([file]) == [(file.size, file.version)]
    files.pipe("texts/one.jsonl", b'{"text": "b"}\n')
    assert fresh_stamps([file]) != [(file.size, file.version)]


def test_a_bucket_that_is_not_there_is_told() -> None:
    with pytest.raises(CorpusError, match="matches no file"):
        resolve_inputs("s", source("s3://nowhere-to-be-found/x.jsonl"), Path())
