"""Loads a base checkpoint so that what trains is exactly what is on disk, and makes new ones."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rewarm.artifacts import write_json
from rewarm.errors import BaseModelError, Problem, Problems
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.weight_files import WeightFile, read_weight_files

__all__ = [
    "Places",
    "base_without_weights",
    "import_family",
    "load_base",
    "model_drawn_anew",
    "new_llama",
    "quiet_transformers",
    "save_weights",
    "stored_places",
    "tensor_places",
]

# Some of the library's messages are pages long.
_MAX_REASON = 400
_HEADS = frozenset({"lm_head.weight", "embed_out.weight"})


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

    Local safetensors only; no code from the folder is run. Dropout stays as config.json has it
    (`ModelFacts.dropout` tells). Raises BaseModelError for whatever `read_model_facts` refuses, and
    listing every tensor that is missing, left over, of another shape than its place, or not finite.
    """
    read_model_facts(folder)
    try:
        with quiet_transformers():
            model, info = _from_pretrained(folder, dtype)
    except Exception as error:  # the library raises whatever a config leads it to
        raise _cannot_load(folder, error) from error
    _tie_equal_head(model)
    _check_tensors(model, info, folder)
    model.config.use_cache = False
    model.to(device)
    model.train()
    return model  # type: ignore[no-any-return]


def base_without_weights(folder: Path, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the model that `folder` describes, its parameters on the meta device, buffers real.

    For many ranks, none of which holds all of it. Raises BaseModelError as `load_base` does for
    what config.json leads to.
    """
    read_model_facts(folder)
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers(), _parameters_on_meta():
            model = AutoModelForCausalLM.from_config(_config(folder), dtype=dtype)
    except Exception as error:  # as in `load_base`
        raise _cannot_load(folder, error) from error
    model.config.use_cache = False
    model.train()
    return model  # type: ignore[no-any-return]


def import_family(folder: Path) -> None:
    """Import what the library has for models of the folder's family, and make none.

    Raises BaseModelError as `base_without_weights` does.
    """
    read_model_facts(folder)
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        with quiet_transformers():
            MODEL_FOR_CAUSAL_LM_MAPPING[type(_config(folder))]
    except Exception as error:  # as in `load_base`
        raise _cannot_load(folder, error) from error


def model_drawn_anew(folder: Path, seed: int) -> nn.Module:
    """Return a model of the folder's shape with float32 weights as its family begins pretraining.

    `seed` fixes them whatever was drawn before, and drawing leaves the process's generators as they
    were. Raises BaseModelError as `base_without_weights` does.
    """
    read_model_facts(folder)
    from transformers import AutoModelForCausalLM

    try:
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(_config(folder), dtype=torch.float32)
    except Exception as error:  # as in `load_base`
        raise _cannot_load(folder, error) from error
    return model  # type: ignore[no-any-return]


class Places(NamedTuple):
    """Where a folder stores each of a model's tensors, and what it stores beside them.

    `of_tensor` gives (file, name there) for each name of the model; a tied tensor may be stored
    under each of its names, and one that is missing has no place.
    """

    of_tensor: dict[str, list[tuple[Path, str]]]
    left_over: list[str]


def tensor_places(model: nn.Module, files: Iterable[WeightFile]) -> Places:
    """Return where files store a model's tensors, taken by their names alone.

    GPT-NeoX's output head has one name in the library's files and another in its newer models.
    """
    path_of = {tensor.name: file.path for file in files for tensor in file.tensors}
    first_name: dict[int, str] = {}
    places: dict[str, list[tuple[Path, str]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        own = places.setdefault(first_name.setdefault(id(tensor), name), [])
        if name in path_of:
            own.append((path_of.pop(name), name))
    for name in _HEADS & places.keys():
        if not places[name] and (stored := next(iter(_HEADS & path_of.keys()), None)):
            places[name].append((path_of.pop(stored), stored))
    return Places(places, list(path_of))


def stored_places(model: nn.Module, folder: Path) -> dict[str, list[tuple[Path, str]]] | None:
    """Return where a folder stores each of a model's tensors: [(file, name)] by name in the model.

    A tied tensor may be stored under each of its names. None where the folder's names are not the
    model's own (transformers converts or renames on loading).
    """
    problems = Problems()
    files = read_weight_files(folder, problems)
    problems.raise_as(BaseModelError)
    places = tensor_places(model, files)
    if places.left_over or not all(places.of_tensor.values()):
        return None
    return places.of_tensor


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Put every parameter that is registered meanwhile on the meta device; buffers stay real.

    A model that is made on the meta device as a whole has rotary tables without values.
    """
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:  # a tied one stays the one it is
            param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
        register(module, name, param)

    nn.Module.register_parameter = register_on_meta  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _cannot_load(folder: Path, error: Exception) -> BaseModelError:
    reason = " ".join(str(error).split())[:_MAX_REASON]
    return BaseModelError(
        Problem(
            str(folder),
            f"transformers cannot load it ({type(error).__name__}: {reason})",
            "check that the folder is a causal language model in Hugging Face format",
        )
    )


_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, **_LOCAL)
    if getattr(config, "attn_logit_softcapping", None) is not None:
        # Without being asked, old versions take sdpa, which leaves the soft-capping out.
        config._attn_implementation = "eager"
    return config


def _from_pretrained(folder: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """Return the model and the library's account of keys that do not fit."""
    from transformers import AutoModelForCausalLM

    loaded: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
        folder,
        config=_config(folder),
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        # Without this a tensor of another shape raises before the others are looked at.
        ignore_mismatched_sizes=True,
        **_LOCAL,
    )
    return loaded


def _tie_equal_head(model: Any) -> None:
    """Tie a head that was saved beside the embedding it equals, which old versions leave apart."""
    if _head_is_loose(model):
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        if torch.equal(embedding, head):
            model.tie_weights()


def _head_is_loose(model: Any) -> bool:
    """Tell whether the head should be the embedding, and is not."""
    head = model.get_output_embeddings()
    return (
        bool(model.config.tie_word_embeddings)
        and head is not None
        and head.weight is not model.get_input_embeddings().weight
    )


def _check_tensors(model: Any, info: dict[str, Any], folder: Path) -> None:
    problems = Problems()
    fix = "restore the checkpoint: every tensor of the model must be there once, and no other"
    for kind, key in (
        ("is missing from the checkpoint", "missing_keys"),
        ("has no place in the model", "unexpected_keys"),
    ):
        for name in sorted(info[key]):
            problems.add(str(folder), f"tensor {name} {kind}", fix)
    for name, found, expected in sorted(info["mismatched_keys"]):
        problems.add(
            str(folder),
            f"tensor {name} has shape {list(found)} instead of {list(expected)}",
            "make config.json and the weights agree",
        )
    if not len(problems):
        _check_values(model, folder, problems)
    problems.raise_as(BaseModelError)


def _check_values(model: Any, folder: Path, problems: Problems) -> None:
    """Note weights that are not finite, and a head that should be the embedding but is not."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            problems.add(
                str(folder),
                f"tensor {name} holds values that are not finite",
                "get an intact checkpoint; training from this one cannot work",
            )
    if _head_is_loose(model):
        problems.add(
            str(folder / "config.json"),
            "tie_word_embeddings is true, but the checkpoint holds an output head that differs "
            "from the input embedding",
            "set tie_word_embeddings to false, if the head is right",
        )


def save_weights(
    model: nn.Module, folder: Path, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write config and safetensors weights as transformers does; tied tensors are stored once.

    `tensors` are written instead of the model's own, under the names of its `state_dict()`. The
    same weights give the same bytes.
    """
    with quiet_transformers():
        model.save_pretrained(  # type: ignore[operator]
            folder, state_dict=None if tensors is None else dict(tensors)
        )


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
