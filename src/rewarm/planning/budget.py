"""What a run costs: floating-point operations, memory, time and money, each with its formula.

All are estimates from shapes alone, made before anything runs; a probe of the machine at hand
replaces them where it is asked for.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from rewarm.errors import Problems
from rewarm.planning.muon import MuonCost, least_muon_values
from rewarm.planning.plan import Estimate
from rewarm.records.facts import ModelFacts

__all__ = [
    "AT_ASSUMED",
    "CPU_ACTIVATION_BYTES",
    "AddedCost",
    "activation_bytes_per_token",
    "estimates",
    "flops_per_token",
    "largest_micro_batch",
    "loss_of",
    "note_micro_batch",
    "state_bytes",
    "training_flops",
]

AT_ASSUMED = "; at a rate that is assumed,"
"""What formulas of cost and energy end with, and the rate, where time is of an assumed rate."""

# Sustained by one modern CPU of a few cores in float32, measured between 40 and 90 GFLOP/s on
# small models: only the order of magnitude matters before a probe.
_ASSUMED_FLOPS_PER_SECOND = 5.0e10
CPU_ACTIVATION_BYTES = 2**30
"""A CPU gains nothing from larger micro-batches than this, and others use its memory too."""

# Up to here logits are little of a step's memory and time, whichever way the loss is taken.
_PLAIN_UP_TO_VOCABULARY = 2048
# Weights, gradient, two moments. In 8 bits a block of 256 codes shares a float32 scale.
_STATE_BYTES = {
    "adamw": (4, 4 + 8, "4 + 8"),
    "adamw8bit": (4, 4 + 2 + 8 / 256, "4 + 2 + 8/256"),
    "muon": (4, 4 + 8, "4 + 8"),
}
# Muon's matrices have one moment, not two.
_SAVED_BY_MUON = 4


class AddedCost(NamedTuple):
    """What retention adds to a run: bytes on all devices together, operations, and what of each."""

    num_bytes: float = 0.0
    flops: float = 0.0
    words: str = ""
    flops_words: str = ""


def flops_per_token(model: ModelFacts, sequence_length: int) -> float:
    """Return the operations that one token costs in training, forward and backward.

    6 per parameter that multiplies it (all but the input embedding, which is looked up; a tied
    head counts), plus attention: 12 · layers · heads · head size · length, halved because a token
    sees on average half of its sequence (Kaplan et al. 2020; Chowdhery et al. 2022, appendix B).
    """
    head = model.num_head_parameters or model.vocab_size * model.hidden_size
    body = model.num_parameters - model.num_embedding_parameters - model.num_head_parameters
    attention = 12 * model.num_layers * model.num_heads * model.head_size * sequence_length / 2
    return 6 * (body + head) + attention


def state_bytes(model: ModelFacts, optimizer: str, num_trained: int | None = None) -> int:
    """Return the bytes of float32 weights, gradients and the moments of a kind of optimizer.

    Gradients and moments are of `num_trained` values, by default all. In 8 bits moments below 4,096
    numbers (norms, biases) stay float32, which is not counted.
    """
    weight, rest, _ = _STATE_BYTES[optimizer]
    trained = model.num_parameters if num_trained is None else num_trained
    saved = _SAVED_BY_MUON * least_muon_values(model, trained) if optimizer == "muon" else 0
    return math.ceil(weight * model.num_parameters + rest * trained) - saved


def loss_of(
    wanted: Literal["auto", "plain", "chunked", "liger"], model: ModelFacts
) -> Literal["plain", "chunked", "liger"]:
    """Return how a model's loss is taken where a recipe wants "auto" or names a way."""
    if wanted == "auto":
        return "chunked" if model.vocab_size > _PLAIN_UP_TO_VOCABULARY else "plain"
    return wanted


def activation_bytes_per_token(model: ModelFacts, loss: str) -> int:
    """Return the float32 activations by which a CPU's micro-batch is chosen: an upper bound.

    `memory.py` says what is really kept, by which a GPU's is chosen; this stays as it is, so that
    runs on a CPU keep theirs.

    Per layer about 18 hidden-size vectors (norms, residuals, projections) and 3 of the
    intermediate size; attention scores are not stored (fused attention); plus logits, their
    gradient and the log-probabilities, unless the loss is taken in chunks.
    """
    per_layer = 18 * model.hidden_size + 3 * model.intermediate_size
    logits = 3 * model.vocab_size if loss == "plain" else 0
    return 4 * (model.num_layers * per_layer + logits)


def largest_micro_batch(
    sequences_per_step: int, *, bytes_per_sequence: int, budget_bytes: int
) -> int:
    """Return the largest divisor of the step whose activations fit the budget; at least 1.

    `bytes_per_sequence` counts activations and, with most models the larger part, three float32
    copies of the logits (themselves, their gradient, the log-probabilities).
    """
    fitting = max(1, budget_bytes // bytes_per_sequence)
    return max(
        size
        for size in range(1, min(fitting, sequences_per_step) + 1)
        if sequences_per_step % size == 0
    )


def training_flops(
    model: ModelFacts, sequence_length: int, num_tokens: int, layers_share: float
) -> float:
    """Return what training on so many tokens costs, the layers at a share of their whole cost."""
    per_token = flops_per_token(model, sequence_length)
    head = 6 * (model.num_head_parameters or model.vocab_size * model.hidden_size)
    return ((per_token - head) * layers_share + head) * num_tokens


def estimates(
    model: ModelFacts,
    *,
    sequence_length: int,
    sequences_per_step: int,
    num_steps: int,
    evaluation_tokens: int,
    num_devices: int,
    flops_per_second: float | None,
    assumed: tuple[float, str] | None = None,
    price_per_gpu_hour: float | None,
    optimizer: str,
    num_trained: int,
    layers_share: float,
    retention: AddedCost | None = None,
    muon: MuonCost | None = None,
) -> tuple[Estimate, ...]:
    """Return the plan's estimates; `evaluation_tokens` are scored forward only, at a third.

    At most `num_trained` values train at a time; steps cost the layers `layers_share` of what they
    cost where all of them do. The head is counted whole. What Muon adds each device does whole.
    `assumed` is a device's rate where the recipe gives none, and in words by what: else a CPU's.
    """
    per_token = flops_per_token(model, sequence_length)
    num_tokens = sequence_length * sequences_per_step * num_steps
    training = training_flops(model, sequence_length, num_tokens, layers_share)
    saved = "" if layers_share == 1 else f", the layers at {layers_share:.0%}"
    evaluation = per_token / 3 * evaluation_tokens
    rate, of_what = assumed or (_ASSUMED_FLOPS_PER_SECOND, "a CPU's in float32")
    speed = flops_per_second or rate
    at_rate = "" if flops_per_second else f"{AT_ASSUMED} {speed:.3g} FLOP/s, {of_what}"
    devices = "1 device" if num_devices == 1 else f"{num_devices} devices"
    origin = "the recipe's" if flops_per_second else "assumed, give hardware.flops_per_second:"
    by_what = "" if flops_per_second else f" ({of_what})"
    retention = retention or AddedCost()
    muon = muon or MuonCost()
    everything = training + evaluation + retention.flops + muon.flops
    seconds = ((everything - muon.flops) / num_devices + muon.flops) / speed
    found = [
        Estimate(
            name="parameters",
            value=model.num_parameters,
            unit="",
            formula="counted in the safetensors headers",
        ),
        Estimate(
            name="training compute",
            value=training,
            unit="FLOP",
            formula="tokens · (6 · (parameters − embedding + head) + 6 · layers · width · length)"
            + saved,
        ),
        Estimate(
            name="evaluation compute",
            value=evaluation,
            unit="FLOP",
            formula="scored tokens · a third of the training cost of a token: "
            f"{evaluation / everything:.1%} of the run",
        ),
        Estimate(
            name="weights, gradients and moments",
            value=state_bytes(model, optimizer, num_trained),
            unit="byte",
            formula=f"parameters · {_STATE_BYTES[optimizer][0]} + "
            f"{num_trained:,} that train · ({_STATE_BYTES[optimizer][2]})"
            + _told_of_muon(model, optimizer, num_trained),
        ),
        Estimate(
            name="time",
            value=seconds,
            unit="s",
            formula=f"compute / ({origin} {speed:.3g} FLOP/s{by_what} · {devices})",
        ),
    ]
    if retention.words:
        found[3:3] = [
            Estimate(
                name="retention compute",
                value=retention.flops,
                unit="FLOP",
                formula=f"{retention.flops / training:.2g} of training compute: "
                + (retention.flops_words or "none but on the weights themselves"),
            )
        ]
        found[5:5] = [
            Estimate(
                name="retention memory",
                value=retention.num_bytes,
                unit="byte",
                formula=retention.words,
            )
        ]
    if muon.words:
        found[2:2] = [
            Estimate(
                name="Muon compute",
                value=muon.flops,
                unit="FLOP",
                formula=f"{muon.flops / training:.2g} of training compute: {muon.words}",
            )
        ]
    if price_per_gpu_hour is not None:
        found.append(
            Estimate(
                name="cost",
                value=seconds / 3600 * num_devices * price_per_gpu_hour,
                unit="",
                formula=f"hours · {devices} · {price_per_gpu_hour:g} per hour{at_rate}",
            )
        )
    return tuple(found)


def _told_of_muon(model: ModelFacts, optimizer: str, num_trained: int) -> str:
    if optimizer != "muon":
        return ""
    values = least_muon_values(model, num_trained)
    return f" − {_SAVED_BY_MUON} · {values:,} in blocks' matrices, which have one moment"


def note_micro_batch(num_sequences: int, sequences_per_step: int, problems: Problems) -> None:
    """Note a micro-batch that does not divide the step."""
    if sequences_per_step % num_sequences:
        problems.add(
            "training.micro_batch_sequences",
            f"{num_sequences} does not divide the step's {sequences_per_step} sequences",
            f"use a divisor of {sequences_per_step}, or leave it out",
        )
