"""Roads to attention within documents, against loops over queries; and which of them is taken."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from rewarm.model import document_attention as room
from rewarm.model.document_attention import (
    NAME_OF,
    PACKAGES,
    Road,
    document_roads,
    varlen_attention,
)
from rewarm.model.document_layout import layout_of
from rewarm.model.loss import sum_of_token_losses, token_losses
from rewarm.model.packing import DocumentAttention, check_documents_apart, packed_inputs
from rewarm.model.split_attention import _mask_of_size, split_attention
from tests.support.tiny_models import FAMILIES, family_model

LENGTHS = ((1, 3, 90, 2, 2, 40, 66), (64, 64, 30, 40, 1, 1, 4))
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "shared heads": {"num_key_heads": 2},
    "window": {"sliding_window": 7},
    "window of some": {"sliding_window": 50, "num_key_heads": 1},
    "cap": {"softcap": 0.7, "num_key_heads": 2},
    "cap and window": {"softcap": 0.7, "sliding_window": 7},
    "scale": {"scaling": 0.9},
}


def by_loops(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Sequence[Sequence[int]],
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return each query's mean of the values it sees, one query and head at a time."""
    rows = []
    for row, row_lengths in enumerate(lengths):
        starts = [sum(row_lengths[:number]) for number in range(len(row_lengths))]
        out = []
        for start, length in zip(starts, row_lengths, strict=True):
            for place in range(start, start + length):
                first = start if sliding_window is None else max(start, place - sliding_window + 1)
                heads = []
                for head in range(query.shape[1]):
                    shared = head * key.shape[1] // query.shape[1]
                    seen = slice(first, place + 1)
                    width = query.shape[-1]
                    scores = key[row, shared, seen] @ query[row, head, place]
                    scores = scores * (1 / math.sqrt(width) if scaling is None else scaling)
                    if softcap is not None:
                        scores = softcap * (scores / softcap).tanh()
                    weights = scores.exp() / scores.exp().sum()
                    heads.append(weights @ value[row, shared, seen])
                out.append(torch.stack(heads))
        rows.append(torch.stack(out))
    return torch.stack(rows)


Three = tuple[Tensor, Tensor, Tensor]


def made_up(num_key_heads: int = 4) -> Three:
    generator = torch.Generator().manual_seed(0)
    num_tokens = sum(LENGTHS[0])
    query, key, value = (
        torch.randn(2, heads, num_tokens, 8, generator=generator, dtype=torch.float64)
        for heads in (4, num_key_heads, num_key_heads)
    )
    return query, key, value


def as_one_row(query: Tensor, key: Tensor, value: Tensor) -> Three:
    """Return [tokens, heads, width] as [1, heads, tokens, width]."""
    return query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None]


def bounds_of(lengths: Sequence[Sequence[int]]) -> Tensor:
    flat = [0, *(length for row in lengths for length in row)]
    return torch.tensor(flat, dtype=torch.int32).cumsum(0, dtype=torch.int32)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_split_is_what_loops_over_queries_give(
    case: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, with gradients, by operators and by the one that compilers are given: documents
    of all lengths of a padded one, rows cut unlike."""
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiled)
    options = dict(CASES[case])
    tensors = made_up(options.pop("num_key_heads", 4))
    for tensor in tensors:
        tensor.requires_grad_()
    found, _ = split_attention(None, *tensors, None, cu_seq_lens_q=bounds_of(LENGTHS), **options)
    expected = by_loops(*tensors, LENGTHS, **options)
    tolerance = 1e-6 if "softcap" in options else 1e-12  # as transformers: softmax in float32
    assert (found - expected).abs().max() <= tolerance
    signs = torch.arange(found.numel()).view_as(found).sin()
    ours, theirs = (torch.autograd.grad((out * signs).sum(), tensors) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 10 * tolerance


def test_lengths_that_attention_meets_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 up to 512 tokens and 72 up to 4,096, whatever lengths documents have; none is cut."""
    met: set[int] = set()
    real = F.scaled_dot_product_attention

    def attend(query: Tensor, *given: Any, **told: Any) -> Tensor:
        met.add(query.shape[2])
        return real(query, *given, **told)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attend)
    rows = torch.zeros(1, 1, 4096, 1)
    counts = []
    for lengths in (range(1, 513), range(513, 4097, 61)):
        for length in lengths:
            row = rows[:, :, :length]
            found, _ = split_attention(None, row, row, row, None)
            assert found.shape == (1, length, 1, 1)
        counts.append(len(met))
    assert counts == [16, 72]
    assert min(met) == 32
    assert max(met) == 4096


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not tell")
def test_memory_does_not_grow_with_the_lengths_met() -> None:
    """In half precision torch keeps kernels for each shape; without padding this is 500 MiB."""
    generator = torch.Generator().manual_seed(0)
    before = 0
    for number, length in enumerate(torch.randperm(512, generator=generator).tolist()[:200]):
        row = torch.ones(1, 4, length + 1, 64, dtype=torch.bfloat16, requires_grad=True)
        found, _ = split_attention(None, row, row, row, None)
        torch.autograd.grad(found.sum(), row)
        if number == 40:
            before = memory_held()
    assert memory_held() - before < 150 << 20


def memory_held() -> int:
    """Return the bytes of the process's own pages."""
    told = Path("/proc/self/status").read_text(encoding="utf-8")
    (kibibytes,) = (line.split()[1] for line in told.splitlines() if line.startswith("RssAnon"))
    return int(kibibytes) << 10


def test_split_without_bounds_takes_a_row_for_a_document() -> None:
    tensors = made_up()
    whole = [[sum(LENGTHS[0])]] * 2
    found, _ = split_attention(None, *tensors, None, sliding_window=50)
    assert (found - by_loops(*tensors, whole, sliding_window=50)).abs().max() <= 1e-12


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("num_tokens", [64, 192])
def test_a_tokens_numbers_need_not_be_neighbours(
    num_tokens: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one row of a length that is not padded: all else is gathered, and then they are."""
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiled)
    query, key, value = (
        torch.stack((x, -x), dim=-1)[:1, :, :num_tokens, :, 0].requires_grad_() for x in made_up(2)
    )
    strided = (query, key, value)
    found, _ = split_attention(None, *strided, None)
    expected = by_loops(*strided, [[num_tokens]])
    assert (found - expected).abs().max() <= 1e-12
    signs = torch.arange(found.numel()).view_as(found).sin()
    ours, theirs = (torch.autograd.grad((out * signs).sum(), strided) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-11


@pytest.mark.parametrize("compiled", [False, True])
def test_empty_documents_change_nothing(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that is given documents of no tokens ends the process, so that none may be."""
    assert all(group.length for group in layout_of((0, 3, 0, 0, 2, 0)).groups)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiled)
    tensors = made_up()
    expected, _ = split_attention(None, *tensors, None, cu_seq_lens_q=bounds_of(LENGTHS))
    empty = [[0, *row, 0, 0] for row in LENGTHS]
    found, _ = split_attention(None, *tensors, None, cu_seq_lens_q=bounds_of(empty))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_autocast_changes_nothing_in_it(
    case: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, and in the type of the values, as a compiler is told."""
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiled)
    options = dict(CASES[case])
    query, key, value = (x.float() for x in made_up(options.pop("num_key_heads", 4)))
    tensors = (query, key, value)
    options["cu_seq_lens_q"] = bounds_of(LENGTHS)
    expected, _ = split_attention(None, *tensors, None, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = split_attention(None, *tensors, None, **options)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("case", ["window", "cap"])
def test_a_mask_made_in_inference_mode_serves_a_later_backward_pass(case: str) -> None:
    """Autograd refuses to keep what was made there."""
    _mask_of_size.cache_clear()
    tensors = made_up()
    with torch.inference_mode():
        split_attention(None, *tensors, None, **CASES[case])
    for tensor in tensors:
        tensor.requires_grad_()
    found, _ = split_attention(None, *tensors, None, **CASES[case])
    assert all(x.isfinite().all() for x in torch.autograd.grad(found.sum(), tensors))


def test_layers_with_a_window_keep_one_mask() -> None:
    """It is the only thing of a size that grows with the square of the length."""
    square: set[int] = set()

    def note(tensor: Tensor) -> Tensor:
        if tensor.shape[-2:] == (256, 256):
            square.add(tensor.untyped_storage().data_ptr())
        return tensor

    row = torch.ones(2, 4, 256, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = [split_attention(None, row, row, row, None, sliding_window=7) for _ in range(3)]
    assert len(kept) == 3
    assert len(square) == 1


# Older kernels do not ask whether heads share keys.
ASKS_FOR_GQA = "enable_gqa" in inspect.signature(varlen_attn).parameters


def fake_varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool | None = None,
) -> Tensor:
    """torch's kernel by its documentation: (W, 0) looks W tokens back, (-1, 0) at all before."""
    assert cu_seq_q.dtype == torch.int32
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert max_q >= int(cu_seq_q.diff().max())
    asked = (query.shape[1] != key.shape[1]) if ASKS_FOR_GQA else None
    assert enable_gqa == asked
    assert window_size[1] == 0
    window = None if window_size[0] == -1 else window_size[0] + 1
    lengths = [cu_seq_q.diff().tolist()]
    row = as_one_row(query, key, value)
    return by_loops(*row, lengths, scaling=scale, sliding_window=window)[0]


@pytest.mark.parametrize("case", [case for case in CASES if "cap" not in case])
def test_what_torchs_kernel_is_handed_gives_what_loops_give(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", fake_varlen_attn)
    options = dict(CASES[case])
    tensors = made_up(options.pop("num_key_heads", 4))
    found, _ = varlen_attention(
        None, *tensors, None, cu_seq_lens_q=bounds_of(LENGTHS), max_length_q=200, **options
    )
    assert (found - by_loops(*tensors, LENGTHS, **options)).abs().max() <= 1e-12
    whole = [[sum(LENGTHS[0])]] * 2
    found, _ = varlen_attention(None, *tensors, None, **options)
    assert (found - by_loops(*tensors, whole, **options)).abs().max() <= 1e-12


@pytest.mark.parametrize("given", [{"softcap": 1.0}, {"dropout": 0.1}, {"s_aux": torch.ones(4)}])
def test_what_torchs_kernel_does_not_have_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match=f"it does not have {next(iter(given))}"):
        varlen_attention(None, *made_up(), None, **given)


@pytest.fixture
def recorded_flash() -> Iterator[list[dict[str, Any]]]:
    """Put loops in the place of transformers' flash attention; they go by what they are told."""
    calls: list[dict[str, Any]] = []
    name = NAME_OF["flash_attention_2"]
    before = AttentionInterface._global_mapping.get(name)

    def flash(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **told: Any
    ) -> tuple[Tensor, None]:
        calls.append(told)
        assert mask is None
        assert torch.equal(told["cu_seq_lens_q"], told["cu_seq_lens_k"])
        lengths = told["cu_seq_lens_q"].diff().tolist()
        assert told["max_length_q"] == told["max_length_k"] >= max(lengths)
        query_row, key_row, value_row = (
            x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)
        )
        row = as_one_row(query_row, key_row, value_row)
        known = ("scaling", "sliding_window", "softcap")
        options = {name: told[name] for name in known if told.get(name) is not None}
        found = by_loops(*row, [lengths], **options)[0]
        return found.reshape(query.shape[0], query.shape[2], *found.shape[1:]), None

    AttentionInterface._global_mapping[name] = flash
    yield calls
    AttentionInterface._global_mapping[name] = before


@pytest.mark.parametrize("family", FAMILIES)
def test_flash_attention_is_told_where_documents_begin(
    family: str, recorded_flash: list[dict[str, Any]]
) -> None:
    """In every family, in the words of transformers, whatever the number of rows."""
    model = family_model(family).double().eval()
    lengths = ((1, 7, 13, 2), (10, 1, 1, 11))
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    ids = torch.arange(46).view(2, 23) * 7 % 320
    expected, _ = sum_of_token_losses(model, ids, ids.roll(-1, 1), positions)
    model.config._attn_implementation = NAME_OF["flash_attention_2"]
    found, _ = sum_of_token_losses(model, ids, ids.roll(-1, 1), positions)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert len(recorded_flash) == model.config.num_hidden_layers
    assert torch.equal(recorded_flash[0]["cu_seq_lens_q"], bounds_of(lengths))


@pytest.mark.slow  # each shape is compiled
@pytest.mark.parametrize("family", ["llama", "qwen3", "olmo2", "gemma2", "gpt_neox", "mistral"])
def test_the_block_mask_of_flex_attention_is_the_mask(family: str) -> None:
    """Its forward pass is all that a CPU can run of it."""
    changes = {"sliding_window": 8} if family == "mistral" else {}
    model = family_model(family, hidden_size=64, **changes).eval()
    lengths = ((1, 7, 13, 2), (10, 1, 1, 11))
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    ids = torch.arange(46).view(2, 23) * 7 % 320

    def logits(**told: Any) -> Tensor:
        with torch.no_grad():
            found: Tensor = model(input_ids=ids, use_cache=False, **told).logits
            return found

    expected, together = logits(**packed_inputs(model, positions)), logits()
    model.set_attn_implementation(NAME_OF["flex_attention"])
    found = logits(**packed_inputs(model, positions))
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-5 * scale
    assert (found - together).abs().max() >= 1e-2 * scale


GPU = {"device_type": "cuda", "half": True, "dropout": False, "installed": frozenset(PACKAGES)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            ("flash_attention_3", "flash_attention_2", "varlen", "flex_attention", "mask"),
        ),
        ({"installed": ["triton"]}, ("varlen", "flex_attention", "mask")),
        ({"installed": ["triton"], "half": False}, ("flex_attention", "mask")),
        ({"half": False}, ("flex_attention", "mask")),
        ({"dropout": True}, ("flash_attention_3", "flash_attention_2", "mask")),
        ({"installed": [], "half": False}, ("mask",)),
        ({"device_type": "cpu"}, ("split", "mask")),
        ({"device_type": "xpu"}, ("mask",)),
    ],
)
def test_the_roads_of_a_device(changes: dict[str, Any], expected: tuple[Road, ...]) -> None:
    assert document_roads(**{**GPU, **changes}) == expected


def test_roads_that_are_not_there_are_told_and_the_mask_stays() -> None:
    model = family_model("llama")
    loaded = model.config._attn_implementation
    attention = DocumentAttention(("flash_attention_2", "varlen", "mask"), sequence_length=64)
    flash, varlen = attention.settle(model)
    assert flash.startswith("documents cannot be kept apart by flash_attention_2: ImportError")
    # Below torch 2.13 it refuses shared heads, before it finds no CPU kernel.
    assert varlen.startswith("documents cannot be kept apart by varlen: ")
    assert "NotImplementedError" in varlen or "TypeError" in varlen
    assert model.config._attn_implementation == loaded
    check_documents_apart(model, vocab_size=320)


def leaks(*given: Any, **told: Any) -> tuple[Tensor, None]:
    """Keep all documents apart but the last two."""
    bounds = told["cu_seq_lens_q"]
    return split_attention(
        *given, **told | {"cu_seq_lens_q": torch.cat((bounds[:-2], bounds[-1:]))}
    )


def looks_too_far(*given: Any, **told: Any) -> tuple[Tensor, None]:
    """See one token more than the window has."""
    return split_attention(*given, **told | {"sliding_window": told["sliding_window"] + 1})


class _OtherGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 1.5


def learns_otherwise(*given: Any, **told: Any) -> tuple[Tensor, None]:
    """Give the right attention and another gradient."""
    found, _ = split_attention(*given, **told)
    return _OtherGradient.apply(found), None  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (leaks, "its hidden states differ from the mask's"),
        (looks_too_far, "its hidden states differ from the mask's"),
        (learns_otherwise, "its gradients differ from the mask's"),
    ],
)
def test_a_road_that_is_wrong_is_not_taken(
    wrong: Callable[..., Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "split_attention", wrong)
    model = family_model("mistral", sliding_window=8).train()
    loaded = model.config._attn_implementation
    (told,) = DocumentAttention(("split", "mask"), sequence_length=64).settle(model)
    assert said in told
    assert model.config._attn_implementation == loaded
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_one_rank_finds_wrong_no_rank_takes() -> None:
    model = family_model("llama")
    attention = DocumentAttention(("split", "mask"), sequence_length=64)
    (told,) = attention.settle(model, agree=lambda why: why or "rank 3 finds it wrong")
    assert told == "documents cannot be kept apart by split: rank 3 finds it wrong"
    assert model.config._attn_implementation == "sdpa"


def test_under_autocast_the_road_is_compared_as_it_computes() -> None:
    model = family_model("qwen3")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert DocumentAttention(("split",), sequence_length=64).settle(model) == []
    assert model.config._attn_implementation == NAME_OF["split"]


def test_measures_do_not_depend_on_the_road() -> None:
    """Bit for bit what a model gives that was never put on one."""
    ids = torch.arange(40).view(2, 20) * 7 % 320
    expected = token_losses(family_model("gemma2").eval(), ids, ids.roll(-1, 1))
    model = family_model("gemma2").eval()
    attention = DocumentAttention(("split",), sequence_length=64)
    assert attention.settle(model) == []
    with attention.as_loaded(model):
        assert torch.equal(token_losses(model, ids, ids.roll(-1, 1)), expected)
    assert model.config._attn_implementation == NAME_OF["split"]
