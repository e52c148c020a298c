"""Loads a base checkpoint so that what trains is exactly what is on disk, and makes new ones."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewarm.artifacts import write_json
from rewarm.errors import BaseModelError, Problems

__all__ = ["load_base", "new_llama", "quiet_transformers", "save_weights"]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the library's progress bars and notices off the terminal for a while."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_base(
    folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> nn.Module:
    """Return the causal model in `folder`, weights in `dtype`, in training mode, on `device`.

    Local safetensors only; no code from the folder is run. Raises BaseModelError listing every
    tensor that is missing, left over, of another shape than its place, or not finite.
    """
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                # Without this a tensor of another shape raises before the others are looked at.
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseModelError.one(
            str(folder),
            f"transformers cannot load it ({reason})",
            "check that the folder is a causal language model in Hugging Face format",
        ) from error
    _check_tensors(model, info, folder)
    model.config.use_cache = False
    model.to(device)
    model.train()
    return model  # type: ignore[no-any-return]


def _check_tensors(model: Any, info: dict[str, Any], folder: Path) -> None:
    problems = Problems()
    fix = "restore the checkpoint: every tensor of the model must be there once, and no other"
    kinds = (
        ("is missing from the checkpoint", "missing_keys"),
        ("has no place in the model", "unexpected_keys"),
    )
    for kind, key in kinds:
        for name in sorted(info.get(key) or ()):
            problems.add(str(folder), f"tensor {name} {kind}", fix)
    for entry in sorted(info.get("mismatched_keys") or (), key=str):
        name, found, expected = entry if isinstance(entry, tuple) else (entry, "?", "?")
        problems.add(
            str(folder),
            f"tensor {name} has shape {tuple(found)} instead of {tuple(expected)}",
            "make config.json and the weights agree",
        )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            problems.add(
                str(folder),
                f"tensor {name} holds values that are not finite",
                "get an intact checkpoint; training from this one cannot work",
            )
    problems.raise_as(BaseModelError)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write config and safetensors weights as transformers does; tied tensors are stored once."""
    with quiet_transformers():
        model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]


def new_llama(
    folder: Path,
    *,
    tokenizer_json: str,
    bos_token: str,
    eos_token: str,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    max_positions: int,
    seed: int,
    intermediate_size: int | None = None,
    tied_embeddings: bool = True,
) -> Path:
    """Write a Llama with random weights and its tokenizer in Hugging Face format; return `folder`.

    The vocabulary is the tokenizer's. `seed` fixes the weights whatever was drawn before, and
    drawing them leaves the generators of the process as they were.
    """
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer.from_str(tokenizer_json)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size or max(32, hidden_size * 8 // 3 // 32 * 32),
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied_embeddings,
        bos_token_id=tokenizer.token_to_id(bos_token),
        eos_token_id=tokenizer.token_to_id(eos_token),
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        save_weights(LlamaForCausalLM(config), folder)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos_token,
            "eos_token": eos_token,
            "model_max_length": max_positions,
        },
    )
    return folder
