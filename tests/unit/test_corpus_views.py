"""A prepared view as it lies on the disk: ids by document, and every damage told with its file."""

from __future__ import annotations

import errno
import gc
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewarm.corpus.shards import dtype_for, open_shard, write_shard
from rewarm.corpus.views import HELD_OUT, TRAIN, View, open_view
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.records.facts import CorpusFacts
from tests.support.fake_facts import make_corpus_facts


@pytest.fixture
def facts(tmp_path: Path) -> CorpusFacts:
    """Two shards of three documents; the second and the fifth are held out."""
    for number in range(2):
        prefix = tmp_path / f"shard-{number:05d}"
        write_shard(prefix, [np.arange(4) + 10 * (3 * number + i) for i in range(3)], dtype_for(99))
        np.save(f"{prefix}.bytes.npy", np.array([7, 8, 9], dtype=np.uint64) + number)
        ids = [f'"{number}.{i} \\n\\u00e4"\n' for i in range(3)]
        Path(f"{prefix}.ids").write_text("".join(ids))
    np.save(tmp_path / TRAIN, np.array([0, 2, 3, 5]))
    np.save(tmp_path / HELD_OUT, np.array([1, 4]))
    return make_corpus_facts("s").model_copy(update={"folder": str(tmp_path)})


def test_views_split_the_documents_of_all_shards(facts: CorpusFacts) -> None:
    train, held_out = open_view(facts), open_view(facts, held_out=True)
    assert [int(train.document(i)[0]) for i in range(4)] == [0, 20, 30, 50]
    assert [int(held_out.document(i)[0]) for i in range(2)] == [10, 40]
    assert (train.total_bytes, held_out.total_bytes) == (7 + 9 + 8 + 10, 8 + 9)
    assert train.gather(np.array([1]), 5).tolist() == [[21, 22, 23, 30, 31, 32]]
    assert train.documents_of_window(1, 5) == [(1, 1, 4), (2, 0, 2)]


def test_ids_are_found_by_document(facts: CorpusFacts) -> None:
    train = open_view(facts)
    assert [train.document_id(i) for i in (3, 0, 1, 2)] == [
        f"{name} \nä" for name in ("1.2", "0.0", "0.2", "1.0")
    ]


def test_ids_that_do_not_belong_to_the_shard_are_told(facts: CorpusFacts) -> None:
    ids = Path(facts.folder) / "shard-00001.ids"
    ids.write_text('"one"\n"two"\n')
    with pytest.raises(CorpusError, match=r"shard-00001\.ids: it does not hold one id for each"):
        open_view(facts).document_id(3)
    ids.unlink()
    with pytest.raises(CorpusError, match=r"shard-00001\.ids: .*No such file"):
        open_view(facts).document_id(3)


@pytest.mark.parametrize("window", [-1, 3])
def test_a_window_outside_is_refused(facts: CorpusFacts, window: int) -> None:
    with pytest.raises(ValueError, match=r"a window is outside of \[0, 3\)"):
        open_view(facts).documents_of_window(window, 5)


@pytest.mark.parametrize("kept", [[0, 6], [-1, 2], [2, 1], [1, 1]])
def test_a_view_of_other_shards_is_told(facts: CorpusFacts, kept: list[int]) -> None:
    np.save(Path(facts.folder) / TRAIN, np.array(kept))
    with pytest.raises(CorpusError, match="its view does not fit its shards"):
        open_view(facts)


@pytest.mark.parametrize("name", [TRAIN, "shard-00000.bytes.npy"])
@pytest.mark.parametrize(
    ("content", "told"), [(b"", "cannot be read"), (b"\x93NUMPY junk", "cannot be read")]
)
def test_damaged_lists_are_told(facts: CorpusFacts, name: str, content: bytes, told: str) -> None:
    (Path(facts.folder) / name).write_bytes(content)
    with pytest.raises(CorpusError, match=told) as caught:
        open_view(facts)
    assert str(Path(facts.folder) / name) in str(caught.value)


def test_lists_of_something_else_are_told(facts: CorpusFacts) -> None:
    np.save(Path(facts.folder) / TRAIN, np.array([0.0, 2.0]))
    with pytest.raises(CorpusError, match=r"train\.view\.npy: it holds no list of whole numbers"):
        open_view(facts)
    np.save(Path(facts.folder) / TRAIN, np.array([0, 2]))
    np.save(Path(facts.folder) / "shard-00000.bytes.npy", np.array([7, 8]))
    with pytest.raises(CorpusError, match="its shards and their byte counts disagree"):
        open_view(facts)


def test_a_shard_takes_one_open_file_and_too_many_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "s", [np.arange(9)], dtype_for(9))
    descriptors = Path("/proc/self/fd")
    if descriptors.is_dir():
        gc.collect()  # what earlier tests left open would be closed in between
        before = len(list(descriptors.iterdir()))
        views = [View([open_shard(tmp_path / "s")], np.array([0]), np.array([1])) for _ in "abcd"]
        assert len(list(descriptors.iterdir())) == before + len(views)

    def exhausted(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(mmap, "mmap", exhausted)
    with pytest.raises(EnvironmentFault, match=r"s\.bin cannot be opened.*\n.*ulimit -n"):
        open_shard(tmp_path / "s")
