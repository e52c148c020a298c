"""A training step with the lowest layers frozen against one that trains all, taking turns.

FLOPs are counted by torch; memory is the most that saved tensors (activations), gradients and
moments hold at once. Time is the processor's, on one thread, and of each the least of the rounds:
a ratio of wall times was noise on a machine with other work. The goals are what 3 − 2f forward
passes over the layers, and the head beside them, come to.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from record import Figure, write_results
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from rewarm.model.loss import sum_of_token_losses
from rewarm.model.trainable import let_train, trained_in
from rewarm.planning.trainable import Stage
from rewarm.recipe.parameters import ParametersRecipe
from rewarm.recipe.steps import OptimizerRecipe
from rewarm.training.optimizer import build_optimizer, trainable_parameters

NUM_LAYERS, HIDDEN, LENGTH, SEQUENCES, VOCABULARY = 8, 256, 256, 4, 2048
NUM_ROUNDS = 7


def new_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=688,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=False,
        )
    )


class Step:
    """A model of which the lowest layers are frozen, and its step."""

    def __init__(self, frozen: int, ids: torch.Tensor) -> None:
        self.model = new_model()
        stage = Stage(start_step=0, frozen_layers=frozen)
        let_train(self.model, trained_in(self.model, ParametersRecipe(), stage, seed=0))
        self.optimizer = build_optimizer(trainable_parameters(self.model), OptimizerRecipe())
        self.ids = ids

    def __call__(self) -> float:
        """Take a step and return its seconds of processor time."""
        started = time.process_time()
        model: Any = self.model
        nats, _ = sum_of_token_losses(model, self.ids[:, :-1], self.ids[:, 1:])
        torch.autograd.backward(nats)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.process_time() - started

    def flops(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self()
        return int(counter.get_total_flops())

    def state_bytes(self) -> int:
        """Return the bytes of activations kept for the backward pass, gradients and moments."""
        held: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, nn.Parameter):
                storage = tensor.untyped_storage()
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        model: Any = self.model
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sum_of_token_losses(model, self.ids[:, :-1], self.ids[:, 1:])
        trained = sum(p.numel() for _, p in trainable_parameters(self.model))
        return sum(held.values()) + 4 * 3 * trained


def main() -> None:
    torch.set_num_threads(1)
    ids = torch.randint(0, VOCABULARY, (SEQUENCES, LENGTH + 1))
    shares = [0, 2, 4, 6, 7]
    steps = {frozen: Step(frozen, ids) for frozen in shares}
    for step in steps.values():
        step()
    rounds = [{frozen: step() for frozen, step in steps.items()} for _ in range(NUM_ROUNDS)]
    flops = {frozen: step.flops() for frozen, step in steps.items()}
    held = {frozen: step.state_bytes() for frozen, step in steps.items()}
    # Of all FLOPs those of the head stay: three passes over one matrix.
    head = 3 * 2 * VOCABULARY * HIDDEN * LENGTH * SEQUENCES
    figures = []
    for frozen in shares[1:]:
        share = frozen / NUM_LAYERS
        layers = flops[0] - head
        predicted = (layers * (3 - 2 * share) / 3 + head) / flops[0]
        what = f"with the lowest {share:.0%} of the layers frozen"
        figures += [
            Figure(f"FLOPs {what}", flops[frozen] / flops[0], "", "lower", predicted * 1.02, "all"),
            Figure(
                f"step time {what}",
                min(r[frozen] for r in rounds) / min(r[0] for r in rounds),
                "",
                "lower",
                predicted * 1.15,
                "all, interleaved, processor time",
            ),
            Figure(
                f"activations, gradients and moments {what}",
                held[frozen] / held[0],
                "",
                "lower",
                None,
                "all",
            ),
        ]
    write_results("freezing", figures)


if __name__ == "__main__":
    main()
