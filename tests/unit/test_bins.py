"""The bin index as it lies on the disk, and windows of it worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rewarm.artifacts import read_json
from rewarm.batches.loader import IGNORED_LABEL, BatchLoader
from rewarm.corpus import bins as room
from rewarm.corpus.bins import Bins, ensure_packing, load_packing, open_bins
from rewarm.corpus.packed import PackedView, open_windows
from rewarm.corpus.shards import dtype_for, write_shard
from rewarm.corpus.views import TRAIN, View
from rewarm.errors import CorpusError, EnvironmentFault
from rewarm.order.blend import CYCLE
from rewarm.order.position import Drawing, OrderPhase, OrderSpec
from rewarm.records.facts import CorpusFacts
from tests.support.fake_facts import make_corpus_facts

LENGTHS = (3, 13, 2, 5, 1, 4)
"""Of the documents 0 to 5, of tokens 10 to 12, 20 to 32, 40, 41, 50 to 54, 60 and 70 to 73."""
SIZE = 6
FILES = ("firsts.npy", "counts.npy", "starts.npy")


def make_source(folder: Path) -> CorpusFacts:
    folder.mkdir()
    starts = (10, 20, 40, 50, 60, 70)
    texts = [np.arange(n) + start for n, start in zip(LENGTHS, starts, strict=True)]
    prefix = folder / "shard-00000"
    write_shard(prefix, texts, dtype_for(99))
    np.save(f"{prefix}.bytes.npy", np.ones(6, dtype=np.uint64))
    Path(f"{prefix}.ids").write_text("".join(f'"document {i}"\n' for i in range(6)))
    np.save(folder / TRAIN, np.arange(6))
    update = {"folder": str(folder), "num_tokens": sum(LENGTHS), "num_documents": 6}
    return make_corpus_facts("s").model_copy(update=update)


@pytest.fixture
def facts(tmp_path: Path) -> CorpusFacts:
    return make_source(tmp_path / "s")


def windows_of(facts: CorpusFacts) -> PackedView:
    packed = open_windows(facts, SIZE, ensure_packing(facts, SIZE).fingerprint)
    assert isinstance(packed, PackedView)
    return packed


def test_windows_by_hand(facts: CorpusFacts) -> None:
    """Document 1 is cut into 6, 6 and 1; the last token, 73, is a label only, so that the last
    document brings 3. By length: 6, 6, 5 + 1, 3 + 3, 2 + 1."""
    packed = windows_of(facts)
    inputs, labels = packed.sequences(np.arange(5), SIZE)
    none = IGNORED_LABEL
    expected = {
        (10, 11, 12, 70, 71, 72): (11, 12, 20, 71, 72, 73),
        (20, 21, 22, 23, 24, 25): (21, 22, 23, 24, 25, 26),
        (26, 27, 28, 29, 30, 31): (27, 28, 29, 30, 31, 32),
        (32, 50, 51, 52, 53, 54): (40, 51, 52, 53, 54, 60),
        (40, 41, 60, 0, 0, 0): (41, 50, 70, none, none, none),
    }
    assert inputs.tolist() == [list(row) for row in expected]
    assert labels.tolist() == [list(row) for row in expected.values()]
    assert packed.positions(np.array([3, 0, 4]), SIZE).tolist() == [
        [0, 0, 1, 2, 3, 4],
        [0, 1, 2, 0, 1, 2],
        [0, 1, 0, 0, 1, 2],
    ]
    assert packed.documents_of_window(3, SIZE) == [(1, 12, 13), (3, 0, 5)]
    assert packed.document_id(3) == "document 3"


def test_both_ways_by_hand(facts: CorpusFacts) -> None:
    """Contiguous windows of 28 tokens: 4 of 6. Their edges at 6 and 12 lie within document 1, those
    at 18 and 24 between two; document 5, behind the last one, is left out whole."""
    found = ensure_packing(facts, SIZE)
    assert (found.num_documents, found.num_long, found.num_tokens) == (6, 1, 28)
    assert found.contiguous.model_dump() == {"num_windows": 4, "num_text_tokens": 24, "num_cut": 1}
    assert found.best_fit.model_dump() == {"num_windows": 5, "num_text_tokens": 27, "num_cut": 1}
    assert found.contiguous.padding_share(SIZE) == 0
    assert found.best_fit.padding_share(SIZE) == pytest.approx(3 / 30)


@pytest.mark.parametrize("window", [-1, 5])
def test_a_window_outside_is_refused(facts: CorpusFacts, window: int) -> None:
    with pytest.raises(ValueError, match=r"a window is outside of \[0, 5\)"):
        windows_of(facts).sequences(np.array([window]), SIZE)
    with pytest.raises(ValueError, match="the bins are 6 tokens, not 5"):
        windows_of(facts).sequences(np.array([0]), 5)


def test_a_step_s_batch_counts_text_alone_on_any_number_of_ranks(facts: CorpusFacts) -> None:
    """In the order in which they lie; a pass over the bins has 27 labels, however it is shared."""
    order = OrderSpec(
        seed=0,
        sequences_per_step=5,
        source_names=("s",),
        num_windows=(5,),
        phases=(OrderPhase(start_step=0, end_step=4, weights=(CYCLE,)),),
        drawings=(Drawing(in_stored_order=True),),
    )
    views = {"s": windows_of(facts)}

    def batch(rank: int = 0, num_ranks: int = 1, vocab_size: int = 80) -> int:
        loader = BatchLoader(
            order,
            views,
            sequence_length=SIZE,
            vocab_size=vocab_size,
            mask_documents=True,
            rank=rank,
            num_ranks=num_ranks,
        )
        return loader.batch(3).num_valid_tokens

    assert batch() == 27
    shares = [batch(rank, 3) for rank in range(3)]
    assert sum(shares) == 27
    assert len(set(shares)) > 1
    with pytest.raises(CorpusError, match=r"is id 73, but .* 73 entries"):
        batch(vocab_size=73)


def test_an_index_is_made_once_to_the_same_bytes(facts: CorpusFacts, tmp_path: Path) -> None:
    found = ensure_packing(facts, SIZE)
    folder = Path(facts.folder) / "bins-6"
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert ensure_packing(facts, SIZE, verified=True) == found
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    other = make_source(tmp_path / "other")
    assert ensure_packing(other, SIZE) == found
    for name in FILES:
        assert (Path(other.folder) / "bins-6" / name).read_bytes() == (folder / name).read_bytes()
    assert ensure_packing(facts, 4).fingerprint != found.fingerprint
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_index_is_told_and_made_again(facts: CorpusFacts, name: str) -> None:
    planned = ensure_packing(facts, SIZE).fingerprint
    path = Path(facts.folder) / "bins-6" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorpusError, match=rf"{name}: it changed since prepare"):
        open_bins(facts, SIZE, planned)
    assert ensure_packing(facts, SIZE, verified=True).fingerprint == planned
    assert path.read_bytes() == whole
    open_bins(facts, SIZE, planned)


@pytest.mark.parametrize("files", [None, [], {"firsts.npy": {}}])
def test_a_manifest_that_lists_no_files_is_made_again(facts: CorpusFacts, files: object) -> None:
    planned = ensure_packing(facts, SIZE).fingerprint
    path = Path(facts.folder) / "bins-6" / "MANIFEST.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "files": files}))
    with pytest.raises(CorpusError, match="does not list the files"):
        open_bins(facts, SIZE, planned)
    assert ensure_packing(facts, SIZE, verified=True).fingerprint == planned
    open_bins(facts, SIZE, planned)


def test_an_index_of_other_text_is_not_used(facts: CorpusFacts) -> None:
    planned = ensure_packing(facts, SIZE).fingerprint
    changed = facts.model_copy(update={"tokens": "another"})
    assert load_packing(changed, SIZE) is None
    with pytest.raises(CorpusError, match="it packs the text otherwise than was planned with"):
        open_bins(changed, SIZE, planned)
    with pytest.raises(CorpusError, match="it packs the text otherwise than was planned with"):
        open_bins(facts, SIZE, "another plan's")
    (Path(facts.folder) / "bins-6" / "facts.json").write_text("{}")
    assert load_packing(facts, SIZE) is None


def test_a_missing_index_is_told(facts: CorpusFacts) -> None:
    with pytest.raises(CorpusError, match=r"bins-6.*MANIFEST\.json"):
        open_bins(facts, SIZE, "planned")


def array(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize(
    "wrong",
    [
        Bins(SIZE, array(0, 6), array(6, 6), array(0, 2)),
        Bins(SIZE, array(0, 25), array(3, 3), array(0, 1, 2)),
        Bins(SIZE, array(-1, 6), array(6, 6), array(0, 1, 2)),
        Bins(SIZE, array(0, 6), array(6, 0), array(0, 1, 2)),
        Bins(SIZE, array(0, 6), array(6, 6), array(0, 1)),
        Bins(SIZE, array(0, 6), array(6, 6), array(0, 2, 2)),
        Bins(SIZE, array(0), array(6, 6), array(0, 1, 2)),
    ],
)
def test_bins_that_do_not_fit_the_text_are_told(
    facts: CorpusFacts, wrong: Bins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mistake in packing would make them: their hashes hold."""
    monkeypatch.setattr(room, "pack", lambda *_: wrong)
    planned = ensure_packing(facts, SIZE).fingerprint
    with pytest.raises(CorpusError, match="its bins do not fit the text"):
        open_bins(facts, SIZE, planned)


def test_what_the_disk_refuses_is_told(facts: CorpusFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", refuse)
    with pytest.raises(EnvironmentFault, match=r"bins-6 cannot be written \(No space left"):
        ensure_packing(facts, SIZE)
    assert load_packing(facts, SIZE) is None
    assert not (Path(facts.folder) / "bins-6").exists()


def test_a_source_of_one_token_has_no_bin(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    write_shard(folder / "shard-00000", [np.array([5])], dtype_for(9))
    np.save(folder / "shard-00000.bytes.npy", np.array([1], dtype=np.uint64))
    np.save(folder / TRAIN, np.array([0]))
    facts = make_corpus_facts("one", num_tokens=1).model_copy(update={"folder": str(folder)})
    found = ensure_packing(facts, SIZE)
    assert (found.best_fit.num_windows, found.best_fit.num_text_tokens) == (0, 0)
    assert open_bins(facts, SIZE, found.fingerprint).num_bins == 0


def test_contiguous_windows_need_no_index(facts: CorpusFacts) -> None:
    assert isinstance(open_windows(facts, SIZE, None), View)
    assert not (Path(facts.folder) / "bins-6").exists()


def test_the_manifest_says_what_the_index_is_of(facts: CorpusFacts) -> None:
    found = ensure_packing(facts, SIZE)
    manifest = read_json(
        Path(facts.folder) / "bins-6" / "MANIFEST.json", what="it", error=CorpusError
    )
    assert manifest["tokens"] == facts.tokens
    assert manifest["fingerprint"] == found.fingerprint
    assert manifest["files"].keys() == {*FILES, "facts.json"}
