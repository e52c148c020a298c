"""Facts of a base read from headers alone, and every folder that is refused, by its message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewarm.errors import BaseModelError
from rewarm.planning.model_facts import read_model_facts
from tests.support.model_folders import (
    LLAMA_SHAPES,
    Shapes,
    llama_config,
    shard,
    write_header,
    write_index,
    write_model,
    write_safetensors,
    write_tokenizer,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "a base – naïve")


def refusal(folder: Path) -> str:
    with pytest.raises(BaseModelError) as caught:
        read_model_facts(folder)
    assert all(problem.fix for problem in caught.value.problems)
    return str(caught.value)


# What is read


def test_a_llama_folder(folder: Path) -> None:
    facts = read_model_facts(folder)
    assert facts.folder == str(folder)
    assert (facts.model_type, facts.architecture) == ("llama", "LlamaForCausalLM")
    assert facts.num_parameters == 80 + 160 + 8 + 80
    assert (facts.num_embedding_parameters, facts.num_head_parameters) == (80, 80)
    assert not facts.tied_embeddings
    assert (facts.num_layers, facts.hidden_size, facts.intermediate_size) == (1, 8, 20)
    assert (facts.num_heads, facts.num_key_value_heads, facts.head_size) == (4, 2, 2)
    assert (facts.vocab_size, facts.max_positions) == (10, 64)
    assert (facts.bos_token_id, facts.eos_token_id) == (1, 2)
    assert facts.saved_dtype == "float32"
    assert facts.dropout == {}
    assert facts.licence is None


GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 8,
    "n_layer": 3,
    "n_head": 2,
    "n_positions": 32,
    "n_ctx": 32,
    "vocab_size": 10,
    "resid_pdrop": 0.1,
    "attn_pdrop": 0.0,
    "summary_first_dropout": 0.1,
}
FAMILIES: dict[str, tuple[dict[str, Any], Shapes, dict[str, object]]] = {
    "tied by a missing head": (
        llama_config(tie_word_embeddings=None),
        {name: shape for name, shape in LLAMA_SHAPES.items() if name != "lm_head.weight"},
        {"tied_embeddings": True, "num_parameters": 248, "num_head_parameters": 0},
    ),
    "tied, but the head is saved too": (
        llama_config(tie_word_embeddings=True),
        LLAMA_SHAPES,
        {"tied_embeddings": True, "num_parameters": 248, "num_head_parameters": 0},
    ),
    "gemma, whose heads are wider than hidden_size / heads": (
        llama_config(model_type="gemma", architectures=["GemmaForCausalLM"], head_dim=16),
        LLAMA_SHAPES,
        {"head_size": 16, "model_type": "gemma"},
    ),
    "gpt-2, with other names, saved masks and dropout": (
        GPT2,
        {
            "wte.weight": [10, 8],
            "wpe.weight": [32, 8],
            "h.0.attn.bias": [1, 1, 32, 32],
            **{f"h.{layer}.ln_1.weight": [8] for layer in range(3)},
        },
        {
            "num_parameters": 80 + 256 + 24,
            "num_layers": 3,
            "num_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 32,
            "max_positions": 32,
            "tied_embeddings": True,
            "dropout": {"resid_pdrop": 0.1},
        },
    ),
    "pythia": (
        llama_config(
            model_type="gpt_neox",
            architectures=["GPTNeoXForCausalLM"],
            num_key_value_heads=None,
            classifier_dropout=0.1,
        ),
        {
            "gpt_neox.embed_in.weight": [10, 8],
            "gpt_neox.layers.0.attention.bias": [1, 1, 64, 64],
            "gpt_neox.layers.0.attention.dense.bias": [8],
            "gpt_neox.layers.0.attention.rotary_emb.inv_freq": [1],
            "embed_out.weight": [10, 8],
        },
        {
            "num_parameters": 168,
            "num_head_parameters": 80,
            "num_key_value_heads": 4,
            "dropout": {},
        },
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(tmp_path: Path, name: str) -> None:
    config, shapes, expected = FAMILIES[name]
    facts = read_model_facts(write_model(tmp_path, config=config, shapes=shapes))
    assert {key: getattr(facts, key) for key in expected} == expected


def test_the_saved_type_is_that_of_most_numbers(tmp_path: Path) -> None:
    dtypes = dict.fromkeys(list(LLAMA_SHAPES)[:2], "BF16")
    assert read_model_facts(write_model(tmp_path, dtypes=dtypes)).saved_dtype == "bfloat16"


def test_token_ids_fall_back_on_the_generation_config(tmp_path: Path) -> None:
    config = llama_config(bos_token_id=None, eos_token_id=None)
    folder = write_model(tmp_path, config=config)
    assert read_model_facts(folder).eos_token_id is None
    (folder / "generation_config.json").write_text('{"bos_token_id": 3, "eos_token_id": [4, 5]}')
    facts = read_model_facts(folder)
    assert (facts.bos_token_id, facts.eos_token_id) == (3, 4)


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Model", "apache-2.0"),
        ("---\r\nlicense: 'mit'\r\n---\r\n", "mit"),
        ("\ufeff---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: x\n---\nlicense: mit\n", None),
        ("no front matter\nlicense: mit\n", None),
    ],
)
def test_the_licence_is_that_of_the_front_matter(
    folder: Path, front: str, licence: str | None
) -> None:
    (folder / "README.md").write_text(front, encoding="utf-8", newline="")
    assert read_model_facts(folder).licence == licence


def test_sharded_weights(folder: Path) -> None:
    whole = read_model_facts(folder)
    shard(folder)
    sharded = read_model_facts(folder)
    assert sharded.num_parameters == whole.num_parameters
    assert sharded.weights_fingerprint != whole.weights_fingerprint


def test_the_fingerprint_tells_weights_of_one_shape_apart(tmp_path: Path) -> None:
    # 3 MiB between two tensors of the same values in both: only its first bytes are looked at.
    shapes: Shapes = {"a": [2**18], **LLAMA_SHAPES, "m": [3 * 2**18], "z": [2**18]}
    first, second, third = (write_model(tmp_path / name, shapes=shapes) for name in "abc")
    data = bytearray((second / "model.safetensors").read_bytes())
    start = len(data) - (3 + 1) * 2**20
    data[start] = 1
    (second / "model.safetensors").write_bytes(data)
    prints = [read_model_facts(folder).weights_fingerprint for folder in (first, second, third)]
    assert prints[0] == prints[2] != prints[1]


def test_neither_torch_nor_transformers_nor_safetensors_is_imported(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from rewarm.planning import model_facts; "
        "model_facts.read_model_facts(Path(sys.argv[1])); "
        "assert not {'torch', 'transformers', 'safetensors', 'tokenizers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script, folder], check=True)


# What is refused: the folder


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: the base is not there" in refusal(tmp_path / "none")


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    assert "config.json: the base is a file, not a folder" in refusal(folder / "config.json")


def test_a_loop_of_symlinks(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "loop: the base is not there" in refusal(tmp_path / "loop")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")
    told = refusal(folder)
    assert "config.json: cannot be read (Too many levels of symbolic links)\n    → mend" in told


def test_an_empty_folder_is_told_everything_that_it_lacks(tmp_path: Path) -> None:
    text = refusal(tmp_path)
    assert f"{tmp_path / 'config.json'}: it is not there" in text
    assert f"{tmp_path}: there is no model.safetensors" in text
    assert f"{tmp_path / 'tokenizer.json'}: it is not there" in text
    assert "save_pretrained(folder)" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
@pytest.mark.parametrize("name", ["", "config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_without_permission(folder: Path, name: str) -> None:
    path = folder / name
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        assert "cannot be read (Permission denied)" in refusal(folder)
    finally:
        path.chmod(mode)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_or_a_pipe_instead_of_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    assert folder.name in refusal(folder)
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    assert folder.name in refusal(folder)


# What is refused: config.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.json: not valid JSON (Expecting value"),
        ('{"hidden_size": NaN}', "config.json: not valid JSON (NaN is not a JSON number)"),
        ("[" * 100_000, "config.json: not valid JSON (nested too deeply)"),
        ("[1]", "config.json: it does not hold a JSON object"),
    ],
)
def test_a_config_that_is_no_json_object(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(write_model(tmp_path, config=text))


def test_invalid_utf8(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    assert "config.json: not valid JSON ('utf-8' codec can't decode" in refusal(folder)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"auto_map": {"AutoModel": "x.Y"}}, "'auto_map' asks for code to be run"),
    ({"text_config": {"deep": [{"auto_map": {"a": "b"}}]}}, "'auto_map' asks for code to be run"),
    ({"custom_pipelines": {"a": "b"}}, "'custom_pipelines' asks for code to be run"),
    ({"trust_remote_code": True}, "'trust_remote_code' asks for code to be run"),
    (
        {"attn_implementation": "someone/kernel"},
        "'attn_implementation' = \"someone/kernel\" asks for code to be run",
    ),
    (
        {"_attn_implementation_internal": {"": "someone/kernel"}},
        '\'_attn_implementation_internal\' = {"": "someone/kernel"} asks for code to be run',
    ),
    (
        {"model_type": "mixtral", "num_local_experts": 8},
        "'mixtral' is a mixture of experts (num_local_experts = 8), which is not supported yet",
    ),
    ({"num_experts": 64}, "is a mixture of experts (num_experts = 64)"),
    ({"ffn_config": {"moe_num_experts": 16}}, "is a mixture of experts (moe_num_experts = 16)"),
    ({"n_routed_experts": 2}, "is a mixture of experts (n_routed_experts = 2)"),
    ({"model_type": "qwen3_moe"}, "'qwen3_moe' is a mixture of experts, which"),
    ({"quantization_config": {"bits": 4}}, "its weights are quantised"),
    ({"transformers_weights": "x.safetensors"}, "transformers_weights = 'x.safetensors' names"),
    (
        {"is_encoder_decoder": True},
        "its architecture (LlamaForCausalLM) is not a causal language model",
    ),
    (
        {"architectures": ["T5ForConditionalGeneration"]},
        "its architecture (T5ForConditionalGeneration) is not a causal language model",
    ),
    (
        {"architectures": ["BertForMaskedLM"]},
        "its architecture (BertForMaskedLM) is not a causal language model",
    ),
    ({"architectures": None}, "its architecture (none named) is not a causal language model"),
    ({"model_type": None}, "config.json: it has no model_type"),
    ({"hidden_size": None}, "it has no hidden_size or n_embd"),
    ({"hidden_size": "8"}, "hidden_size = '8' is not a positive number"),
    ({"num_hidden_layers": 0}, "num_hidden_layers = 0 is not a positive number"),
    ({"num_attention_heads": True}, "num_attention_heads = True is not a positive number"),
    ({"hidden_size": 10}, "hidden_size 10 is no multiple of its 4 heads"),
    ({"num_key_value_heads": 3}, "4 heads are no multiple of its 3 key-value heads"),
    ({"vocab_size": None}, "it has no vocab_size"),
    ({"max_position_embeddings": None}, "it has no max_position_embeddings or n_positions"),
    (
        {"vocab_size": 12},
        "vocab_size is 12, but model.embed_tokens.weight has shape [10, 8]",
    ),
]


@pytest.mark.parametrize(("changes", "message"), CONFIGS, ids=[text for _, text in CONFIGS])
def test_a_config_that_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(write_model(tmp_path, config=llama_config(**changes)))


def test_what_only_looks_like_code_or_experts_is_not_refused(tmp_path: Path) -> None:
    config = llama_config(
        auto_map={}, trust_remote_code=False, num_experts=1, _attn_implementation="sdpa"
    )
    assert read_model_facts(write_model(tmp_path, config=config)).num_layers == 1


def test_code_named_by_the_tokenizer_or_the_generation_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.Y", null]}}')
    (folder / "generation_config.json").write_text('{"trust_remote_code": true}')
    text = refusal(folder)
    assert "tokenizer_config.json: 'auto_map' asks" in text
    assert "generation_config.json: 'trust_remote_code' asks" in text


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    text = refusal(folder)
    assert "adapter_config.json: the folder is an adapter" in text
    assert "merge_and_unload" in text


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    config = llama_config(auto_map={"a": "b"}, num_local_experts=8, hidden_size=-1)
    folder = write_model(tmp_path, config=config)
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(BaseModelError) as caught:
        read_model_facts(folder)
    assert len(caught.value.problems) == 5


# What is refused: the weights


def test_pickles_are_refused_with_the_way_to_convert_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    text = refusal(folder)
    assert "its weights are pickles (pytorch_model.bin), which can run code" in text
    assert "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)" in text


def test_weights_of_another_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert "no model.safetensors.index.json, only model.fp16.safetensors" in refusal(folder)


def _entry(**changes: Any) -> dict[str, Any]:
    return {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


HEADERS: list[tuple[Any, bytes, str]] = [
    (b"{", b"", "its header is not valid JSON"),
    (b"[]", b"", "its header is not a JSON object"),
    ({"__metadata__": {}}, b"", "it holds no tensor"),
    ({"t": {"dtype": "F32"}}, b"", "the entry of tensor t is malformed"),
    ({"t": 3}, b"", "the entry of tensor t is malformed"),
    (_entry(dtype="F7"), b"", "tensor t has the unknown type 'F7'"),
    (_entry(dtype=["F32"]), b"", "tensor t has the unknown type ['F32']"),
    (_entry(shape=[-2]), bytes(8), "the shape or the offsets of tensor t are not whole numbers"),
    (_entry(shape=[2.0]), bytes(8), "the shape or the offsets of tensor t are not whole numbers"),
    (_entry(shape=2), bytes(8), "the shape or the offsets of tensor t are not whole numbers"),
    (
        _entry(data_offsets=[0, 4]),
        bytes(8),
        "tensor t (F32 [2]) needs 8 bytes, its offsets 0 to 4 hold 4",
    ),
    (
        {**_entry(), "u": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        bytes(12),
        "tensor u at bytes 4 to 12 overlaps the one before it",
    ),
    (_entry(data_offsets=[4, 12]), bytes(12), "tensor t at bytes 4 to 12 leaves a gap"),
    (_entry(), bytes(7), "truncated: its tensors take 8 bytes, 7 are there"),
    (_entry(), bytes(9), "1 bytes follow its last tensor"),
]


@pytest.mark.parametrize(("header", "data", "message"), HEADERS, ids=[m for _, _, m in HEADERS])
def test_a_damaged_header(folder: Path, header: Any, data: bytes, message: str) -> None:
    write_header(folder / "model.safetensors", header, data)
    text = refusal(folder)
    assert f"model.safetensors: {message}" in text
    assert "download the file again" in text


@pytest.mark.parametrize("num_bytes", [0, 7, 8, 100])
def test_a_truncated_header(folder: Path, num_bytes: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:num_bytes])
    assert "model.safetensors: truncated: its header ends at byte" in refusal(folder)


def test_a_length_that_would_fill_the_memory(folder: Path) -> None:
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write((2 * 10**8).to_bytes(8, "little"))
        file.truncate(3 * 10**8)  # sparse: takes no disk
    assert "its header of 200000000 bytes is above the format's 100000000" in refusal(folder)


def _missing_file(folder: Path) -> str:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return "model-00002-of-00002.safetensors: the index names it, but it is not there"


def _index_without_a_tensor(folder: Path) -> str:
    placed = shard(folder)
    del placed["model.norm.weight"]
    write_index(folder, placed)
    return "tensor model.norm.weight of model-00002-of-00002.safetensors is not in the index"


def _index_with_another_tensor(folder: Path) -> str:
    write_index(folder, {**shard(folder), "ghost": "model-00001-of-00002.safetensors"})
    return "model.safetensors.index.json: tensor ghost is in the index, but in no file"


def _index_with_the_wrong_file(folder: Path) -> str:
    file = "model-00001-of-00002.safetensors"
    write_index(folder, {**shard(folder), "model.norm.weight": file})
    return f"tensor model.norm.weight is in model-00002-of-00002.safetensors, not in {file}"


def _tensor_in_two_files(folder: Path) -> str:
    shard(folder)
    write_safetensors(folder / "model-00002-of-00002.safetensors", LLAMA_SHAPES)
    return "tensor model.embed_tokens.weight also stands in model-00001-of-00002.safetensors"


def _index_out_of_the_folder(folder: Path) -> str:
    write_index(folder, {**shard(folder), "model.norm.weight": "../x.safetensors"})
    return "not an index of tensors (weight_map must give each tensor a file of this folder)"


def _index_without_a_map(folder: Path) -> str:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')
    return "model.safetensors.index.json: not an index of tensors ('weight_map')"


@pytest.mark.parametrize(
    "spoil",
    [
        _missing_file,
        _index_without_a_tensor,
        _index_with_another_tensor,
        _index_with_the_wrong_file,
        _tensor_in_two_files,
        _index_out_of_the_folder,
        _index_without_a_map,
    ],
)
def test_an_index_that_does_not_fit(folder: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(folder)
    assert message in refusal(folder)


def test_quantised_tensors_are_refused_whatever_the_config_says(tmp_path: Path) -> None:
    dtypes = {"model.layers.0.mlp.up_proj.weight": "F8_E4M3"}
    text = refusal(write_model(tmp_path, dtypes=dtypes))
    assert "tensor model.layers.0.mlp.up_proj.weight is F8_E4M3: its weights are quantised" in text


def test_a_head_that_should_be_there(tmp_path: Path) -> None:
    shapes = {name: LLAMA_SHAPES[name] for name in list(LLAMA_SHAPES)[:3]}
    text = refusal(write_model(tmp_path, shapes=shapes))
    assert "tie_word_embeddings is false, but there is no output head" in text


def test_weights_without_an_embedding(tmp_path: Path) -> None:
    shapes = {"model.norm.weight": [8]}
    assert "the input embedding is missing" in refusal(write_model(tmp_path, shapes=shapes))


# What is refused: the tokenizer


def test_a_tokenizer_of_a_larger_vocabulary(folder: Path) -> None:
    write_tokenizer(folder, added=[9])
    read_model_facts(folder)
    write_tokenizer(folder, added=[10])
    message = "tokenizer.json: its largest token id is 10, but config.json has vocab_size 10"
    assert message in refusal(folder)


def test_a_unigram_tokenizer(folder: Path) -> None:
    tokenizer = {"model": {"type": "Unigram", "vocab": [["a", -1.0]] * 11}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "its largest token id is 10" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model": {"vocab": 3}}', '{"model": {"vocab": {}}}', "[" * 100_000]
)
def test_a_file_that_is_no_tokenizer(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    assert "tokenizer.json: not the file of a tokenizer" in refusal(folder)
