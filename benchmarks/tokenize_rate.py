"""`prepare` end to end against bare `tokenizers` and against two peers, on the same text and cores.

All take turns and are compared turn by turn: where other work shares the machine, timing all of one
and then all of the other compares hours of the day. Processor seconds hardly feel that work, but do
not see a core that stands idle; so both are told.

bare        `Tokenizer.encode_batch` (and the faster `encode_batch_fast`, which `prepare` uses) of
            texts that are in memory already; what it gives is thrown away
prepare     reads the JSON lines, checks, encodes, frames, hashes and writes every document, and
            seals the folder under hashes of inputs and outputs, flushed to the disk
datatrove   its own step, in one process with threads, and in a process for each half of the text
Megatron    the work of its preprocess script; benchmarks/tokenize_peers.py says exactly what

The tokens of Megatron's and of `prepare` must be the same, to the last byte. Without the peers'
libraries (`make .peers-tokenize/.ready`) only the first two are compared.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from record import Figure, write_results
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.corpus.place import SourceText
from rewarm.corpus.prepare import prepare_source
from rewarm.model.vocabulary import train_bpe
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.stages.demo_text import DemoLimits, harvest_demo_text

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_TURNS = 5
# Long enough that what is done once (tokenizers opened, folders sealed) is as little as in use.
NUM_COPIES = 2
VOCAB_SIZE = 8192
PEERS = REPOSITORY / ".peers-tokenize"
# What spells one is text to `prepare`, and the token itself to the peers.
SPECIAL = ("<s>", "</s>")


class Took(NamedTuple):
    """Seconds on the clock, and of the processors."""

    clock_s: float
    processor_s: float


def timed(act: Callable[[], object]) -> Took:
    clock, before = time.perf_counter(), os.times()
    act()
    after = os.times()
    used = after.user + after.system - before.user - before.system
    return Took(time.perf_counter() - clock, used)


@dataclass(frozen=True)
class Corpus:
    """The text as lines, whole and in halves, with a tokenizer made from it."""

    folder: Path
    documents: list[str]

    @property
    def whole(self) -> Path:
        return self.folder / "whole" / "text.jsonl"

    @property
    def halves(self) -> list[Path]:
        return [self.folder / "halves" / f"{name}.jsonl" for name in "ab"]


def make_corpus(folder: Path) -> Corpus:
    limits = DemoLimits(num_old_characters=8_000_000, num_new_characters=10_000, num_qa_pairs=10)
    found = harvest_demo_text(folder / "harvest", limits=limits)
    every = [json.loads(line)["text"] for line in found.old.path.open("rb")]
    fit = [text for text in every if not any(name in text for name in SPECIAL)]
    corpus = Corpus(folder, fit * NUM_COPIES)
    lines = [json.dumps({"text": text}) + "\n" for text in corpus.documents]
    half = len(lines) // 2
    for path, part in zip(
        (corpus.whole, *corpus.halves), (lines, lines[:half], lines[half:]), strict=True
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(part), encoding="utf-8")
    (folder / "tokenizer.json").write_text(train_bpe(fit, VOCAB_SIZE))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}'
    )
    return corpus


def prepared(corpus: Corpus) -> Path:
    source = SourceRecipe(path=str(corpus.whole), role="new")
    root = corpus.folder / "prepared"
    shutil.rmtree(root, ignore_errors=True)
    facts = prepare_source(
        SourceText("text", source, [corpus.whole], corpus.folder, corpus.folder, TokenizerRecipe()),
        prepared_root=root,
        vocab_size=VOCAB_SIZE,
    )
    return Path(facts.folder) / "shard-00000.bin"


def by_peer(peer: str, corpus: Corpus, texts: list[Path]) -> Took:
    output = corpus.folder / peer
    shutil.rmtree(output, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(PEERS), "HF_HUB_OFFLINE": "1"}
    script = REPOSITORY / "benchmarks" / "tokenize_peers.py"
    command = [sys.executable, str(script), peer, str(corpus.folder), str(output), *map(str, texts)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return Took(**json.loads(done.stdout.splitlines()[-1]))


def turn(corpus: Corpus, tokenizer: Tokenizer, *, with_peers: bool) -> dict[str, Took]:
    found = {
        "encode_batch": timed(
            lambda: tokenizer.encode_batch(corpus.documents, add_special_tokens=False)
        ),
        "prepare": timed(lambda: prepared(corpus)),
        "encode_batch_fast": timed(
            lambda: tokenizer.encode_batch_fast(corpus.documents, add_special_tokens=False)
        ),
    }
    if with_peers:
        found["datatrove"] = by_peer("datatrove", corpus, [corpus.whole])
        found["datatrove in two processes"] = by_peer("datatrove", corpus, corpus.halves)
        found["Megatron"] = by_peer("megatron", corpus, [corpus.whole])
    return found


def figures(turns: list[dict[str, Took]], megabytes: float) -> Iterator[Figure]:
    for name in turns[0]:
        rate = megabytes / statistics.median(one[name].clock_s for one in turns)
        yield Figure(name, rate, "MB/s", "higher")
    for name in turns[0].keys() - {"prepare"}:
        goal = 0.9 if name.startswith("encode") else 1.0
        for what, field in (("", 0), (" in processor seconds", 1)):
            ratio = statistics.median(one[name][field] / one["prepare"][field] for one in turns)
            yield Figure(f"rate against {name}{what}", ratio, "", "higher", goal, name)


def main() -> None:
    with_peers = (PEERS / ".ready").is_file()
    with tempfile.TemporaryDirectory() as name:
        corpus = make_corpus(Path(name))
        tokenizer = Tokenizer.from_file(str(corpus.folder / "tokenizer.json"))
        turn(corpus, tokenizer, with_peers=with_peers)  # everything is read and compiled once
        if with_peers:
            ours = (corpus.folder / "prepared").glob("*/shard-00000.bin")
            theirs = corpus.folder / "megatron" / "text.bin"
            assert next(ours).read_bytes() == theirs.read_bytes(), "not the same tokens"
        turns = [turn(corpus, tokenizer, with_peers=with_peers) for _ in range(NUM_TURNS)]
        num_bytes = sum(len(document.encode()) for document in corpus.documents)
    write_results("tokenize_rate", sorted(figures(turns, num_bytes / 1e6), key=lambda f: f.name))


if __name__ == "__main__":
    main()
