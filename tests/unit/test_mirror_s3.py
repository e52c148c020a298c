"""The mirror over S3's own protocol, where s3fs and a server to talk to are installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.errors import EnvironmentFault
from rewarm.records.run_folder import RunFolder
from rewarm.training.mirror.remote import CHUNK_BYTES, RemoteFolder
from tests.support.ranks import free_port
from tests.support.remote_files import all_files
from tests.support.tiny_plans import make_plan, tensors_of, train_tiny

s3fs = pytest.importorskip("s3fs", reason="pip install s3fs 'moto[server]' to try S3's protocol")
moto = pytest.importorskip("moto.server", reason="pip install 'moto[server]' for an S3 server")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def server() -> Iterator[object]:
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
    s3fs.S3FileSystem().mkdir("bucket")
    yield server
    server.stop()
    monkeypatch.undo()


def test_an_empty_machine_goes_on_from_a_bucket(tmp_path: Path, server: object) -> None:
    plan = make_plan(mirror="s3://bucket/the run")
    train_tiny(tmp_path / "whole", make_plan())
    train_tiny(tmp_path / "lost", plan, until_step=12)
    shutil.rmtree(tmp_path / "lost")
    train_tiny(tmp_path / "new", plan)
    assert tensors_of(tmp_path / "new") == tensors_of(tmp_path / "whole")
    messages = [event.message for event in RunFolder(tmp_path / "new").events()]
    assert "resumed from step-00000012" in messages
    there = {name.partition("/")[0] for name in all_files("s3://bucket/the run")}
    assert "mirrored-step-00000020" in there
    assert "mirrored-step-00000005" not in there


def test_a_large_file_goes_in_parts_and_comes_back(server: object) -> None:
    content = bytes(range(256)) * (110 * 2**20 // 256)
    folder = RemoteFolder("s3://bucket/large")
    parts = (content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))
    folder.write("one/file", parts)
    assert folder.size("one/file") == len(content)
    assert b"".join(folder.chunks("one/file")) == content
    folder.delete("one")
    assert folder.names() == []


def test_a_bucket_that_is_not_there_is_not_made(tmp_path: Path, server: object) -> None:
    with pytest.raises(EnvironmentFault, match="s3://bukket/run cannot be used") as caught:
        train_tiny(tmp_path, make_plan(mirror="s3://bukket/run"))
    assert "not to be told" not in str(caught.value)
    assert s3fs.S3FileSystem().ls("") == ["bucket"]
    assert not RunFolder(tmp_path).has_begun()
