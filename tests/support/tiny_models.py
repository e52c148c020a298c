"""A Llama of a few thousand parameters with a real byte-level BPE, made in a second."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from rewarm.model.load import new_llama

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Continue the pretraining of a language model instead of training a new one.",
    "Every document begins with a token and ends with another one.",
    "def add(first, second):\n    return first + second\n",
    "Größe, naïve café, 東京, and an emoji 🙂 to have some bytes.",
] * 20


def make_tokenizer_json(vocab_size: int = 320) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return tokenizer.to_str()


def make_tiny_base(
    folder: Path,
    *,
    seed: int = 0,
    vocab_size: int = 320,
    hidden_size: int = 32,
    num_layers: int = 2,
    max_positions: int = 128,
    tied_embeddings: bool = True,
) -> Path:
    return new_llama(
        folder,
        tokenizer_json=make_tokenizer_json(vocab_size),
        bos_token="<s>",
        eos_token="</s>",
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=2,
        max_positions=max_positions,
        seed=seed,
        intermediate_size=64,
        tied_embeddings=tied_embeddings,
    )
