"""Divergence in chunks: by hand, against torch's kl_div on whole logits, by finite differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rewarm.model.chunked_divergence import Scored, StoredTopK, chunked_divergence
from rewarm.model.chunked_loss import LogitShape

TOKENS, HIDDEN, VOCABULARY = 11, 5, 13


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def all_count(number: int = TOKENS) -> Tensor:
    return torch.ones(number, dtype=torch.bool)


def test_three_tokens_by_hand() -> None:
    """Teacher (1/2, 1/4, 1/4), student uniform: KL = ½ ln 1.5 + ½ ln 0.75; q − p is the slope."""
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    teacher = Scored(torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log())
    total = chunked_divergence(Scored(student), teacher, all_count(1))
    assert total.item() == pytest.approx(0.5 * math.log(1.5) + 0.5 * math.log(0.75))
    torch.autograd.backward(total)
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([1 / 3 - 0.5, 1 / 3 - 0.25, 1 / 3 - 0.25])


def test_temperature_two_by_hand() -> None:
    """Logits ln(16, 1) at T = 2 are (4/5, 1/5): T² KL = 4 (0.8 ln 1.6 + 0.2 ln 0.4)."""
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    teacher = Scored(torch.tensor([[16.0, 1.0]], dtype=torch.float64).log())
    total = chunked_divergence(Scored(student), teacher, all_count(1), temperature=2.0)
    assert total.item() == pytest.approx(4 * (0.8 * math.log(1.6) + 0.2 * math.log(0.4)))
    torch.autograd.backward(total)
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx([2 * (0.5 - 0.8), 2 * (0.5 - 0.2)])


def shaped(logits: Tensor, shape: LogitShape) -> Tensor:
    """Scale and cap logits with torch's own operations, which differentiate themselves."""
    scaled = logits * shape.scale
    return scaled if shape.cap is None else shape.cap * torch.tanh(scaled / shape.cap)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize(
    "shape", [LogitShape(), LogitShape(scale=0.3), LogitShape(scale=0.7, cap=1.5)], ids=str
)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("num_tokens_a_chunk", [1, 4, 100])
def test_value_and_gradients_are_those_of_kl_div(
    temperature: float, shape: LogitShape, with_bias: bool, num_tokens_a_chunk: int
) -> None:
    hidden = drawn(TOKENS, HIDDEN, seed=1).requires_grad_()
    weight = drawn(VOCABULARY, HIDDEN, seed=2).requires_grad_()
    bias = drawn(VOCABULARY, seed=3).requires_grad_() if with_bias else None
    of_teacher = drawn(TOKENS, HIDDEN, seed=4), drawn(VOCABULARY, HIDDEN, seed=5)
    counts = torch.arange(TOKENS) % 3 != 1
    wanted = [tensor for tensor in (hidden, weight, bias) if tensor is not None]

    student = shaped(F.linear(hidden, weight, bias), shape) / temperature
    teacher = shaped(F.linear(*of_teacher), shape) / temperature
    expected = temperature**2 * F.kl_div(
        student.log_softmax(-1)[counts],
        teacher.log_softmax(-1)[counts],
        reduction="sum",
        log_target=True,
    )
    of_expected = torch.autograd.grad(3 * expected, wanted)

    found = chunked_divergence(
        Scored(hidden, weight, bias, shape),
        Scored(*of_teacher, None, shape),
        counts,
        temperature=temperature,
        chunk_bytes=4 * VOCABULARY * num_tokens_a_chunk,
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(torch.autograd.grad(3 * found, wanted), of_expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)
        assert theirs.abs().max() > 1e-3, "the comparison would be blind"


def test_nothing_flows_to_the_teacher() -> None:
    hidden, weight = drawn(TOKENS, HIDDEN, seed=1), drawn(VOCABULARY, HIDDEN, seed=2)
    of_teacher = drawn(TOKENS, HIDDEN, seed=4).requires_grad_()
    total = chunked_divergence(
        Scored(hidden.requires_grad_(), weight), Scored(of_teacher, weight), all_count()
    )
    torch.autograd.backward(total)
    assert of_teacher.grad is None
    assert hidden.grad is not None


def stored(num_top: int, *, seed: int = 7) -> tuple[StoredTopK, Tensor]:
    """Return the likeliest tokens of random distributions, and the whole of these."""
    whole = drawn(TOKENS, VOCABULARY, seed=seed).mul(2).log_softmax(-1)
    top = whole.topk(num_top, dim=-1)
    return StoredTopK(top.indices, top.values), whole


def test_the_likeliest_by_hand() -> None:
    """Teacher's likeliest (1/2); student (1/4, 1/4, 1/2): ½ ln 2 + ½ ln(½ / ¾), 1 outcome left."""
    q = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64)
    student = q.log().requires_grad_()
    teacher = StoredTopK(torch.tensor([[0]]), torch.tensor([[0.5]], dtype=torch.float64).log())
    total = chunked_divergence(Scored(student), teacher, all_count(1))
    assert total.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    torch.autograd.backward(total)
    assert student.grad is not None
    # What is left, ½, goes to the others as the student shares them out: 1/6 and 1/3.
    assert student.grad[0].tolist() == pytest.approx([0.25 - 0.5, 0.25 - 1 / 6, 0.5 - 1 / 3])


def test_all_tokens_stored_is_the_whole_divergence() -> None:
    hidden = drawn(TOKENS, VOCABULARY, seed=1)
    top, whole = stored(VOCABULARY)
    found = chunked_divergence(Scored(hidden), top, all_count())
    expected = F.kl_div(hidden.log_softmax(-1), whole, reduction="sum", log_target=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_fewer_stored_tokens_are_a_lower_bound_that_rises_with_their_number() -> None:
    hidden = drawn(TOKENS, VOCABULARY, seed=1)
    bounds = [
        chunked_divergence(Scored(hidden), stored(k)[0], all_count()).item()
        for k in range(1, VOCABULARY + 1)
    ]
    assert bounds[0] > 0
    assert all(one <= other + 1e-12 for one, other in itertools.pairwise(bounds))


@pytest.mark.parametrize("num_top", [1, 4, VOCABULARY])
def test_gradients_of_what_is_stored_by_finite_differences(num_top: int) -> None:
    top, _ = stored(num_top)
    counts = torch.arange(TOKENS) % 4 != 2
    weight, bias = drawn(VOCABULARY, HIDDEN, seed=2), drawn(VOCABULARY, seed=3)
    shape = LogitShape(scale=0.7, cap=3.0)

    def divergence(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return chunked_divergence(
            Scored(hidden, weight, bias, shape), top, counts, chunk_bytes=4 * VOCABULARY * 3
        )

    inputs = tuple(t.requires_grad_() for t in (drawn(TOKENS, HIDDEN, seed=1), weight, bias))
    gradients = torch.autograd.grad(divergence(*inputs), inputs)
    for index, (tensor, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        for seed in (11, 12, 13):
            direction = drawn(*tensor.shape, seed=seed)
            values = []
            for sign in (1, -1):
                moved = [t.detach() for t in inputs]
                moved[index] = moved[index] + sign * 1e-6 * direction
                values.append(float(divergence(*moved)))
            along = float((gradient * direction).sum())
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(along, rel=1e-6)


def test_tokens_of_which_nothing_is_known_add_nothing_where_they_do_not_count() -> None:
    """Half precision may sum to a little more than 1; −inf stands before a document's first."""
    hidden = drawn(2, 4, seed=1).float().requires_grad_()
    logs = torch.tensor([[0.7, 0.301], [0.0, 0.0]]).log()
    total = chunked_divergence(
        Scored(hidden),
        StoredTopK(torch.tensor([[0, 2], [0, 0]]), logs),
        torch.tensor([True, False]),
    )
    torch.autograd.backward(total)
    assert math.isfinite(total.item())
    assert hidden.grad is not None
    assert bool(hidden.grad.isfinite().all())
    assert torch.equal(hidden.grad[1], torch.zeros(4))


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
@pytest.mark.parametrize(
    ("teacher", "temperature"), [("live", 1.0), ("live", 2.0), ("stored", 1.0)]
)
def test_four_arrays_of_a_chunk_s_logits_exist_at_a_time(teacher: str, temperature: float) -> None:
    num_tokens, vocabulary, chunk_bytes = 8, 8192, 2 * 4 * 8192
    hidden = torch.randn(num_tokens, 4, requires_grad=True)
    weight = torch.randn(vocabulary, 4)
    ids = torch.arange(3).expand(num_tokens, 3)
    said: Scored | StoredTopK = Scored(torch.randn(num_tokens, 4), weight)
    if teacher == "stored":
        said = StoredTopK(ids, torch.full((num_tokens, 3), 0.2).log())

    def act() -> None:
        counts = torch.ones(num_tokens, dtype=torch.bool)
        student = Scored(hidden, weight)
        chunked_divergence(student, said, counts, temperature=temperature, chunk_bytes=chunk_bytes)

    assert 3.9 < most_allocated(act) / chunk_bytes < 4.3


def most_allocated(act: Callable[[], None]) -> int:
    """Return by how many bytes, at most, the CPU allocator's memory grows meanwhile."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        act()
    events = profile.profiler.kineto_results.events()
    changes: list[tuple[int, int]] = sorted(
        (e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"
    )
    return max(itertools.accumulate(change for _, change in changes))
