"""`prepare` end to end against bare `encode_batch_fast` on the same text and threads."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from record import Figure, median_s, write_results
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rewarm.corpus.prepare import prepare_source
from rewarm.model.vocabulary import train_bpe
from rewarm.recipe.schema import SourceRecipe, TokenizerRecipe
from rewarm.stages.demo_text import DemoLimits, harvest_demo_text


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
        bare = median_s(
            lambda: tokenizer.encode_batch_fast(documents, add_special_tokens=False), repeats=3
        )
        ours = median_s(
            lambda: prepare_source(
                "old",
                source,
                recipe_folder=folder,
                prepared_root=folder / f"prepared-{next(count)}",
                tokenizer_folder=folder,
                tokenizer_recipe=TokenizerRecipe(),
                vocab_size=8192,
            ),
            repeats=3,
        )
    write_results(
        "tokenize_rate",
        [
            Figure("prepare", num_bytes / ours / 1e6, "MB/s", "higher"),
            Figure("encode_batch_fast", num_bytes / bare / 1e6, "MB/s", "higher"),
            Figure("ratio", bare / ours, "", "higher", 0.8, "bare tokenizers.encode_batch_fast"),
        ],
    )


if __name__ == "__main__":
    main()
