"""What contiguous and best-fit windows do to real corpora, and how fast documents are packed.

Give it a folder of `NAME.jsonl.zst` corpora: `python benchmarks/packing.py FOLDER`. Each is
tokenized with a vocabulary of 8,192 that is trained on a part of all of them. The rates are over
lengths that are drawn from theirs.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from record import Figure, median_s, write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.corpus.bins import LOT_PIECES, ensure_packing, open_bins, pack
from rewarm.corpus.packed import PackedView
from rewarm.corpus.place import SourceText
from rewarm.corpus.prepare import prepare_source
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.corpus.views import open_view
from rewarm.model.vocabulary import train_bpe
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import WAYS, PackingFacts

LENGTHS = (512, 2048, 8192)
LENGTH = 2048
VOCAB_SIZE = 8192
NUM_DOCUMENTS = 1_000_000
NUM_WINDOWS = 2000


def prepared(paths: Sequence[Path], folder: Path) -> list[CorpusFacts]:
    texts: list[str] = []
    for path in paths:
        source = SourceRecipe(path=str(path), role="new", format="jsonl", held_out=0.0)
        documents = [found.text for found, _ in read_documents(path, source, Rejections())]
        texts += documents[:: max(1, len(documents) // 40)]
    (folder / "tokenizer.json").write_text(train_bpe(texts, VOCAB_SIZE))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return [
        prepare_source(
            SourceText(
                path.name.partition(".")[0],
                SourceRecipe(path=str(path), role="new", format="jsonl", held_out=0.0),
                [path],
                folder,
                folder,
                TokenizerRecipe(),
            ),
            prepared_root=folder / "prepared",
            vocab_size=VOCAB_SIZE,
        )
        for path in paths
    ]


def compared(name: str, length: int, found: Sequence[PackingFacts]) -> list[Figure]:
    """Return the share of documents that each way cuts, and the padding of best fit."""
    figures: list[Figure] = []
    num_documents = sum(facts.num_documents for facts in found)
    where = f"{name}, {length:,} tokens"
    for way in WAYS:
        share = sum(facts.way(way).num_cut for facts in found) / num_documents
        figures.append(Figure(f"documents cut, {way}: {where}", 100 * share, "%", "lower"))
    text = sum(facts.best_fit.num_text_tokens for facts in found)
    windows = sum(facts.best_fit.num_windows for facts in found)
    padding = 1 - text / (windows * length)
    return [*figures, Figure(f"padding, best-fit: {where}", 100 * padding, "%", "lower")]


def packing_rate(sizes: np.ndarray) -> list[Figure]:
    """Return the rate at which documents of such sizes are packed."""
    rng = np.random.default_rng(0)
    figures: list[Figure] = []
    for length in LENGTHS:
        offsets = np.concatenate(([0], np.cumsum(rng.choice(sizes, NUM_DOCUMENTS))))
        seconds = median_s(functools.partial(pack, offsets, length), repeats=3)
        rate = NUM_DOCUMENTS / seconds / 1e6
        figures.append(Figure(f"packing into {length:,} tokens", rate, "M documents/s", "higher"))
    return figures


def gather_rate(facts: CorpusFacts) -> list[Figure]:
    """Return the rates at which packed and contiguous windows are gathered, page cache warm."""
    found = ensure_packing(facts, LENGTH)
    view = open_view(facts)
    packed = PackedView(view, open_bins(facts, LENGTH, found.fingerprint))
    rng = np.random.default_rng(0)
    figures: list[Figure] = []
    for name, source, number in (
        ("packed", packed, found.best_fit.num_windows),
        ("contiguous", view, found.contiguous.num_windows),
    ):
        windows = rng.integers(0, number, NUM_WINDOWS)
        seconds = median_s(functools.partial(source.sequences, windows, LENGTH))
        rate = NUM_WINDOWS * LENGTH / seconds / 1e6
        goal = 20 if name == "packed" else None
        figures.append(Figure(f"{name} windows gathered", rate, "M tokens/s", "higher", goal))
    return figures


def peak_bytes(num_documents: int) -> int:
    """Return the memory that packing takes beyond its input, the index included."""
    sizes = np.random.default_rng(0).integers(20, 1500, num_documents)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    tracemalloc.start()
    pack(offsets, LENGTH)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("name a folder with *.jsonl.zst")
    paths = sorted(Path(sys.argv[1]).glob("*.jsonl.zst"))
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        corpora = prepared(paths, Path(name))
        for length in LENGTHS:
            found = [ensure_packing(facts, length) for facts in corpora]
            figures += compared("all corpora", length, found)
            if length == LENGTH:
                for facts, of_corpus in zip(corpora, found, strict=True):
                    figures += compared(facts.name, length, [of_corpus])
        sizes = np.concatenate([np.diff(open_view(facts).offsets) for facts in corpora])
        figures += packing_rate(sizes)
        figures += gather_rate(max(corpora, key=lambda facts: facts.num_tokens))
    for num_documents in (LOT_PIECES, 4 * LOT_PIECES):
        per_document = peak_bytes(num_documents) / num_documents
        label = f"memory for packing {num_documents / 1e6:.1f} M documents"
        figures.append(Figure(label, per_document, "bytes/document", "lower"))
    write_results("packing", figures)


if __name__ == "__main__":
    main()
