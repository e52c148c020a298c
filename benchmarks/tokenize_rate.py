"""`prepare` end to end against bare `encode_batch_fast` on the same text and threads.

The two take turns and are compared pair by pair: where other work shares the machine, timing all of
one and then all of the other compares hours of the day. Processor seconds hardly feel that work,
but do not see a core that stands idle; so both are told.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import Figure, write_results
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.corpus.place import SourceText
from rewarm.corpus.prepare import prepare_source
from rewarm.model.vocabulary import train_bpe
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.stages.demo_text import DemoLimits, harvest_demo_text

NUM_PAIRS = 7


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds on the clock, and of the processors, that `act` takes."""
    clock, before = time.perf_counter(), os.times()
    act()
    after = os.times()
    used = after.user + after.system - before.user - before.system
    return time.perf_counter() - clock, used


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = harvest_demo_text(
            folder / "text",
            limits=DemoLimits(
                num_old_characters=8_000_000, num_new_characters=10_000, num_qa_pairs=10
            ),
        )
        documents = [json.loads(line)["text"] for line in text.old.path.open("rb")]
        tokenizer_json = train_bpe(documents, 8192)
        (folder / "tokenizer.json").write_text(tokenizer_json)
        (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
        tokenizer = Tokenizer.from_str(tokenizer_json)
        source = SourceRecipe(path=str(text.old.path), role="new")
        count = iter(range(100))
        num_bytes = sum(len(document.encode()) for document in documents)

        def bare() -> object:
            return tokenizer.encode_batch_fast(documents, add_special_tokens=False)

        def ours() -> object:
            return prepare_source(
                SourceText("old", source, [text.old.path], folder, folder, TokenizerRecipe()),
                prepared_root=folder / f"prepared-{next(count)}",
                vocab_size=8192,
            )

        bare()
        pairs = [(seconds(bare), seconds(ours)) for _ in range(NUM_PAIRS)]
    megabytes = num_bytes / 1e6
    peer = "bare tokenizers.encode_batch_fast"
    ratio = statistics.median(one[0] / two[0] for one, two in pairs)
    cpu_ratio = statistics.median(one[1] / two[1] for one, two in pairs)
    write_results(
        "tokenize_rate",
        [
            Figure(
                "prepare", megabytes / statistics.median(p[1][0] for p in pairs), "MB/s", "higher"
            ),
            Figure(
                "encode_batch_fast",
                megabytes / statistics.median(p[0][0] for p in pairs),
                "MB/s",
                "higher",
            ),
            Figure("ratio", ratio, "", "higher", 0.8, peer),
            Figure("ratio in processor seconds", cpu_ratio, "", "higher", 0.8, peer),
        ],
    )


if __name__ == "__main__":
    main()
