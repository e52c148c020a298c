"""Held-out documents and tokenizers made up for tests of the evaluation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rewarm.evaluation.passages import Framing

BEGIN, END = 1, 2
FRAMING = Framing((BEGIN,), (END,))


class ListedDocuments:
    """Documents given as lists of body tokens; a token stands for `bytes_per_token` bytes."""

    def __init__(
        self,
        bodies: Sequence[Sequence[int]],
        *,
        framing: Framing = FRAMING,
        bytes_per_token: int = 3,
    ) -> None:
        self._bodies = bodies
        self._framing = framing
        self._bytes_per_token = bytes_per_token

    @property
    def num_documents(self) -> int:
        return len(self._bodies)

    def document(self, index: int) -> NDArray[np.uint16]:
        framing = self._framing
        framed = [*framing.begin_token_ids, *self._bodies[index], *framing.end_token_ids]
        return np.array(framed, dtype=np.uint16)

    def num_bytes(self, index: int) -> int:
        return self._bytes_per_token * len(self._bodies[index])


def random_bodies(lengths: Sequence[int], *, vocab_size: int, seed: int = 0) -> list[list[int]]:
    """Bodies of these lengths over the ids from 3 (after the frame's) to the vocabulary's end."""
    generator = np.random.default_rng(seed)
    return [generator.integers(3, vocab_size, size=length).tolist() for length in lengths]


def byte_tokenizer() -> Tokenizer:
    """One token per UTF-8 byte: token counts are byte counts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unsplit_tokenizer(text: str, *, vocab_size: int = 400) -> Tokenizer:
    """Merges across spaces and punctuation, so that a token can straddle any boundary."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False)
    tokenizer.train_from_iterator([text] * 50, trainer)
    return tokenizer
