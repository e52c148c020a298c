"""8-bit moments against float32 ones: held-out loss after the same steps, bytes, time of an update.

A Llama of 2.6 million parameters learns Python source, then goes on with the prose of docstrings,
from one base with either kind of moments, in two orders of the text. It needs torchao
(`PYTHONPATH=.peers`, see `make test-peers`); without it nothing is measured.
"""

from __future__ import annotations

import ast
import importlib.util
import statistics
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from record import Figure, write_results
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from rewarm.model.vocabulary import train_bpe
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.eight_bit import import_adamw8bit
from rewarm.training.optimizer import (
    build_optimizer,
    masked_step,
    moments,
    set_learning_rate,
    trainable_parameters,
)

VOCABULARY, LENGTH, ROWS = 4096, 256, 8
BASE_STEPS, STEPS = 200, 100
BASE_LR, LR = 3e-3, 1e-3
ORDERS = (1, 2)
NUM_HELD_OUT = 32
MAX_CHARACTERS = 4_000_000


def sources() -> Iterator[str]:
    """Yield the modules of the standard library that this Python has."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="ignore")


def docstrings(text: str) -> Iterator[str]:
    """Yield what a module, its classes and functions say of themselves."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and (said := ast.get_docstring(node)):
            yield said


def windows(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return the texts as windows of LENGTH + 1 tokens."""
    ids = [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False).ids]
    whole = len(ids) // (LENGTH + 1) * (LENGTH + 1)
    return torch.tensor(ids[:whole]).view(-1, LENGTH + 1)


def loss_of(model: nn.Module, rows: Tensor) -> Tensor:
    logits = model(rows[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def train(
    model: nn.Module, text: Tensor, kind: str, *, num_steps: int, lr: float, order: int
) -> tuple[int, list[float]]:
    """Train; return the bytes of the moments and the seconds of each update."""
    recipe = OptimizerRecipe.model_validate({"kind": kind})
    optimizer = build_optimizer(trainable_parameters(model), recipe)
    generator = torch.Generator().manual_seed(order)
    seconds = []
    for step in range(num_steps):
        rows = text[torch.randint(len(text), (ROWS,), generator=generator)]
        loss_of(model, rows).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_learning_rate(optimizer, lr * (1 - step / num_steps))
        started = time.perf_counter()
        masked_step(optimizer, skip=torch.tensor(False))
        seconds.append(time.perf_counter() - started)
        optimizer.zero_grad()
    num_bytes = sum(t.numel() * t.element_size() for t in moments(optimizer).values())
    return num_bytes, seconds


@torch.no_grad()
def held_out(model: nn.Module, text: Tensor) -> float:
    return statistics.fmean(float(loss_of(model, rows)) for rows in torch.split(text, ROWS))


def main() -> None:
    if importlib.util.find_spec("torchao") is None:
        sys.stderr.write("torchao is not installed: nothing measured (PYTHONPATH=.peers)\n")
        return
    import_adamw8bit()
    modules = list(sources())
    code = "".join(modules)[:MAX_CHARACTERS]
    prose = "\n\n".join(said for module in modules for said in docstrings(module))
    tokenizer = Tokenizer.from_str(train_bpe([code[:2_000_000], prose], VOCABULARY))
    old, new = windows(tokenizer, [code]), windows(tokenizer, [prose])
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    base = LlamaForCausalLM(config)
    train(base, old, "adamw", num_steps=BASE_STEPS, lr=BASE_LR, order=0)
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    before = held_out(base, new[:NUM_HELD_OUT])
    losses: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    times: dict[str, float] = {}
    for kind in ("adamw", "adamw8bit"):
        for order in ORDERS:
            base.load_state_dict(weights)
            text = new[NUM_HELD_OUT:]
            sizes[kind], seconds = train(base, text, kind, num_steps=STEPS, lr=LR, order=order)
            losses.setdefault(kind, []).append(held_out(base, new[:NUM_HELD_OUT]))
            times[kind] = statistics.median(seconds)
    apart = max(
        abs(one - other) for one, other in zip(losses["adamw"], losses["adamw8bit"], strict=True)
    )
    orders = abs(losses["adamw"][0] - losses["adamw"][1])
    write_results(
        "eight_bit",
        [
            Figure("held-out loss before", before, "nats", "lower"),
            Figure("held-out loss, float32 moments", losses["adamw"][0], "nats", "lower"),
            Figure("held-out loss, 8-bit moments", losses["adamw8bit"][0], "nats", "lower"),
            Figure("losses apart, at most", apart, "nats", "lower", 0.01, "float32 moments"),
            Figure("two orders of the text apart", orders, "nats", "lower"),
            Figure("moments, float32", sizes["adamw"] / 1e6, "MB", "lower"),
            Figure(
                "moments, 8-bit", sizes["adamw8bit"] / sizes["adamw"], "", "lower", 0.27, "float32"
            ),
            Figure(
                "update, 8-bit, eager",
                times["adamw8bit"] / times["adamw"],
                "",
                "lower",
                None,
                "fused float32",
            ),
        ],
    )


if __name__ == "__main__":
    main()
