"""The same work by datatrove's tokenizer step and by Megatron's, timed once and told as JSON.

    python benchmarks/tokenize_peers.py PEER TOKENIZER_FOLDER OUTPUT TEXT.jsonl …

`benchmarks/tokenize_rate.py` runs it with the libraries of the group `peers-tokenize` in front,
each time in a process of its own. Importing them is not timed; opening the tokenizer is.

datatrove  its JsonlReader and DocumentTokenizer, unshuffled, by its local executor: a task for
           each file, as many processes as there are tasks (of one, in this process, with threads).
megatron   what `tools/preprocess_data.py --append-eod` does: a pool of processes, one a core, that
           gets the lines of the file 32 at a time, parses and encodes them one by one by Megatron's
           own HuggingFaceTokenizer, and an IndexedDatasetBuilder in this process that writes `.bin`
           and `.idx`. The script is in no package; tokenizer and builder are megatron-core's.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

END = "</s>"


def datatrove(tokenizer: Path, output: Path, texts: list[str]) -> Callable[[], None]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger

    logger.remove()
    folders = {os.path.dirname(text) for text in texts}
    assert len(folders) == 1, "its reader takes the files of one folder"

    def work() -> None:
        LocalPipelineExecutor(
            pipeline=[
                JsonlReader(folders.pop(), glob_pattern=f"*{Path(texts[0]).suffix}"),
                DocumentTokenizer(
                    str(output / "tokens"),
                    tokenizer_name_or_path=str(tokenizer / "tokenizer.json"),
                    eos_token=END,
                    shuffle_documents=False,
                    save_final_metadata=False,
                ),
            ],
            tasks=len(texts),
            workers=len(texts),
            logging_dir=str(output / "logs"),
            start_method="fork",
        ).run()

    return work


class Megatron:
    """The pool's side; the tokenizer is opened once in each process."""

    tokenizer: Any
    end: int

    @staticmethod
    def begin(folder: str) -> None:
        from megatron.core.tokenizers.text.libraries.huggingface_tokenizer import (
            HuggingFaceTokenizer,
        )

        Megatron.tokenizer = HuggingFaceTokenizer(
            folder, use_fast=True, include_special_tokens=True
        )
        Megatron.end = Megatron.tokenizer.tokenizer.convert_tokens_to_ids(END)

    @staticmethod
    def encode(line: str) -> tuple[list[int], int]:
        ids = Megatron.tokenizer.text_to_ids(json.loads(line)["text"])
        return [*ids, Megatron.end], len(line)


def megatron(tokenizer: Path, output: Path, texts: list[str]) -> Callable[[], None]:
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    from megatron.core.tokenizers.text.libraries import huggingface_tokenizer
    from transformers import AutoTokenizer

    del (
        huggingface_tokenizer,
        AutoTokenizer,
    )  # imported here, so that the pool's processes have them
    (text,) = texts
    num_processes = os.cpu_count() or 1

    def work() -> None:
        Megatron.begin(str(tokenizer))
        builder = IndexedDatasetBuilder(
            str(output / "text.bin"),
            dtype=DType.optimal_dtype(Megatron.tokenizer.original_vocab_size),
        )
        with (
            open(text, encoding="utf-8") as file,
            multiprocessing.get_context("fork").Pool(
                num_processes, Megatron.begin, (str(tokenizer),)
            ) as pool,
        ):
            for ids, _ in pool.imap(Megatron.encode, file, 32):
                builder.add_document(ids, [len(ids)])
            builder.finalize(str(output / "text.idx"))
            pool.close()
            pool.join()

    return work


def main() -> None:
    warnings.simplefilter("ignore")
    peer, tokenizer, output, *texts = sys.argv[1:]
    made = {"datatrove": datatrove, "megatron": megatron}[peer]
    folder = Path(output)
    folder.mkdir(parents=True)
    work = made(Path(tokenizer), folder, texts)
    clock, before = time.perf_counter(), os.times()
    work()
    elapsed, after = time.perf_counter() - clock, os.times()
    used = sum(after[:4]) - sum(before[:4])
    print(json.dumps({"clock_s": elapsed, "processor_s": used}))


if __name__ == "__main__":
    main()
