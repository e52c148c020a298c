"""What a checkpoint folder says of itself, read in milliseconds and without running anything.

`config.json` gives shapes, the headers of the safetensors files give every tensor, the tokenizer
files give ids. Whatever could run code from the folder (pickles, `auto_map`) is refused here,
before any library opens it.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewarm.artifacts import canonical_json, file_sha256, parse_json
from rewarm.errors import BaseModelError, Problems
from rewarm.records.facts import ModelFacts

__all__ = ["read_model_facts"]

_MAX_HEADER_BYTES = 100 * 2**20
_SAMPLE_BYTES = 2**20
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_REMOTE_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def read_model_facts(folder: Path) -> ModelFacts:
    """Return the facts of the checkpoint in `folder`.

    Raises BaseModelError with everything found wrong: no folder, no or bad `config.json`, remote
    code, pickles only, truncated or inconsistent safetensors, mixtures of experts, quantised or
    non-causal models, a missing tokenizer, a vocabulary smaller than the tokenizer's.
    """
    problems = Problems()
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "not there"
        problems.add(str(folder), f"the base is {kind}", "give the folder that holds config.json")
        problems.raise_as(BaseModelError)
    config = _read_object(folder / "config.json", problems, needed=True)
    if config is not None:
        _check_config(config, folder, problems)
    tensors, files = _read_tensors(folder, problems)
    tokenizer = _read_object(folder / "tokenizer.json", problems, needed=True)
    problems.raise_as(BaseModelError)
    assert config is not None
    assert tokenizer is not None
    vocab_size = _first(config, "vocab_size")
    largest_id = _largest_token_id(tokenizer)
    if not isinstance(vocab_size, int) or largest_id >= vocab_size:
        problems.add(
            str(folder / "tokenizer.json"),
            f"its largest token id is {largest_id}, but config.json has vocab_size {vocab_size}",
            "use the tokenizer that belongs to this model",
        )
    problems.raise_as(BaseModelError)
    return _assemble(folder, config, tensors, files)


def _read_object(path: Path, problems: Problems, *, needed: bool) -> dict[str, Any] | None:
    remedies = {
        "config.json": "give a folder in Hugging Face format",
        "tokenizer.json": "make it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
    }
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        if needed:
            problems.add(str(path), "it is not there", remedies[path.name])
        return None
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror})", "check its permissions")
        return None
    except ValueError as error:
        problems.add(str(path), f"not valid JSON ({error})", "restore the file")
        return None
    if not isinstance(value, dict):
        problems.add(str(path), "it does not hold a JSON object", "restore the file")
        return None
    return value


def _check_config(config: dict[str, Any], folder: Path, problems: Problems) -> None:
    where = str(folder / "config.json")
    for key in _nested_keys(config) & set(_REMOTE_CODE_KEYS):
        problems.add(
            where,
            f"{key!r} asks for code from the checkpoint to be run",
            "use a model whose architecture is part of transformers, or remove the key if it is",
        )
    model_type = str(config.get("model_type", ""))
    if any((_first(config, key) or 0) > 1 for key in _EXPERT_KEYS) or "moe" in model_type:
        problems.add(
            where,
            f"{model_type!r} is a mixture of experts, which is not supported yet",
            "use a dense base",
        )
    if config.get("quantization_config"):
        problems.add(
            where, "its weights are quantised", "use the original weights; training needs them"
        )
    architectures = config.get("architectures") or []
    causal = [
        str(name) for name in architectures if str(name).endswith(("CausalLM", "LMHeadModel"))
    ]
    if config.get("is_encoder_decoder") or not causal:
        named = ", ".join(map(str, architectures)) or "none named"
        problems.add(
            where,
            f"its architecture ({named}) is not a causal language model",
            "use a checkpoint whose config.json names a …ForCausalLM architecture",
        )


def _nested_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*(_nested_keys(inner) for inner in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_nested_keys(inner) for inner in value))
    return set()


def _first(config: dict[str, Any], *keys: str) -> Any:
    """Return the first of these keys that is given, in the config or its `text_config`."""
    for holder in (config, config.get("text_config") or {}):
        for key in keys:
            if holder.get(key) is not None:
                return holder[key]
    return None


def _read_tensors(
    folder: Path, problems: Problems
) -> tuple[dict[str, _Tensor], list[tuple[Path, int]]]:
    """Return all tensors by name, and each file with the offset at which its data begin."""
    index_path = folder / "model.safetensors.index.json"
    expected: dict[str, str] | None = None
    if index_path.exists():
        index = _read_object(index_path, problems, needed=False)
        weight_map = (index or {}).get("weight_map")
        expected = weight_map if isinstance(weight_map, dict) else {}
        paths = sorted({folder / str(name) for name in expected.values()})
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        _no_weights(folder, problems)
        return {}, []
    tensors: dict[str, _Tensor] = {}
    files: list[tuple[Path, int]] = []
    for path in paths:
        if not path.is_file():
            problems.add(str(path), "the index names it, but it is not there", "download it again")
            continue
        header = _read_header(path, problems)
        if header is None:
            continue
        found, start = header
        for name in found.keys() & tensors.keys():
            problems.add(str(path), f"tensor {name} stands in two files", "keep one of them")
        tensors.update(found)
        files.append((path, start))
    if expected is not None and not len(problems):
        for name in sorted(expected.keys() ^ tensors.keys()):
            where = "the files, not the index" if name in tensors else "the index, not the files"
            problems.add(str(index_path), f"tensor {name} is in {where}", "download it again")
    return tensors, files


def _no_weights(folder: Path, problems: Problems) -> None:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        problems.add(
            str(folder),
            f"its weights are pickles ({pickles[0]}), which can run code when they are opened",
            "convert them where you trust them: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(folder, safe_serialization=True)",
        )
    else:
        problems.add(str(folder), "there is no *.safetensors file", "download the weights")


def _read_header(path: Path, problems: Problems) -> tuple[dict[str, _Tensor], int] | None:
    """Return the tensors that a safetensors file declares and the offset of its data."""

    def bad(what: str) -> None:
        problems.add(str(path), what, "download the file again; it is damaged")

    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            bad(f"truncated: its header would end at byte {8 + length} of {size}")
            return None
        try:
            header = parse_json(file.read(length))
        except ValueError as error:
            bad(f"its header is not valid JSON ({error})")
            return None
    if not isinstance(header, dict):
        bad("its header is not a JSON object")
        return None
    header.pop("__metadata__", None)
    tensors: dict[str, _Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        try:
            tensor = _Tensor(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            begin, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            bad(f"the entry of tensor {name} is malformed")
            return None
        item_bytes = _ITEM_BYTES.get(tensor.dtype)
        if item_bytes is None or not 0 <= begin <= end or end - begin != tensor.size * item_bytes:
            bad(f"tensor {name} ({tensor.dtype}, {tensor.shape}) does not fill bytes {begin}-{end}")
            return None
        tensors[name] = tensor
        spans.append((begin, end, name))
    spans.sort()
    for (_, end, name), (begin, _, other) in zip(spans, spans[1:], strict=False):
        if begin < end:
            bad(f"tensors {name} and {other} overlap")
            return None
    data_end = 8 + length + max((end for _, end, _ in spans), default=0)
    if data_end != size:
        kind = "truncated" if data_end > size else "too long"
        bad(f"{kind}: its tensors end at byte {data_end} of {size}")
        return None
    return tensors, 8 + length


def _largest_token_id(tokenizer: dict[str, Any]) -> int:
    model = tokenizer.get("model") or {}
    vocabulary = model.get("vocab") or {}
    if isinstance(vocabulary, dict):
        ids = [token_id for token_id in vocabulary.values() if isinstance(token_id, int)]
    else:
        ids = [len(vocabulary) - 1]
    ids += [int(token["id"]) for token in tokenizer.get("added_tokens") or [] if "id" in token]
    return max(ids, default=-1)


def _weights_fingerprint(tensors: dict[str, _Tensor], files: list[tuple[Path, int]]) -> str:
    """Return a fingerprint of names, types, shapes, sizes, and the first and last MiB of data.

    Reading everything would cost minutes on large models; two checkpoints of one training differ
    in every tensor, so the ends of each file tell them apart.
    """
    digest = hashlib.sha256()
    shapes = {name: [tensor.dtype, list(tensor.shape)] for name, tensor in tensors.items()}
    digest.update(canonical_json(shapes).encode("ascii"))
    for path, start in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            for offset in (start, max(start, size - _SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _token_id(config: dict[str, Any], folder: Path, key: str) -> int | None:
    """Return `bos_token_id` or `eos_token_id`; where several stop a generation, the first."""
    value = _first(config, key)
    if value is None:
        try:
            value = parse_json((folder / "generation_config.json").read_bytes()).get(key)
        except (OSError, ValueError, AttributeError):
            value = None
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


def _licence(folder: Path) -> str | None:
    """Return `license:` of the model card's front matter."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None


def _assemble(
    folder: Path,
    config: dict[str, Any],
    tensors: dict[str, _Tensor],
    files: list[tuple[Path, int]],
) -> ModelFacts:
    hidden = int(_first(config, "hidden_size", "n_embd", "d_model") or 0)
    heads = int(_first(config, "num_attention_heads", "n_head") or 1)
    embedding = _size_of(tensors, "embed_tokens.weight", "embed_in.weight", "wte.weight")
    # A missing head tensor means a tied one, whatever config.json leaves to its family's default.
    head = _size_of(tensors, "lm_head.weight", "embed_out.weight")
    tied = head == 0 or bool(_first(config, "tie_word_embeddings"))
    dtypes = [tensor.dtype for tensor in tensors.values()]
    main_dtype = max(set(dtypes), key=lambda dtype: (dtypes.count(dtype), dtype))
    total = sum(tensor.size for tensor in tensors.values())
    return ModelFacts(
        folder=str(folder),
        model_type=str(config.get("model_type", "")),
        architecture=str(config["architectures"][0]),
        num_parameters=total - (head if tied else 0),
        num_embedding_parameters=embedding,
        num_head_parameters=0 if tied else head,
        num_layers=int(_first(config, "num_hidden_layers", "n_layer") or 0),
        hidden_size=hidden,
        num_heads=heads,
        num_key_value_heads=int(_first(config, "num_key_value_heads") or heads),
        head_size=int(_first(config, "head_dim") or hidden // heads),
        intermediate_size=int(_first(config, "intermediate_size", "n_inner") or 4 * hidden),
        vocab_size=int(_first(config, "vocab_size")),
        max_positions=int(
            _first(config, "max_position_embeddings", "n_positions", "n_ctx") or 2048
        ),
        tied_embeddings=tied,
        saved_dtype=_DTYPE_NAMES.get(main_dtype, main_dtype),
        bos_token_id=_token_id(config, folder, "bos_token_id"),
        eos_token_id=_token_id(config, folder, "eos_token_id"),
        weights_fingerprint=_weights_fingerprint(tensors, files),
        tokenizer_fingerprint=file_sha256(folder / "tokenizer.json"),
        licence=_licence(folder),
    )


def _size_of(tensors: dict[str, _Tensor], *endings: str) -> int:
    return sum(tensor.size for name, tensor in tensors.items() if name.endswith(endings))
