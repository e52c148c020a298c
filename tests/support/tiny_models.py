"""A Llama of a few thousand parameters with a real byte-level BPE, made in a second."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from rewarm.model.load import new_llama, save_weights
from rewarm.model.vocabulary import train_bpe

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Continue the pretraining of a language model instead of training a new one.",
    "Every document begins with a token and ends with another one.",
    "def add(first, second):\n    return first + second\n",
    "Größe, naïve café, 東京, and an emoji 🙂 to have some bytes.",
] * 20


@functools.cache
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


FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "olmo2", "gemma2", "gpt_neox", "gpt2")


def family_model(family: str, *, vocab_size: int = 320, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny random model of a family, far from uniform so that differences show."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shapes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    special: dict[str, dict[str, Any]] = {
        "qwen2": {"num_key_value_heads": 2},
        "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
        "mistral": {"num_key_value_heads": 2, "sliding_window": None},
        "gemma2": {
            "num_key_value_heads": 2,
            "head_dim": 12,
            "query_pre_attn_scalar": 12,
            "sliding_window": 8,
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 0.8,
        },
        "gemma": {"num_key_value_heads": 2, "head_dim": 8},
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    }
    if family == "gpt2":
        shapes = {}
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": vocab_size,
            "initializer_range": 0.2,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": None,
            **shapes,
            **special.get(family, {}),
            **changes,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # As `load_base` has it: transformers below 5.4 would leave the cap out.
        capped = getattr(config, "attn_logit_softcapping", None) is not None
        return AutoModelForCausalLM.from_config(
            config, attn_implementation="eager" if capped else None
        )


def make_family_folder(folder: Path, family: str, **changes: Any) -> Path:
    """Write a `family_model` and its tokenizer in Hugging Face format; return the folder."""
    save_weights(family_model(family, **changes), folder)
    (folder / "tokenizer.json").write_text(make_tokenizer_json(), encoding="utf-8")
    return folder
