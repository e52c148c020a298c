"""One optimizer step against arithmetic by hand, and what never reaches the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from rewarm.batches.loader import IGNORED_LABEL, Batch, BatchLoader
from rewarm.distributed.fsdp import Root
from rewarm.model.document_attention import NAME_OF
from rewarm.model.loss import sum_of_token_losses
from rewarm.model.packing import DocumentAttention
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.optimizer import build_optimizer, trainable_parameters
from rewarm.training.spans import Spans
from rewarm.training.state import TrainState
from rewarm.training.step import NonFiniteStep, Stepper
from tests.support.tiny_models import family_model
from tests.support.tiny_plans import (
    SEQUENCE_LENGTH,
    VOCAB_SIZE,
    FakeView,
    make_placement,
    make_plan,
    make_views,
    new_tiny_model,
)

PLAN = make_plan(optimizer=OptimizerRecipe(clip_grad_norm=0.05, weight_decay=0.1))


def new_state(dtype: torch.dtype = torch.float64, *, dropout: float = 0.0) -> TrainState:
    model = new_tiny_model(dropout=dropout).to(dtype)
    model.train()
    return TrainState(
        Root(model), build_optimizer(trainable_parameters(model), PLAN.science.optimizer)
    )


def stepper(told: list[str], *, micro_batch: int = 4, loss: object = None) -> Stepper:
    return Stepper(
        PLAN.science,
        make_placement(micro_batch_sequences=micro_batch),
        loss or sum_of_token_losses,  # type: ignore[arg-type]
        tell=lambda kind, step, message: told.append(f"{kind}: {message}"),
        trace_with="rewarm trace RUN",
    )


def batch_of(step: int, *, masked: bool = False, mask_documents: bool = False) -> Batch:
    loader = BatchLoader(
        PLAN.science.order(),
        {**make_views(), "new": FakeView(2, document_length=7)},
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
        mask_documents=mask_documents,
    )
    batch = loader.batch(step)
    if not masked:
        return batch
    labels = batch.labels.clone()
    for row in range(len(labels)):  # a different number in every row
        labels[row, row:] = IGNORED_LABEL
    return replace(batch, labels=labels)


def weights(state: TrainState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_three_steps_are_adamw_by_hand() -> None:
    """Decoupled decay, bias correction and clipping, written out in float64 with numpy."""
    state = new_state()
    reference = new_tiny_model(dropout=0.0).to(torch.float64)
    reference.train()
    recipe = PLAN.science.optimizer
    beta_1, beta_2 = recipe.betas
    first = {name: np.zeros(p.shape) for name, p in reference.named_parameters()}
    second = {name: np.zeros(p.shape) for name, p in reference.named_parameters()}
    take_step = stepper([], micro_batch=8)
    for step in range(3):
        batch = batch_of(step)
        record = take_step(state, batch)
        state.step += 1

        reference.zero_grad()
        logits = reference(batch.input_ids).logits
        picked = torch.log_softmax(logits, -1).gather(-1, batch.labels[..., None])
        loss = -picked.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {
            n: p.grad.numpy() for n, p in reference.named_parameters() if p.grad is not None
        }
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
        lr = PLAN.science.lr(step)
        assert norm > recipe.clip_grad_norm, "the clipping would go untested"
        assert record.grad_norm == pytest.approx(norm, rel=1e-9)
        assert record.loss == pytest.approx(loss.item(), rel=1e-12)
        assert record.lr == lr
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                g = gradients[name] * recipe.clip_grad_norm / (norm + 1e-6)
                first[name] = beta_1 * first[name] + (1 - beta_1) * g
                second[name] = beta_2 * second[name] + (1 - beta_2) * g**2
                m = first[name] / (1 - beta_1 ** (step + 1))
                v = second[name] / (1 - beta_2 ** (step + 1))
                decay = recipe.weight_decay if parameter.ndim >= 2 else 0.0
                change = lr * (decay * parameter.numpy() + m / (np.sqrt(v) + recipe.eps))
                parameter.sub_(torch.from_numpy(change))
    for name, parameter in state.model.named_parameters():
        expected = dict(reference.named_parameters())[name]
        assert torch.allclose(parameter, expected, rtol=0, atol=1e-12), name


def test_the_split_into_micro_batches_does_not_matter() -> None:
    """Uneven valid tokens: a mean of means would differ in the second digit."""
    results = []
    for micro_batch in (8, 4, 2, 1):
        state = new_state()
        record = stepper([], micro_batch=micro_batch)(state, batch_of(0, masked=True))
        results.append((record, weights(state)))
    for record, found in results[1:]:
        assert record.loss == pytest.approx(results[0][0].loss, rel=1e-12)
        assert record.num_valid_tokens == sum(range(8))
        for name, tensor in found.items():
            if name != "running":  # batch statistics, which do depend on it
                assert torch.allclose(tensor, results[0][1][name], rtol=0, atol=1e-12)


def test_a_step_hands_positions_to_the_loss() -> None:
    """Two micro-batches: each gets the rows that are its own, and the sum is the whole's."""
    batch = batch_of(0, mask_documents=True)
    assert batch.position_ids is not None
    handed: list[Tensor] = []
    begun: list[list[int]] = []

    def noting(
        model: nn.Module,
        ids: Tensor,
        labels: Tensor,
        places: Tensor | None,
        bounds: Tensor | None,
    ) -> tuple[Tensor, object]:
        assert places is not None
        assert bounds is not None
        handed.append(places)
        begun.append(bounds.tolist())
        return sum_of_token_losses(model, ids, labels)

    stepper([], loss=noting)(new_state(), batch)
    assert [len(places) for places in handed] == [4, 4]
    assert torch.equal(torch.cat(handed), batch.position_ids)
    assert not torch.equal(*handed), "of rows that are alike nobody knows whose they are"
    for places, bounds in zip(handed, begun, strict=True):
        starts = [place for place, value in enumerate(places.flatten().tolist()) if value == 0]
        assert bounds == [*starts, places.numel()]


class Poisoned:
    """The loss, not finite for its first so many calls."""

    def __init__(self, num_bad_calls: int) -> None:
        self.left = num_bad_calls

    def __call__(
        self, model: nn.Module, ids: Tensor, labels: Tensor, *documents: Tensor | None
    ) -> tuple[Tensor, object]:
        nats, count = sum_of_token_losses(model, ids, labels, *documents)
        if self.left > 0:
            self.left -= 1
            return nats * math.nan, count
        return nats, count


def test_a_loss_that_is_not_finite_once_is_replayed_to_the_same_bits() -> None:
    clean, poisoned = new_state(torch.float32, dropout=0.1), new_state(torch.float32, dropout=0.1)
    torch.manual_seed(5)
    expected = stepper([])(clean, batch_of(0))
    torch.manual_seed(5)
    told: list[str] = []
    found = stepper(told, loss=Poisoned(1))(poisoned, batch_of(0))
    assert found.loss == expected.loss
    assert equal(weights(poisoned), weights(clean))
    assert any("the step is replayed once" in line for line in told)


def test_a_loss_that_stays_not_finite_never_reaches_the_weights() -> None:
    state = new_state(torch.float32)
    before = weights(state)
    moments = {
        id(p): {k: v.clone() for k, v in s.items()} for p, s in state.optimizer.state.items()
    }
    with pytest.raises(NonFiniteStep, match=r"step 0: the loss is nan") as caught:
        stepper([], loss=Poisoned(99))(state, batch_of(0))
    assert caught.value.exit_code == 1
    assert "rewarm trace RUN --step 0" in str(caught.value)
    assert equal(weights(state), before)
    assert all(parameter.grad is None for parameter in state.model.parameters())
    for parameter, entries in state.optimizer.state.items():
        for key, value in entries.items():
            assert torch.equal(value, moments[id(parameter)][key])


def test_a_step_without_labels_has_loss_zero_and_a_warning() -> None:
    state = new_state()
    batch = batch_of(0)
    empty = replace(batch, labels=torch.full_like(batch.labels, IGNORED_LABEL))
    told: list[str] = []
    record = stepper(told)(state, empty)
    assert (record.loss, record.grad_norm, record.num_valid_tokens) == (0.0, 0.0, 0)
    assert all(p.isfinite().all() for p in state.model.parameters())
    assert told == ["warning: no label of this step counts: loss and gradient 0"]


def test_a_rate_of_zero_leaves_every_bit() -> None:
    plan = make_plan(peak_lr=0.0)
    state = new_state(torch.float32)
    before = {n: p.clone() for n, p in state.model.named_parameters()}
    Stepper(
        plan.science,
        make_placement(),
        sum_of_token_losses,
        tell=lambda *_: None,
        trace_with="",
    )(state, batch_of(0))
    assert all(torch.equal(p, before[n]) for n, p in state.model.named_parameters())


class ReadsOfTheHost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what makes the host wait for a number of the device, within a step's parts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.parts: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.parts and func in WAITING:
            self.found.append(f"{self.parts[-1]}: {func}")
        return func(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.parts.append(name)
        yield
        self.parts.pop()


_aten = torch.ops.aten
WAITING = {
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
}


def test_no_part_of_a_step_waits_for_a_number_of_the_device() -> None:
    """What is read is read once, after all that the device has to do: loss, norm, finiteness."""
    watch = ReadsOfTheHost()
    state = new_state(torch.float32, dropout=0.1)
    with_parts = replace(stepper([]), spans=cast("Spans", watch.part))
    with watch:
        record = with_parts(state, batch_of(0, masked=True))
        with watch.part("a part that does"):
            torch.ones(1).item()
    assert math.isfinite(record.loss)
    assert watch.found == ["a part that does: aten._local_scalar_dense.default"]


def parts_waited_in(model: Any, batch: Batch) -> list[str]:
    """Return where a step of a model reads what it asks of a device before its end."""
    optimizer = build_optimizer(trainable_parameters(model), PLAN.science.optimizer)
    watch = ReadsOfTheHost()
    with watch:
        take_step = replace(stepper([]), spans=cast("Spans", watch.part))
        record = take_step(TrainState(Root(model), optimizer), batch)
    assert math.isfinite(record.loss)
    return watch.found


def test_nor_does_one_where_documents_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where documents begin is known to the host, and a kernel is told it from there."""
    told: list[Tensor] = []

    def kernel(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, **named: Any
    ) -> tuple[Tensor, None]:
        told.append(named["cu_seq_lens_q"])
        return value.transpose(1, 2), None

    monkeypatch.setitem(AttentionInterface._global_mapping, NAME_OF["varlen"], kernel)
    model = family_model("llama", vocab_size=VOCAB_SIZE).train()
    model.config._attn_implementation = NAME_OF["varlen"]
    assert parts_waited_in(model, batch_of(0, mask_documents=True)) == []
    assert len(told) == 2 * 2, "two micro-batches through two blocks"
    assert all(len(bounds) > 1 + 4 for bounds in told), "rows of one document would say nothing"


def test_nor_does_one_of_whole_windows_without_a_mask() -> None:
    model = family_model("llama", vocab_size=VOCAB_SIZE).train()
    batch = batch_of(0)
    assert parts_waited_in(model, batch), "transformers does not look at positions any more"
    attention = DocumentAttention((), sequence_length=SEQUENCE_LENGTH)
    assert attention.settle_whole(model) is None
    assert parts_waited_in(model, batch) == []
