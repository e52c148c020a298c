"""Model folders written byte by byte, without torch: what a header says is what the test said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1}

Shapes = Mapping[str, Sequence[int]]


def write_safetensors(
    path: Path, shapes: Shapes, *, dtypes: Mapping[str, str] | None = None, fill: int = 0
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        dtype = (dtypes or {}).get(name, "F32")
        num_bytes = ITEM_BYTES[dtype]
        for size in shape:
            num_bytes *= size
        offsets = [position, position + num_bytes]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += num_bytes
    write_header(path, header, bytes([fill]) * position)


def write_header(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_tokenizer(folder: Path, *, num_tokens: int = 8, added: Sequence[int] = ()) -> None:
    tokenizer = {
        "model": {"type": "BPE", "vocab": {f"t{i}": i for i in range(num_tokens)}, "merges": []},
        "added_tokens": [{"id": i, "content": f"<{i}>"} for i in added],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def llama_config(**changes: Any) -> dict[str, Any]:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 20,
        "vocab_size": 10,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return {key: value for key, value in {**config, **changes}.items() if value is not None}


LLAMA_SHAPES: Shapes = {
    "model.embed_tokens.weight": [10, 8],
    "model.layers.0.mlp.up_proj.weight": [20, 8],
    "model.norm.weight": [8],
    "lm_head.weight": [10, 8],
}


def write_model(
    folder: Path,
    *,
    config: Any = None,
    shapes: Shapes | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> Path:
    """Write a folder that looks like a checkpoint of these shapes; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = llama_config() if config is None else config
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    write_safetensors(folder / "model.safetensors", shapes or LLAMA_SHAPES, dtypes=dtypes)
    write_tokenizer(folder)
    return folder


def shard(folder: Path) -> dict[str, str]:
    """Split the weights of `write_model` over two files; return the index's map."""
    (folder / "model.safetensors").unlink()
    names = list(LLAMA_SHAPES)
    placed: dict[str, str] = {}
    for number, part in enumerate((names[:2], names[2:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        write_safetensors(folder / file, {name: LLAMA_SHAPES[name] for name in part})
        placed |= dict.fromkeys(part, file)
    write_index(folder, placed)
    return placed


def write_index(folder: Path, placed: Mapping[str, str]) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(placed)}))
