"""What a checkpoint folder says of itself, read in milliseconds and without running anything.

`config.json` gives shapes, the headers of the safetensors files give every tensor, the tokenizer
files give ids. Whatever could run code from the folder (pickles, `auto_map`, a kernel to download)
is refused here, before any library opens it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rewarm.artifacts import file_sha256, parse_json
from rewarm.errors import BaseModelError, Problems, remedy_of
from rewarm.planning.foreign_code import note_foreign_code, read_bounded
from rewarm.planning.weight_files import (
    FLOAT_BYTES,
    WeightFile,
    WeightTensor,
    read_weight_files,
    weights_fingerprint,
)
from rewarm.records.facts import ModelFacts, NewPieces

__all__ = ["EXPANDED_LAYERS", "NEW_PIECES", "read_model_facts"]

_DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_MAX_CARD_CHARACTERS = 2**16
EXPANDED_LAYERS = "rewarm_expanded_layers"
"""Key of config.json that lists the layers which `rewarm expand` has added."""
NEW_PIECES = "rewarm_new_pieces"
"""Key of config.json that tells of tokens which `rewarm extend-vocabulary` has added."""
_EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "word_embeddings.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
# Masks and tables that old versions of GPT-2 and GPT-NeoX saved beside their weights.
_BUFFERS = (
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    "rotary_emb.inv_freq",
)


@dataclass(frozen=True, slots=True)
class _Shapes:
    """The sizes that `config.json` gives, under one name for all families."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    max_positions: int


def read_model_facts(folder: Path) -> ModelFacts:
    """Return the facts of the checkpoint in `folder`.

    Raises BaseModelError with everything found wrong: no folder, no or bad `config.json`, a road to
    foreign code, pickles only, truncated or inconsistent safetensors, mixtures of experts,
    quantised or non-causal models, a missing tokenizer, sizes that config, weights and tokenizer
    do not agree on.
    """
    problems = Problems()
    _check_folder(folder, problems)
    problems.raise_as(BaseModelError)
    config = _read_config(folder / "config.json", problems)
    note_foreign_code(folder, problems)
    shapes = None
    if config is not None:
        where = str(folder / "config.json")
        _check_kind(config, where, problems)
        shapes = _read_shapes(config, where, problems)
    files = read_weight_files(folder, problems)
    largest_id = _read_largest_token_id(folder / "tokenizer.json", problems)
    if config is not None and shapes is not None:
        _check_agreement(folder, config, shapes, files, largest_id, problems)
    problems.raise_as(BaseModelError)
    assert config is not None
    assert shapes is not None
    return _assemble(folder, config, shapes, files, largest_id)


def _check_folder(folder: Path, problems: Problems) -> None:
    fix = "give the folder that holds config.json"
    try:
        if not folder.is_dir():
            kind = "a file, not a folder" if folder.exists() else "not there"
            problems.add(str(folder), f"the base is {kind}", fix)
        else:
            next(folder.iterdir(), None)
    except OSError as error:
        problems.add(str(folder), f"it cannot be read ({error.strerror})", remedy_of(error))


def _read_config(path: Path, problems: Problems) -> dict[str, Any] | None:
    """Return the JSON object in the file; None, with a problem noted, where there is none."""
    try:
        value = parse_json(read_bounded(path))
    except FileNotFoundError:
        problems.add(str(path), "it is not there", "give a folder in Hugging Face format")
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror})", remedy_of(error))
    except ValueError as error:
        problems.add(str(path), f"not valid JSON ({error})", "restore the file")
    else:
        if isinstance(value, dict):
            return value
        problems.add(str(path), "it does not hold a JSON object", "restore the file")
    return None


def _check_kind(config: dict[str, Any], where: str, problems: Problems) -> None:
    """Note what makes this another kind of model than a dense causal one with plain weights."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        problems.add(where, "it has no model_type", "restore the file")
    experts = _expert_key(config)
    if experts is not None or "moe" in str(model_type):
        detail = f" ({experts})" if experts else ""
        problems.add(
            where,
            f"{model_type!r} is a mixture of experts{detail}, which is not supported yet",
            "use a dense base",
        )
    if config.get("quantization_config"):
        problems.add(where, "its weights are quantised", "use the original weights")
    if config.get("transformers_weights"):
        problems.add(
            where,
            f"transformers_weights = {config['transformers_weights']!r} names other weights",
            "remove the key; model.safetensors or its index are read",
        )
    architectures = _architectures(config)
    if config.get("is_encoder_decoder") or not architectures or not _is_causal(architectures[0]):
        named = ", ".join(architectures) or "none named"
        problems.add(
            where,
            f"its architecture ({named}) is not a causal language model",
            "use a checkpoint whose config.json names a …ForCausalLM architecture",
        )


def _expert_key(value: Any) -> str | None:
    """Return `key = number` of the first count of experts above 1, at any depth."""
    if isinstance(value, list):
        return next((found for inner in value if (found := _expert_key(inner))), None)
    if not isinstance(value, dict):
        return None
    for key in _EXPERT_KEYS:
        if isinstance(value.get(key), int) and value[key] > 1:
            return f"{key} = {value[key]}"
    return _expert_key(list(value.values()))


def _architectures(config: dict[str, Any]) -> list[str]:
    value = config.get("architectures")
    return [str(name) for name in value] if isinstance(value, list) else []


def _is_causal(architecture: str) -> bool:
    return architecture.endswith("ForCausalLM") or architecture == "GPT2LMHeadModel"


def _read_shapes(config: dict[str, Any], where: str, problems: Problems) -> _Shapes | None:
    """Return the sizes; None, with every problem noted, where one is missing or impossible.

    Names differ between families: GPT-2 has n_embd, n_layer, n_head, n_positions, n_inner; all
    others here have hidden_size and so on. Defaults are those of transformers: as many key-value
    heads as heads, hidden_size / heads per head, and 4 · hidden_size between.
    """
    before = len(problems)

    def number(*keys: str, default: int | None = None) -> int:
        given = {key: config[key] for key in keys if config.get(key) is not None}
        for key, value in given.items():
            if type(value) is int and value > 0:
                return value
            problems.add(where, f"{key} = {value!r} is not a positive number", "restore the file")
        if not given and default is None:
            problems.add(where, f"it has no {' or '.join(keys)}", "restore the file")
        return default or 1

    hidden = number("hidden_size", "n_embd")
    heads = number("num_attention_heads", "n_head")
    key_value_heads = number("num_key_value_heads", default=heads)
    shapes = _Shapes(
        hidden_size=hidden,
        num_layers=number("num_hidden_layers", "n_layer"),
        num_heads=heads,
        num_key_value_heads=key_value_heads,
        head_size=number("head_dim", default=max(1, hidden // heads)),
        intermediate_size=number("intermediate_size", "n_inner", default=4 * hidden),
        vocab_size=number("vocab_size"),
        max_positions=number("max_position_embeddings", "n_positions", "n_ctx"),
    )
    if len(problems) == before:
        _check_heads(config, shapes, where, problems)
    return shapes if len(problems) == before else None


def _check_heads(config: dict[str, Any], shapes: _Shapes, where: str, problems: Problems) -> None:
    if config.get("head_dim") is None and shapes.hidden_size % shapes.num_heads:
        problems.add(
            where,
            f"hidden_size {shapes.hidden_size} is no multiple of its {shapes.num_heads} heads",
            "restore the file",
        )
    if shapes.num_heads % shapes.num_key_value_heads:
        problems.add(
            where,
            f"{shapes.num_heads} heads are no multiple of its {shapes.num_key_value_heads} "
            "key-value heads",
            "restore the file",
        )


def _read_largest_token_id(path: Path, problems: Problems) -> int | None:
    """Return the largest id that the tokenizer can give; None where it cannot be told."""
    try:
        # Not parse_json: its check of the depth takes seconds on a million merges, and the library
        # refuses depth by itself.
        tokenizer = json.loads(read_bounded(path))
        vocabulary = tokenizer["model"]["vocab"]
        added = [token["id"] for token in tokenizer.get("added_tokens") or ()]
        # A dict for BPE, WordPiece and WordLevel; a list of (token, score) for Unigram.
        ids = vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        return max(int(token_id) for token_id in (*ids, *added))
    except FileNotFoundError:
        problems.add(
            str(path),
            "it is not there",
            "make it: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    except OSError as error:
        problems.add(str(path), f"cannot be read ({error.strerror})", remedy_of(error))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problems.add(
            str(path),
            f"not the file of a tokenizer ({type(error).__name__}: {error})",
            "restore the file, or save the tokenizer again",
        )
    return None


def _check_agreement(
    folder: Path,
    config: dict[str, Any],
    shapes: _Shapes,
    files: Sequence[WeightFile],
    largest_id: int | None,
    problems: Problems,
) -> None:
    """Note where config, weights and tokenizer speak of different models."""
    if largest_id is not None and largest_id >= shapes.vocab_size:
        problems.add(
            str(folder / "tokenizer.json"),
            f"its largest token id is {largest_id}, but config.json has vocab_size "
            f"{shapes.vocab_size}",
            "use the tokenizer that belongs to this model",
        )
    tensors = _parameters(files)
    if not tensors:
        return  # told where the files were read
    quantised = next((tensor for tensor in tensors if tensor.dtype not in FLOAT_BYTES), None)
    if quantised is not None:
        problems.add(
            str(folder),
            f"tensor {quantised.name} is {quantised.dtype}: its weights are quantised",
            "use the original weights",
        )
    _check_vocabulary(folder, config, shapes, tensors, problems)


def _check_vocabulary(
    folder: Path,
    config: dict[str, Any],
    shapes: _Shapes,
    tensors: Sequence[WeightTensor],
    problems: Problems,
) -> None:
    """Note where embedding and output head are missing or of another vocabulary."""
    where = str(folder / "config.json")
    embeddings = [tensor for tensor in tensors if tensor.name.endswith(_EMBEDDINGS)]
    heads = [tensor for tensor in tensors if tensor.name.endswith(_HEADS)]
    if not embeddings and not heads:
        problems.add(
            str(folder),
            f"the input embedding is missing (no tensor ends in {', '.join(_EMBEDDINGS)})",
            "download the whole model",
        )
    for tensor in embeddings + heads:
        if tensor.shape[:1] != (shapes.vocab_size,):
            problems.add(
                where,
                f"vocab_size is {shapes.vocab_size}, but {tensor.name} has shape "
                f"{list(tensor.shape)}",
                "use the config.json that belongs to these weights",
            )
    if config.get("tie_word_embeddings") is False and not heads:
        problems.add(
            where,
            "tie_word_embeddings is false, but there is no output head among the tensors",
            "download the whole model, or set tie_word_embeddings to true if they are tied",
        )


def _parameters(files: Sequence[WeightFile]) -> list[WeightTensor]:
    """Return the tensors of all files that are weights rather than saved masks and tables."""
    return [
        tensor
        for file in files
        for tensor in file.tensors
        if not tensor.name.endswith(_BUFFERS) and tensor.dtype != "BOOL"
    ]


def _assemble(
    folder: Path,
    config: dict[str, Any],
    shapes: _Shapes,
    files: Sequence[WeightFile],
    largest_id: int | None,
) -> ModelFacts:
    tensors = _parameters(files)
    embedding = sum(tensor.size for tensor in tensors if tensor.name.endswith(_EMBEDDINGS))
    head = sum(tensor.size for tensor in tensors if tensor.name.endswith(_HEADS))
    # A missing tensor means a tied one, whatever config.json leaves to its family's default.
    tied = not (embedding and head) or bool(config.get("tie_word_embeddings"))
    counted_twice = min(embedding, head) if tied else 0
    return ModelFacts(
        folder=str(folder),
        model_type=str(config["model_type"]),
        architecture=_architectures(config)[0],
        num_parameters=sum(tensor.size for tensor in tensors) - counted_twice,
        num_embedding_parameters=embedding or head,
        num_head_parameters=0 if tied else head,
        num_layers=shapes.num_layers,
        hidden_size=shapes.hidden_size,
        num_heads=shapes.num_heads,
        num_key_value_heads=shapes.num_key_value_heads,
        head_size=shapes.head_size,
        intermediate_size=shapes.intermediate_size,
        vocab_size=shapes.vocab_size,
        max_positions=shapes.max_positions,
        tied_embeddings=tied,
        saved_dtype=_saved_dtype(tensors),
        bos_token_id=_token_id(config, folder, "bos_token_id"),
        eos_token_id=_token_id(config, folder, "eos_token_id"),
        dropout=_dropout(config),
        weights_fingerprint=weights_fingerprint(files),
        tokenizer_fingerprint=file_sha256(folder / "tokenizer.json"),
        licence=_licence(folder),
        has_chat_template=_has_chat_template(folder),
        tensor_shapes={
            tensor.name: tensor.shape
            for tensor in tensors
            if not (counted_twice and tensor.name.endswith(_HEADS))
        },
        expanded_layers=_expanded_layers(config, folder, shapes.num_layers),
        num_token_ids=0 if largest_id is None else largest_id + 1,
        new_pieces=_new_pieces(config, folder),
    )


def _new_pieces(config: dict[str, Any], folder: Path) -> NewPieces | None:
    """Return what config.json says of tokens that were added."""
    if config.get(NEW_PIECES) is None:
        return None
    try:
        return NewPieces.model_validate(config[NEW_PIECES])
    except ValidationError as error:
        raise BaseModelError.one(
            str(folder / "config.json"),
            f"{NEW_PIECES} does not tell of new tokens ({error.error_count()} problems)",
            "make the folder again with `rewarm extend-vocabulary`",
        ) from error


def _expanded_layers(config: dict[str, Any], folder: Path, num_layers: int) -> tuple[int, ...]:
    """Return the layers that `rewarm expand` has added, as config.json lists them."""
    value = config.get(EXPANDED_LAYERS, [])
    if isinstance(value, list) and all(type(n) is int and 0 <= n < num_layers for n in value):
        return tuple(sorted(set(value)))
    raise BaseModelError.one(
        str(folder / "config.json"),
        f"{EXPANDED_LAYERS} = {value!r} is no list of its {num_layers} layers",
        "make the folder again with `rewarm expand`",
    )


def _saved_dtype(tensors: Sequence[WeightTensor]) -> str:
    """Return the type in which most numbers are saved."""
    sizes = dict.fromkeys(FLOAT_BYTES, 0)
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.size
    return _DTYPE_NAMES[max(sizes, key=lambda dtype: sizes[dtype])]


def _dropout(config: dict[str, Any]) -> dict[str, float]:
    """Return the dropout probabilities above 0 by key, without those of other tasks' heads."""
    return {
        key: float(value)
        for key, value in sorted(config.items())
        if "drop" in key
        and not key.startswith(("classifier", "summary"))
        and type(value) in (int, float)
        and value > 0
    }


def _token_id(config: dict[str, Any], folder: Path, key: str) -> int | None:
    """Return `bos_token_id` or `eos_token_id`; where several stop a generation, the first."""
    value = config.get(key)
    if value is None:
        try:
            value = parse_json(read_bounded(folder / "generation_config.json")).get(key)
        except (OSError, ValueError, AttributeError):
            return None
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


def _has_chat_template(folder: Path) -> bool:
    """Tell whether the tokenizer says how messages are written; a damaged file says nothing."""
    if (folder / "chat_template.jinja").is_file():
        return True
    for name in ("tokenizer_config.json", "chat_template.json"):
        try:
            if parse_json(read_bounded(folder / name)).get("chat_template"):
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False


def _licence(folder: Path) -> str | None:
    """Return the licence in the front matter of the model card: its own name, where it is `other`.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_CARD_CHARACTERS)
    except OSError:
        return None
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---", text, re.DOTALL)
    if front is None:
        return None
    found = dict(
        re.findall(r"^(license|license_name):[ \t]*['\"]?([\w.+-]+)", front[1], re.MULTILINE)
    )
    licence: str | None = found.get("license")
    return found.get("license_name", licence) if licence == "other" else licence
