"""Gradients of causal attention by products, against those of a masked softmax in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rewarm.model import causal_backward as room
from rewarm.model.causal_backward import causal_backward, is_quicker
from rewarm.model.split_attention import split_attention

# A gradient's error relative to its norm: two roundings to bf16 on its way.
TOLERANCE = 0.01


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what lies between products run as it is written."""
    monkeypatch.setattr(room, "_kernels", lambda: (room._between, room._row_dots))


@pytest.fixture
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fails(work: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> None:
            raise RuntimeError("no C++ compiler")

        return run

    monkeypatch.setattr("torch.compile", fails)
    room._kernels.cache_clear()
    yield
    room._kernels.cache_clear()


def made_up(*shape: int, seed: int) -> Tensor:
    """Return numbers that bf16 has, as float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).bfloat16().double()


def masked(
    query: Tensor, key: Tensor, value: Tensor, scale: float, sees: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the attention of [..., tokens, width] under a mask, and the log of each sum."""
    scores = (query @ key.transpose(-1, -2) * scale).masked_fill(~sees, float("-inf"))
    return scores.softmax(-1) @ value, scores.logsumexp(-1)


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize("scale", [0.25, 2.0])
@pytest.mark.parametrize(
    ("documents", "heads", "length"),
    [(1, 1, 96), (7, 1, 96), (1, 3, 256), (2, 1, 257), (3, 2, 300), (1, 1, 1024)],
)
def test_gradients_are_those_of_a_masked_softmax(
    documents: int, heads: int, length: int, scale: float, uncompiled: None
) -> None:
    """Of one block of keys and of several, the last of which is shorter; of weights that are much
    alike, and of such that one of them is nearly all, by scores of up to fifty."""
    shape = (documents, heads, length, 16)
    query, key, value = (made_up(*shape, seed=seed).requires_grad_() for seed in range(3))
    tensors, gradient = (query, key, value), made_up(*shape, seed=3)
    sees = torch.ones(length, length, dtype=torch.bool).tril()
    found, sums = masked(query, key, value, scale, sees)
    expected = torch.autograd.grad(found, tensors, gradient)
    g, q, k, v, o = (x.detach().bfloat16() for x in (gradient, *tensors, found))
    ours = causal_backward(g, q, k, v, o, sums.detach().float(), scale=scale)
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == torch.bfloat16
        assert off(one, other) < TOLERANCE


def test_rows_are_taken_in_powers_of_four(
    uncompiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any other number torch would compile a kernel, and keep it."""
    monkeypatch.setattr(room, "_MOST_PAIRS", 8 * 96 * 96)
    met: set[int] = set()
    real = torch.bmm

    def noting(one: Tensor, other: Tensor, **named: Any) -> Tensor:
        met.add(len(one))
        return real(one, other, **named)

    given = [made_up(23, 1, 96, 8, seed=seed).bfloat16() for seed in range(5)]

    def gradients(num_rows: int) -> tuple[Tensor, ...]:
        g, q, k, v, o = (x[:num_rows] for x in given)
        return causal_backward(g, q, k, v, o, torch.full((num_rows, 1, 96), 9.0), scale=1.0)

    whole = gradients(23)
    monkeypatch.setattr("torch.bmm", noting)
    for num_rows in range(1, 24):
        for one, other in zip(gradients(num_rows), whole, strict=True):
            assert off(one, other[:num_rows].double()) < TOLERANCE
    assert met == {1, 4}


def test_it_is_taken_where_it_was_measured_to_be_quicker(uncompiled: None) -> None:
    lengths = (32, 192, 512, 640, 768)
    assert [is_quicker(n, torch.bfloat16) for n in lengths] == [False, True, True, True, False]
    assert not is_quicker(512, torch.float32)
    assert not is_quicker(512, torch.float16)


LENGTHS = (200, 20, 300, 192, 130)


@pytest.mark.parametrize("num_key_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 90])
@pytest.mark.parametrize("way", ["uncompiled", "without_a_compiler"])
def test_documents_have_the_same_gradients_in_half_precision(
    way: str,
    window: int | None,
    num_key_heads: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through the operator that compilers are given, by products and by torch's own."""
    request.getfixturevalue(way)
    assert is_quicker(512, torch.bfloat16) == (way == "uncompiled")
    num_tokens = sum(LENGTHS)
    heads = (4, num_key_heads, num_key_heads)
    exact = [made_up(1, n, num_tokens, 16, seed=i).requires_grad_() for i, n in enumerate(heads)]
    document = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    back = torch.arange(num_tokens)[:, None] - torch.arange(num_tokens)
    sees = (document[:, None] == document) & (back >= 0) & (back < (window or num_tokens))
    query, key, value = (x.repeat_interleave(4 // x.shape[1], dim=1) for x in exact)
    expected = masked(query, key, value, 0.25, sees)[0].transpose(1, 2)
    gradient = made_up(*expected.shape, seed=3)
    theirs = torch.autograd.grad(expected, exact, gradient)

    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in exact)
    bounds = torch.tensor((0, *LENGTHS), dtype=torch.int32).cumsum(0, dtype=torch.int32)
    found, _ = split_attention(None, q, k, v, None, sliding_window=window, cu_seq_lens_q=bounds)
    assert off(found, expected) < TOLERANCE
    ours = torch.autograd.grad(found, (q, k, v), gradient.bfloat16())
    for one, other in zip(ours, theirs, strict=True):
        assert off(one, other) < TOLERANCE


@pytest.mark.slow  # it compiles
def test_compiled_it_is_the_same_with_few_graphs() -> None:
    torch._dynamo.reset()
    room._kernels.cache_clear()
    compiled = room._kernels()
    assert compiled is not None
    for documents, heads, length in ((1, 1, 96), (7, 4, 96), (1, 3, 256), (3, 2, 300), (4, 4, 512)):
        shape = (documents, length, heads, 16)
        g, q, k, v, o = (made_up(*shape, seed=seed).bfloat16().transpose(1, 2) for seed in range(5))
        sums = 9 + made_up(documents, heads, length, seed=5).float()
        found = causal_backward(g, q, k, v, o, sums, scale=0.25)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "_kernels", lambda: (room._between, room._row_dots))
            expected = causal_backward(g, q, k, v, o, sums, scale=0.25)
        for one, other in zip(found, expected, strict=True):
            assert off(one, other.double()) < 1e-3
    entries = torch._dynamo.eval_frame._debug_get_cache_entry_list(room._between.__code__)
    assert len(entries) <= 4
