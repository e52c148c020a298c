"""A Llama of a few thousand parameters with a real byte-level BPE, made in a second."""

from __future__ import annotations

from pathlib import Path

from rewarm.model.load import new_llama
from rewarm.model.vocabulary import train_bpe

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Continue the pretraining of a language model instead of training a new one.",
    "Every document begins with a token and ends with another one.",
    "def add(first, second):\n    return first + second\n",
    "Größe, naïve café, 東京, and an emoji 🙂 to have some bytes.",
] * 20


def make_tokenizer_json(vocab_size: int = 320) -> str:
    return train_bpe(SENTENCES, vocab_size)


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
