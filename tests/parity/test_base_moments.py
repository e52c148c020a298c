"""Our first step from a base's optimizer state is the next step of the optimizer that left it."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_parts

from rewarm.errors import BaseModelError, CheckpointError
from rewarm.records.run_folder import RunFolder
from tests.support.optimizer_states import (
    NUM_LEFT_STEPS,
    RECIPE,
    groups_of,
    largest_difference,
    moments_by_name,
    new_model,
    our_step,
    peer_over,
    peer_steps,
    save_moments,
    take_over,
)
from tests.support.rank_jobs import new_llama_model, train_llama
from tests.support.ranks import run_ranks

JOBS = "tests.support.rank_jobs"
TOLERANCE = 1e-14

# What a Trainer decays of GPT-2 and of Llama, by hand: no norm, no bias.
DECAYED = {
    "gpt2": [
        "transformer.wte.weight",
        "transformer.wpe.weight",
        *(
            f"transformer.h.{layer}.{name}.weight"
            for layer in (0, 1)
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        ),
    ],
    "llama": [
        "model.embed_tokens.weight",
        "lm_head.weight",
        *(
            f"model.layers.{layer}.{name}.weight"
            for layer in (0, 1)
            for name in (
                *(f"self_attn.{part}_proj" for part in "qkvo"),
                *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
            )
        ),
    ],
}


def left_by_peer(family: str, *, named: bool = False) -> tuple[nn.Module, Any]:
    """Return a model after some steps of torch's AdamW, and that AdamW."""
    model = new_model(family)
    decayed = [name for name, _ in model.named_parameters() if name in DECAYED[family]]
    assert len(decayed) == sum(p.ndim >= 2 for p in model.parameters())
    optimizer = peer_over(groups_of(model, decayed, named=named))
    peer_steps(model, optimizer, range(NUM_LEFT_STEPS))
    return model, optimizer


def save_trainers(path: Path, model: nn.Module, optimizer: Any) -> None:
    torch.save(optimizer.state_dict(), path)


def save_by_name(
    path: Path, model: nn.Module, optimizer: Any, num_updates: int = NUM_LEFT_STEPS
) -> None:
    save_moments(path, moments_by_name(model, optimizer), num_updates)


def save_torch_parts(path: Path, model: nn.Module, optimizer: Any) -> None:
    save_parts(
        {"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=path, no_dist=True
    )


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("kind", "name", "save", "named"),
    [
        pytest.param("torch", "optimizer.pt", save_trainers, False, id="Trainer"),
        pytest.param("torch", "optimizer.pt", save_trainers, True, id="named groups"),
        pytest.param("safetensors", "moments.safetensors", save_by_name, False, id="safetensors"),
        pytest.param("dcp", "parts", save_torch_parts, False, id="DCP"),
    ],
)
def test_the_next_step_is_the_peers(
    tmp_path: Path,
    family: str,
    kind: str,
    name: str,
    save: Callable[[Path, nn.Module, Any], None],
    named: bool,
) -> None:
    model, peer = left_by_peer(family, named=named)
    save(tmp_path / name, model, peer)
    ours = new_model(family)
    ours.load_state_dict(model.state_dict())
    optimizer, taken = take_over(kind, tmp_path / name, ours)
    assert (taken.fewest_updates, taken.most_updates) == (NUM_LEFT_STEPS, NUM_LEFT_STEPS)
    assert taken.betas == (RECIPE.betas if kind == "torch" else None)
    for step in range(NUM_LEFT_STEPS, NUM_LEFT_STEPS + 2):
        peer_steps(model, peer, range(step, step + 1))
        our_step(ours, optimizer, step)
        assert largest_difference(model, ours) <= TOLERANCE


def test_fresh_moments_would_take_another_step(tmp_path: Path) -> None:
    """What the parity above would not see if nothing were taken over."""
    model, peer = left_by_peer("llama")
    save_by_name(tmp_path / "m.safetensors", model, peer)
    ours = new_model("llama")
    ours.load_state_dict(model.state_dict())
    from rewarm.training.optimizer import build_optimizer, trainable_parameters

    fresh = build_optimizer(trainable_parameters(ours), RECIPE)
    peer_steps(model, peer, range(NUM_LEFT_STEPS, NUM_LEFT_STEPS + 1))
    our_step(ours, fresh, NUM_LEFT_STEPS)
    assert largest_difference(model, ours) > 1e-3


def test_one_group_is_in_the_order_of_the_model(tmp_path: Path) -> None:
    model = new_model("gpt2")
    peer = peer_over([{"params": list(model.parameters()), "weight_decay": 0.0}])
    peer_steps(model, peer, range(NUM_LEFT_STEPS))
    torch.save(peer.state_dict(), tmp_path / "optimizer.pt")
    ours = new_model("gpt2")
    ours.load_state_dict(model.state_dict())
    optimizer, _ = take_over(
        "torch", tmp_path / "optimizer.pt", ours, RECIPE.model_copy(update={"weight_decay": 0.0})
    )
    peer_steps(model, peer, range(NUM_LEFT_STEPS, NUM_LEFT_STEPS + 1))
    our_step(ours, optimizer, NUM_LEFT_STEPS)
    assert largest_difference(model, ours) <= TOLERANCE


def test_half_precision_moments_are_taken_as_they_are(tmp_path: Path) -> None:
    model, peer = left_by_peer("llama")
    halves = {name: t.to(torch.bfloat16) for name, t in moments_by_name(model, peer).items()}
    save_moments(tmp_path / "m.safetensors", halves)
    ours = new_model("llama", dtype=torch.float32)
    optimizer, _ = take_over("safetensors", tmp_path / "m.safetensors", ours)
    for name, parameter in ours.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            expected = halves[f"{moment}.{name}"].float()
            assert torch.equal(optimizer.state[parameter][moment], expected)


class Striker:
    """What a pickle may ask for: a command."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def refused(kind: str, path: Path, family: str = "llama") -> str:
    with pytest.raises((BaseModelError, CheckpointError)) as caught:
        take_over(kind, path, new_model(family, dtype=torch.float32))
    return str(caught.value)


def test_code_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"state": {}, "param_groups": [], "x": Striker(trace)}, tmp_path / "optimizer.pt")
    told = refused("torch", tmp_path / "optimizer.pt")
    assert "asks for more than tensors and numbers" in told
    assert "posix.system" in told
    assert not trace.exists()
    torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert trace.exists(), "the payload is one that would have run"


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_code_in_the_metadata_of_parts_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    model, peer = left_by_peer("llama")
    save_torch_parts(tmp_path / "parts", model, peer)
    metadata = tmp_path / "parts" / ".metadata"
    metadata.write_bytes(pickle.dumps(Striker(trace)))
    told = refused("dcp", tmp_path / "parts")
    assert "is no part of such metadata" in told
    assert not trace.exists()
    pickle.loads(metadata.read_bytes())
    assert trace.exists(), "the payload is one that would have run"


def test_everything_that_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    model, peer = left_by_peer("llama")
    moments = moments_by_name(model, peer)
    first, second, third, fourth, *_ = (name for name, _ in model.named_parameters())
    del moments[f"exp_avg.{first}"]
    moments[f"exp_avg.{second}"] = torch.zeros(3, 2, dtype=torch.float64)
    moments[f"exp_avg_sq.{third}"] = torch.zeros(
        moments[f"exp_avg_sq.{third}"].shape, dtype=torch.int32
    )
    moments["exp_avg.ghost"] = torch.zeros(1)
    more = {"step": torch.tensor(5), f"step.{fourth}": torch.tensor(-1)}
    told = refused("safetensors", save_moments(tmp_path / "m.safetensors", moments | more, None))
    for what in (
        f"exp_avg.{first} is missing",
        f"exp_avg.{second} is torch.float64 [3, 2], its parameter",
        f"exp_avg_sq.{third} is torch.int32",
        "exp_avg.ghost is of no parameter of the base",
        f"{fourth} is said to have had -1 updates",
    ):
        assert what in told
    assert told.count("→") == 5


def test_moments_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    model, peer = left_by_peer("llama")
    moments = moments_by_name(model, peer)
    names = [name for name, _ in model.named_parameters()]
    moments[f"exp_avg.{names[0]}"][0] = float("nan")
    moments[f"exp_avg_sq.{names[1]}"][-1] = float("inf")
    moments[f"exp_avg_sq.{names[2]}"][0] = -1e-9
    told = refused("safetensors", save_moments(tmp_path / "m.safetensors", moments))
    assert told.count("→") == 3
    assert f"exp_avg.{names[0]} holds numbers that are not finite" in told
    assert f"exp_avg_sq.{names[2]} holds numbers that are not finite, or below zero" in told


def of_adam(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = left_by_peer("llama")[1].state_dict()
        change(state)
        torch.save(state, path)

    return write


def to_bitsandbytes(state: dict[str, Any]) -> None:
    """Give entries the keys that bnb.optim.AdamW8bit's have."""
    for number in state["state"]:
        state["state"][number] = {
            key: torch.zeros(4, dtype=torch.uint8)
            for key in ("state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2")
        } | {"step": 5}


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (of_adam(to_bitsandbytes), "8-bit moments of bitsandbytes"),
        (of_adam(lambda s: s["state"].pop(0)), "(number 0 there) has no state"),
        (
            of_adam(lambda s: s["state"][3].update(max_exp_avg_sq=torch.zeros(1))),
            "has exp_avg, exp_avg_sq, max_exp_avg_sq, step instead of",
        ),
        (
            of_adam(lambda s: s["param_groups"][0]["params"].pop()),
            "its groups have 15 and 5 parameters, those of a transformers Trainer over this base "
            "16 and 5",
        ),
        (
            of_adam(lambda s: s["param_groups"].append({"params": []})),
            "its 3 groups of parameters have no names, and no known order",
        ),
        (of_adam(lambda s: s["state"][0].update(step="five")), "has a step that is no number"),
        (of_adam(lambda s: s["state"][0].update(step=torch.ones(2))), "a step that is no number"),
        (of_adam(lambda s: s["state"][0].update(exp_avg=5.0)), "no plain tensor as its exp_avg"),
        (
            of_adam(lambda s: s["state"][0].update(exp_avg=s["state"][0]["exp_avg"].to_sparse())),
            "no plain tensor as its exp_avg",
        ),
        (of_adam(lambda s: s["param_groups"].clear()), "are not numbered or named"),
        (of_adam(lambda s: s["param_groups"][0].update(params=[[0]])), "not numbered or named"),
        (
            of_adam(lambda s: s["param_groups"][0].update(params=[0, 0])),
            "a parameter stands in its groups twice",
        ),
        (
            of_adam(lambda s: [group.update(param_names=["a"]) for group in s["param_groups"]]),
            "do not have as many param_names as parameters",
        ),
        (lambda path: torch.save([1, 2], path), "it is not the state_dict() of an optimizer"),
        (lambda path: path.write_bytes(b"PK\x03\x04nothing"), "it cannot be read"),
    ],
    ids=[
        "bitsandbytes",
        "no state",
        "amsgrad",
        "another model",
        "groups",
        "step of text",
        "two steps",
        "a number",
        "sparse",
        "no groups",
        "numbers in lists",
        "twice",
        "names",
        "a list",
        "damaged",
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_other_states_are_refused(tmp_path: Path, write: Callable[[Path], None], told: str) -> None:
    path = tmp_path / "optimizer.pt"
    write(path)
    assert told in refused("torch", path)


def test_a_trainers_state_of_another_base_is_refused(tmp_path: Path) -> None:
    """As many parameters, other shapes: every one is told."""
    path = tmp_path / "optimizer.pt"
    save_trainers(path, *left_by_peer("llama"))
    from tests.support.tiny_models import family_model

    wider = family_model("llama", hidden_size=48, intermediate_size=64)
    with pytest.raises(BaseModelError) as caught:
        take_over("torch", path, wider)
    assert len(caught.value.problems) == 2 * len(list(wider.parameters()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_ranks_take_over_their_parts(tmp_path: Path) -> None:
    """Every form on two ranks, which do not divide the vocabulary; of ours, whole and in parts."""
    train_llama(tmp_path / "alone", until_step=4)
    run_ranks(f"{JOBS}:train", str(tmp_path / "two"), "4", num_ranks=2)
    states = tmp_path / "states"
    for name in ("alone", "two"):
        left = RunFolder(tmp_path / name).checkpoints / "step-00000004"
        shutil.copytree(left, states / f"checkpoint-{name}")
    whole = states / "checkpoint-alone"
    assert not (states / "checkpoint-two" / "optimizer.safetensors").exists()

    model = new_llama_model()
    model.load_state_dict(load_file(whole / "model.safetensors"), strict=False)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    decayed = [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]
    peer = peer_over(groups_of(model, decayed))
    moments = load_file(whole / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        peer.state[parameter] = {"step": torch.tensor(4.0)} | {
            moment: moments[f"{moment}.{name}"] for moment in ("exp_avg", "exp_avg_sq")
        }
    save_trainers(states / "torch-", model, peer)
    save_by_name(states / "safetensors-", model, peer, num_updates=4)
    (states / "safetensors-").rename(states / "safetensors-.safetensors")
    save_torch_parts(states / "dcp-", model, peer)

    run_ranks(f"{JOBS}:takes_over", str(tmp_path), num_ranks=2)
    peer_steps(model, peer, range(4, 5))
    forms = sorted(path.name for path in states.iterdir())
    assert len(forms) == 5
    for form in forms:
        found = torch.load(tmp_path / f"{form}.pt", weights_only=True)
        for name, parameter in model.named_parameters():
            assert (found[name] - parameter).abs().max() <= 1e-12, f"{form}: {name}"


def test_a_damaged_checkpoint_is_not_taken_over(tmp_path: Path) -> None:
    train_llama(tmp_path, until_step=4)
    folder = RunFolder(tmp_path).checkpoints / "step-00000004"
    data = bytearray((folder / "optimizer.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "optimizer.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors was altered"):
        take_over("checkpoint", folder, new_llama_model())
