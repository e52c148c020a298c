"""Compiled blocks and a compiled loss: whole graphs, the same gradients, and what is refused."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rewarm.distributed.fsdp import blocks_of
from rewarm.model import chunked_loss
from rewarm.model.blocks import checkpoint_blocks
from rewarm.model.chunked_loss import LogitShape, tokens_per_chunk
from rewarm.model.compiled import compile_blocks, quiet_compiler
from rewarm.model.head_loss import HeadLoss
from rewarm.model.loss import IGNORED, sum_of_token_losses
from rewarm.model.packing import DocumentAttention
from rewarm.planning import memory
from rewarm.records.probe import Checkpointing
from tests.support.tiny_models import family_model

FAMILIES = ["llama", "qwen2", "olmo2", "gemma2", "gpt_neox"]
# Llama, and the one with two kinds of layers and capped scores; the others are like the first.
FAST_FIRST = [
    family if family in ("llama", "gemma2") else pytest.param(family, marks=pytest.mark.slow)
    for family in FAMILIES
]
SHAPE = (2, 32)
IDS = torch.randint(320, SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    """Compile anew in each test: graphs are kept by code, not by model."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def documents(*lengths: int) -> Tensor:
    row = torch.cat([torch.arange(length) for length in lengths])
    return row.expand(SHAPE).contiguous()


def model_of(family: str, *, apart: bool = False) -> Any:
    model = family_model(family).train()
    if apart:
        attention = DocumentAttention(("split", "mask"), sequence_length=SHAPE[1])
        assert attention.settle(model) == []
        assert attention.taken == "split"
    return model


def compiled(model: Any, *, apart: bool = False, **more: Any) -> str | None:
    blocks = blocks_of(model)
    settings = {"backend": "aot_eager", "checkpointing": "none", **more}
    return compile_blocks(model, blocks, shape=SHAPE, mask_documents=apart, **settings)


def gradients(model: Any, positions: Tensor | None) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    nats, _ = sum_of_token_losses(model, IDS, IDS.roll(-1), positions)
    torch.autograd.backward(nats)
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("apart", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize("family", FAST_FIRST)
def test_a_familys_blocks_are_whole_graphs_with_the_same_gradients(
    family: str, apart: bool
) -> None:
    model = model_of(family, apart=apart)
    positions = documents(5, 20, 7) if apart else None
    expected = gradients(model, positions)
    names = list(expected)
    assert compiled(model, apart=apart) is None
    found = gradients(model, positions)
    assert list(found) == names
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("family", FAST_FIRST)
def test_in_half_precision_too(family: str) -> None:
    model = model_of(family, apart=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert compiled(model, apart=True) is None


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_by_torchs_own_compiler(family: str) -> None:
    model = model_of(family, apart=True)
    positions = documents(5, 20, 7)
    expected = gradients(model, positions)
    assert compiled(model, apart=True, backend="inductor") is None
    found = gradients(model, positions)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_compiled_blocks_may_keep_less(kind: Checkpointing) -> None:
    model = model_of("llama")
    expected = gradients(model, None)
    checkpoint_blocks(blocks_of(model), kind)
    assert compiled(model, checkpointing=kind) is None
    found = gradients(model, None)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-4, atol=2e-5)


class Counting:
    """A compiler that changes nothing and counts graphs and calls."""

    def __init__(self, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self.num_graphs = self.num_calls = 0
        self._change = change

    def __call__(self, graph: Any, inputs: object) -> Callable[..., Any]:
        self.num_graphs += 1

        def run(*arguments: Any) -> Any:
            self.num_calls += 1
            return tuple(self._change(tensor) for tensor in graph(*arguments))

        return run


def test_layers_share_a_graph_whatever_documents_there_are() -> None:
    model = model_of("llama", apart=True)
    backend = Counting()
    assert compiled(model, apart=True, backend=backend) is None
    for lengths in ((5, 20, 7), (32,), (4,) * 8, (1, 31)):
        gradients(model, documents(*lengths))
    assert backend.num_graphs == 2, "one of the blocks, one of the last norm"
    assert backend.num_calls == 2 + 4 * (len(blocks_of(model)) + 1)


def test_what_takes_no_gradient_runs_as_it_is() -> None:
    """Evaluations have other lengths, and the bits of every other measure."""
    model = model_of("llama")
    with torch.no_grad():
        expected = model(IDS).logits
    backend = Counting(lambda tensor: tensor * (1 + 1e-6))
    assert compiled(model, backend=backend) is None
    before = backend.num_calls
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected)
    assert backend.num_calls == before


def test_blocks_that_come_to_something_else_stay_as_they_are() -> None:
    model = model_of("llama")
    expected = gradients(model, None)
    why = compiled(model, backend=Counting(lambda tensor: tensor * 1.01))
    assert why is not None
    assert why.startswith("the output of block 0 is off by 0.0")
    assert all(torch.equal(found, expected[name]) for name, found in gradients(model, None).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_norm_is_compiled_and_held_against_itself(family: str) -> None:
    """Its graph alone has no product in it."""
    model = model_of(family)
    expected = gradients(model, None)
    kinds: set[int] = set()

    def wrong_norms(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        products = [node for node in graph.graph.nodes if "linear" in str(node.target)]
        kinds.add(len(products))
        wrong = 1.0 if products else 1.01
        return lambda *arguments: tuple(tensor * wrong for tensor in graph(*arguments))

    why = compiled(model, backend=wrong_norms)
    assert kinds == {0, max(kinds)}
    assert why is not None
    assert why.startswith("the output of the last norm is off by 0.0")
    assert all(torch.equal(found, expected[name]) for name, found in gradients(model, None).items())


def test_a_graph_that_breaks_is_refused_with_the_reason() -> None:
    model = model_of("llama")
    block = blocks_of(model)[0]
    own = block.get_submodule("mlp").forward

    def breaks(hidden: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        found: Tensor = own(hidden)
        return found

    block.get_submodule("mlp").forward = breaks
    why = compiled(model)
    assert why is not None
    assert "graph_break" in why.replace("Call to ", "").replace("torch._dynamo.", "")
    gradients(model, None)


def test_blocks_that_cannot_be_compiled_with_dropout_stay_as_they_are() -> None:
    """Steps have dropout, and what they are held against has none."""
    model = family_model("gpt2", attn_pdrop=0.5).train()
    attention = DocumentAttention(("split", "mask"), sequence_length=SHAPE[1])
    assert attention.settle(model) == []
    assert attention.taken == "split"
    why = compiled(model, apart=True, trains_alike=False)
    assert why is not None
    told = "attention by document_attention = split has no dropout when compiled; mask has"
    assert told in why or "Observed exception" in why, "torch 2.11 does not say what was raised"
    assert all(module.training for module in model.modules())
    gradients(model, documents(5, 20, 7))


def test_blocks_that_can_be_compiled_with_dropout_are() -> None:
    """By the mask in attention, and by the other kinds of dropout with every attention."""
    model = family_model("gpt2", attn_pdrop=0.5).train()
    backend = Counting()
    assert compiled(model, apart=True, trains_alike=False, backend=backend) is None
    before = backend.num_graphs
    found = [gradients(model, documents(5, 20, 7)) for _ in range(2)]
    assert backend.num_graphs == before, "the graph that steps take was made before"
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
    model = family_model("gpt2", attn_pdrop=0.0).train()
    attention = DocumentAttention(("split", "mask"), sequence_length=SHAPE[1])
    assert attention.settle(model) == []
    assert compiled(model, apart=True, trains_alike=False) is None


class Heard:
    """What reaches a terminal of warnings and of torch's log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        monkeypatch.setattr(warnings, "showwarning", lambda what, *_: self.told.append(str(what)))
        monkeypatch.setattr(logging.getLogger("torch"), "handle", self._handle)

    def _handle(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())

    def fails(self, *arguments: object) -> Any:
        """Fail as a compiler does that says much of it."""
        warnings.warn("performance may be worse", stacklevel=1)
        logging.getLogger("torch").warning("no scheduler")
        raise RuntimeError("no compiler\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace")


def test_what_was_quiet_before_a_compiler_was_stays_so() -> None:
    logging.disable(logging.INFO)
    try:
        with quiet_compiler():
            assert logging.root.manager.disable == logging.WARNING
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("asked_for", [False, True])
def test_a_compiler_that_fails_is_heard_in_the_reason_alone(
    monkeypatch: pytest.MonkeyPatch, asked_for: bool
) -> None:
    heard = Heard(monkeypatch)
    if asked_for:
        monkeypatch.setenv("TORCH_LOGS", "+inductor")
    else:
        monkeypatch.delenv("TORCH_LOGS", raising=False)
    words = ["performance may be worse", "no scheduler"]
    model, loss = model_of("llama"), HeadLoss()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert loss.settle(model) is None
        monkeypatch.setattr(chunked_loss, "_compiled_chunk", lambda: heard.fails)
        assert loss.compile(model, 24) == "RuntimeError: no compiler"
        assert heard.told == (words if asked_for else [])
        why = compiled(model, backend=heard.fails)
    assert why is not None
    assert why.endswith("RuntimeError: no compiler")
    assert heard.told == (2 * words if asked_for else [])
    logging.getLogger("torch").warning("of another matter")
    assert heard.told[-1] == "of another matter"


def test_without_blocks_there_is_nothing_to_compile() -> None:
    why = compile_blocks(nn.Linear(2, 2), [], "none", shape=SHAPE, mask_documents=False)
    assert why == "the model has no list of blocks"


@pytest.mark.parametrize("shape", [LogitShape(), LogitShape(0.5), LogitShape(2.0, 3.0)])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_the_loss_written_for_a_compiler_is_torchs_cross_entropy(
    shape: LogitShape, wide: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    raw = (torch.randn(7, 50, generator=generator, dtype=wide) * 3).requires_grad_()
    labels = torch.randint(50, (7,), generator=generator)
    labels[2] = IGNORED
    logits = raw * shape.scale
    if shape.cap is not None:
        logits = shape.cap * torch.tanh(logits / shape.cap)
    expected = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)
    (of_raw,) = torch.autograd.grad(expected, raw)
    total, gradient = chunked_loss._fused_chunk(raw.detach(), labels, shape, True)
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(gradient, of_raw)
    assert chunked_loss._fused_chunk(raw.detach(), labels, shape, False)[1] is None


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_loss_is_compiled_where_it_then_gives_the_same(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loss = model_of(family), HeadLoss(chunk_bytes=4 * 320 * 8)
    assert loss.compile(model, IDS.numel()) is None, "nothing is done before it was borne out"
    assert loss.settle(model) is None
    (expected, _) = loss(model, IDS, IDS.roll(-1))
    calls: list[int] = []

    def fused(*arguments: Any) -> Any:
        calls.append(1)
        return chunked_loss._fused_chunk(*arguments)

    monkeypatch.setattr(chunked_loss, "_compiled_chunk", lambda: fused)
    assert loss.compile(model, IDS.numel()) is None
    calls.clear()
    (found, _) = loss(model, IDS, IDS.roll(-1))
    assert len(calls) == 4
    torch.testing.assert_close(found, expected)


def test_a_compiled_loss_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss = model_of("llama"), HeadLoss()
    assert loss.settle(model) is None

    def wrong(*arguments: Any) -> Any:
        total, gradient = chunked_loss._fused_chunk(*arguments)
        return total, None if gradient is None else gradient * 1.01

    monkeypatch.setattr(chunked_loss, "_compiled_chunk", lambda: wrong)
    assert loss.compile(model, 24) == "the gradient differs"
    monkeypatch.setattr(chunked_loss, "_compiled_chunk", lambda: _fails)
    assert loss.compile(model, 24) == "RuntimeError: no compiler"
    (expected, _) = sum_of_token_losses(model, IDS, IDS)
    torch.testing.assert_close(loss(model, IDS, IDS)[0], expected)


def _fails(*arguments: object) -> None:
    raise RuntimeError("no compiler")


def test_the_plan_counts_the_chunks_that_are_taken() -> None:
    assert memory.CHUNK_BYTES == chunked_loss.CHUNK_BYTES
    assert memory.BLOCK_BYTES == chunked_loss.BLOCK_BYTES
    assert memory.GPU_CHUNK_BYTES == chunked_loss.GPU_CHUNK_BYTES


def test_chunks_of_a_gpu_are_powers_of_two() -> None:
    assert tokens_per_chunk(2**27, 100_352) == 334
    assert tokens_per_chunk(2**30, 100_352) == 2048
    assert tokens_per_chunk(2**30, 2**40) == 1
