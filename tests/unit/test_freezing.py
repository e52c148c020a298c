"""Runs that train in stages: what is frozen stays as it is, and resuming changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rewarm.model.head_loss import HeadLoss
from rewarm.model.loss import sum_of_token_losses
from rewarm.model.trainable import let_train, names_in, trained_in
from rewarm.planning.amendments import Amendments
from rewarm.planning.plan import Plan
from rewarm.planning.trainable import Stage, stages_of, trained_names, training_cost
from rewarm.recipe.parameters import FreezingRecipe, ParametersRecipe
from rewarm.records.run_folder import RunFolder
from rewarm.training.saved import SettlingMemory, read_saved_state
from rewarm.training.settling import FreezeSettledLayers, settled_layers
from tests.support.tiny_models import family_model
from tests.support.tiny_plans import SEQUENCE_LENGTH, VOCAB_SIZE, make_plan, tensors_of, train_tiny

NUM_LAYERS = 4
NUM_STEPS = 20


def new_model(**changes: Any) -> nn.Module:
    model: nn.Module = family_model(
        "llama", vocab_size=VOCAB_SIZE, num_hidden_layers=NUM_LAYERS, **changes
    )
    return model.train()


def plan_of(
    parameters: ParametersRecipe | None = None, freezing: FreezingRecipe | None = None
) -> Plan:
    plan = make_plan(num_steps=NUM_STEPS, checkpoint_every=3, keep=30)
    parameters, freezing = parameters or ParametersRecipe(), freezing or FreezingRecipe()
    science = plan.science.model_copy(
        update={
            "num_layers": NUM_LAYERS,
            "parameters": parameters,
            "freezing": freezing,
            "stages": stages_of(
                parameters,
                freezing,
                num_layers=NUM_LAYERS,
                num_steps=NUM_STEPS,
                phase_starts=[phase.start_step for phase in plan.science.phases],
            ),
        }
    )
    return plan.model_copy(
        update={"science": science, "fingerprint": Plan.science_fingerprint(science)}
    )


def train_model(folder: Path, plan: Plan, **changes: Any) -> None:
    train_tiny(folder, plan, load_model=new_model, **changes)


def weights_at(folder: Path, step: int) -> dict[str, Tensor]:
    path = folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors"
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def moments_at(folder: Path, step: int) -> set[str]:
    path = folder / "checkpoints" / f"step-{step:08d}" / "optimizer.safetensors"
    return {name.partition(".")[2] for name in load_file(path)}


def in_layers(names: set[str], *layers: int) -> set[str]:
    return {name for name in names if any(f".layers.{n}." in name for n in layers)}


def test_what_is_left_out_keeps_its_bits_and_has_no_moments(tmp_path: Path) -> None:
    plan = plan_of(ParametersRecipe(freeze=["layers.lower-half", "embeddings", "norms"]))
    train_model(tmp_path, plan)
    base = dict(new_model().named_parameters())
    trained = trained_in(new_model(), plan.science.parameters, Stage(start_step=0), seed=1)
    stored = weights_at(tmp_path, NUM_STEPS)
    assert stored.keys() == trained, "what never trains is the base's own and is not stored"
    assert all(not torch.equal(stored[name], base[name]) for name in trained)
    assert moments_at(tmp_path, NUM_STEPS) == trained


def test_frozen_layers_are_bit_identical_from_their_step_on(tmp_path: Path) -> None:
    """FreezeOut of 20 steps: 0.512, 0.614 and 0.729 of them are steps 11, 13 and 15."""
    plan = plan_of(freezing=FreezingRecipe(kind="freezeout"))
    assert [(s.start_step, s.frozen_layers) for s in plan.science.stages] == [
        (0, 0),
        (11, 1),
        (13, 2),
        (15, 3),
    ]
    train_model(tmp_path, plan)
    last = weights_at(tmp_path, NUM_STEPS)
    for step, frozen in ((11, [0]), (13, [0, 1]), (15, [0, 1, 2])):
        then = weights_at(tmp_path, step)
        gone = in_layers(set(last), *frozen) | {"model.embed_tokens.weight"}
        assert all(torch.equal(last[name], then[name]) for name in gone)
        still = set(last) - gone
        assert not any(torch.equal(last[name], then[name]) for name in still)
    assert moments_at(tmp_path, NUM_STEPS) == set(last) - (
        in_layers(set(last), 0, 1, 2) | {"model.embed_tokens.weight"}
    )
    # Moments of what goes on training go on: the top layer has had every update.
    counts = read_saved_state(tmp_path / "checkpoints" / f"step-{NUM_STEPS:08d}").optimizer_steps
    assert set(counts.values()) == {NUM_STEPS}


def test_layers_have_rates_of_their_own_until_they_freeze(tmp_path: Path) -> None:
    """With a cosine of its own a lower layer moves less than where it keeps the schedule's rate."""
    moved: dict[bool, float] = {}
    for scale in (True, False):
        plan = plan_of(freezing=FreezingRecipe(kind="freezeout", scale_rate=scale))
        train_model(tmp_path / str(scale), plan)
        before = new_model().state_dict()["model.layers.0.mlp.up_proj.weight"]
        after = weights_at(tmp_path / str(scale), 12)["model.layers.0.mlp.up_proj.weight"]
        moved[scale] = float((after - before).abs().mean())
    assert 0.3 < moved[True] / moved[False] < 0.8


def test_unfrozen_layers_begin_without_moments(tmp_path: Path) -> None:
    plan = plan_of(freezing=FreezingRecipe(kind="unfreeze", all_by=0.6))
    train_model(tmp_path, plan)
    base = {name: p.detach() for name, p in new_model().named_parameters()}
    # Layers 2, 1 and 0 join at steps 4, 8 and 12.
    at_8 = weights_at(tmp_path, 8)
    for name in in_layers(set(at_8), 0, 1) | {"model.embed_tokens.weight"}:
        assert torch.equal(at_8[name], base[name])
    for name in in_layers(set(at_8), 2, 3):
        assert not torch.equal(at_8[name], base[name])
    counts = read_saved_state(tmp_path / "checkpoints" / f"step-{NUM_STEPS:08d}").optimizer_steps
    assert counts["model.layers.3.mlp.up_proj.weight"] == 20
    assert counts["model.layers.2.mlp.up_proj.weight"] == 16
    assert counts["model.layers.0.mlp.up_proj.weight"] == 8


@pytest.mark.parametrize(
    ("parameters", "freezing"),
    [
        (None, FreezingRecipe(kind="freezeout")),
        (None, FreezingRecipe(kind="unfreeze")),
        (None, FreezingRecipe(kind="auto", every=0.2)),
        (ParametersRecipe(random_half=True), None),
    ],
    ids=["freezeout", "unfreeze", "auto", "random half"],
)
def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path: Path, parameters: ParametersRecipe | None, freezing: FreezingRecipe | None
) -> None:
    plan = plan_of(parameters, freezing)
    train_model(tmp_path / "whole", plan)
    for stop in (1, 4, 8, 10, 11, 12, 13, 16):
        train_model(tmp_path / "parts", plan, until_step=stop)
    train_model(tmp_path / "parts", plan)
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert whole["model.safetensors"] == parts["model.safetensors"]
    assert whole["optimizer.safetensors"] == parts["optimizer.safetensors"]
    assert RunFolder(tmp_path / "whole").amendments.exists() == (
        freezing is not None and freezing.kind == "auto"
    )
    if freezing is not None and freezing.kind == "auto":
        one, other = (RunFolder(tmp_path / name).amendments for name in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes()


def test_settled_layers_freeze_by_an_amendment(tmp_path: Path) -> None:
    plan = plan_of(freezing=FreezingRecipe(kind="auto", every=0.2))
    train_model(tmp_path, plan)
    run = RunFolder(tmp_path)
    frozen = [event for event in run.events() if event.kind == "freeze"]
    assert frozen, "noise freezes something within four looks at four layers"
    assert frozen[0].step in (8, 12, 16)
    assert "have settled" in frozen[0].message
    assert all(len(record.layer_grad_norms) == NUM_LAYERS for record in run.steps())
    last, then = weights_at(tmp_path, NUM_STEPS), weights_at(tmp_path, frozen[0].step)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(last[name], then[name])
    # Its norm is that of no gradient from then on.
    assert run.steps()[-1].layer_grad_norms[0] == 0
    assert run.steps()[frozen[0].step - 1].layer_grad_norms[0] > 0


def test_which_layers_have_settled_by_hand() -> None:
    # Changes 0.1, 0.5, 0.2, 0.4: the median is 0.3, the first at or above it is layer 1.
    before, now = (10.0, 10.0, 10.0, 10.0), (9.0, 15.0, 8.0, 6.0)
    layers, changes = settled_layers(before, now, frozen=0, most=3)
    assert layers == 1
    assert changes == pytest.approx([0.1, 0.5, 0.2, 0.4])
    # Of layers 1 to 3 alone the median is 0.4, which layer 1 reaches: nothing more freezes.
    assert settled_layers(before, now, frozen=1, most=3)[0] == 1
    # The median itself is reached by the layer that has it: changes 0.1, 0.2, 0.3.
    assert settled_layers((10.0, 10.0, 10.0), (9.0, 8.0, 7.0), frozen=0, most=2)[0] == 1
    # Rising changes freeze half of them, but never above `most`.
    rising = (9.0, 8.0, 7.0, 6.0)
    assert settled_layers(before, rising, frozen=0, most=3)[0] == 2
    assert settled_layers(before, rising, frozen=0, most=1)[0] == 1
    assert settled_layers((), (), frozen=0, most=1) == (0, [])


def test_what_was_decided_before_a_kill_is_not_decided_again() -> None:
    """A state that comes to a step again finds the amendment of that step on the disk."""
    science = plan_of(freezing=FreezingRecipe(kind="auto", every=0.2)).science
    decided: list[int] = []

    def decide(amendments: Amendments) -> None:
        memory = SettlingMemory(sums=(9.0, 8.0, 7.0, 6.0), before=(10.0, 10.0, 10.0, 10.0))
        state = SimpleNamespace(step=8, amendments=amendments, settling=memory)
        hook = FreezeSettledLayers(
            science, lambda state, until, layers, why: decided.append(layers)
        )
        hook.after_step(cast(Any, state), None)
        assert state.settling == SettlingMemory(before=(9.0, 8.0, 7.0, 6.0))

    decide(Amendments())
    assert decided == [2]
    decide(Amendments().with_freeze(8, NUM_STEPS, 1, "settled"))
    assert decided == [2]
    decide(Amendments().with_freeze(4, NUM_STEPS, 1, "settled"))
    assert len(decided) == 2


@pytest.mark.parametrize("frozen", [0, 1, 2, 3, 4])
def test_the_backward_pass_stops_above_frozen_layers(frozen: int) -> None:
    """Counted FLOPs of the blocks fall as 3 − 2f says, f the frozen share."""
    model = new_model()
    names = trained_in(model, ParametersRecipe(), Stage(start_step=0, frozen_layers=frozen), seed=1)
    let_train(model, names)
    ids = torch.randint(VOCAB_SIZE, (2, SEQUENCE_LENGTH))
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(sum_of_token_losses(cast(Any, model), ids, ids)[0])
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in names)
    by_module = counter.get_flop_counts()
    layers = sum(
        sum(by_module[f"LlamaForCausalLM.model.layers.{n}"].values()) for n in range(NUM_LAYERS)
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, use_cache=False)
    by_module = counter.get_flop_counts()
    forward = sum(
        sum(by_module[f"LlamaForCausalLM.model.layers.{n}"].values()) for n in range(NUM_LAYERS)
    )
    predicted = training_cost(names_in(model), names)
    assert predicted == pytest.approx(3 - 2 * frozen / NUM_LAYERS)
    # The lowest layer's input needs no gradient where the embeddings are frozen, and attention's
    # scores cost twice their forward pass as the matrices do.
    assert layers / forward == pytest.approx(predicted, rel=0.07)


@pytest.mark.parametrize(
    "train", [["head"], ["embeddings"], ["layers.3"], ["norms"], ["attention", "head"]]
)
@pytest.mark.parametrize("tied", [False, True])
def test_the_loss_in_chunks_takes_the_same_gradients_of_a_subset(
    train: list[str], tied: bool
) -> None:
    if tied and train == ["head"]:
        train = ["embeddings"]
    grads: list[dict[str, Tensor]] = []
    for chunked in (False, True):
        model = new_model(tie_word_embeddings=tied).double()
        names = trained_names(
            names_in(model), ParametersRecipe(train=train), Stage(start_step=0), seed=1
        )
        let_train(model, names)
        ids = torch.arange(2 * SEQUENCE_LENGTH).view(2, -1) % VOCAB_SIZE
        objective = HeadLoss(chunk_bytes=4 * 8 * VOCAB_SIZE)
        if chunked:
            assert objective.settle(model) is None
        nats, _ = objective(cast(Any, model), ids, ids.roll(-1, 1))
        torch.autograd.backward(nats)
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert grads[-1].keys() == names
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-12, atol=1e-14)
