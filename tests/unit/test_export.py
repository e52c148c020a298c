"""An exported folder is the base's with the run's weights, proven by reading back, or nothing."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import load_file
from torch import Tensor

from rewarm.artifacts import file_sha256
from rewarm.errors import BaseModelError, EnvironmentFault, RewarmError, UserError
from rewarm.evaluation.forgetting import domain_verdicts
from rewarm.export import ModelCard, export_model
from rewarm.export import folder as export_room
from rewarm.export.card import card_text
from rewarm.export.place import copy_files
from rewarm.model.load import load_base
from rewarm.planning.exposure import epochs_of
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.plan import Plan, load_plan
from tests.support.fake_runs import HOSTILE_LICENCE, make_fake_run
from tests.support.tiny_models import make_family_folder
from tests.support.tiny_plans import make_plan

SAMPLE = torch.arange(24).view(2, 12) * 13 % 320


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "my base"))


def plan_of(base: Path, **conduct: Any) -> Plan:
    """A plan that continues this base."""
    facts = read_model_facts(base)
    plan = make_plan()
    conduct = {"base_folder": str(base), "base_name": "../somewhere/my base", **conduct}
    return plan.model_copy(
        update={
            "science": plan.science.model_copy(update={"tokenizer": facts.tokenizer_fingerprint}),
            "conduct": plan.conduct.model_copy(update={"model": facts, **conduct}),
        }
    )


def continued(base: Path, *, seed: int = 1) -> Any:
    """The base with other weights, as after a run; in training mode."""
    model = load_base(base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def export(
    model: Any,
    base: Path,
    folder: Path,
    *,
    verdicts: Sequence[Any] = (),
    dtype: str | None = None,
    plan: Plan | None = None,
) -> Path:
    card = ModelCard(plan or plan_of(base), verdicts)
    return export_model(model, folder=folder, card=card, sample=SAMPLE, dtype=dtype)


def assert_nothing_was_left(folder: Path, base: Path) -> None:
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == [base]


# What is written


@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_logits_are_the_runs_to_the_last_bit(tmp_path: Path, tied: bool) -> None:
    base = make_family_folder(tmp_path / "base", "llama", tie_word_embeddings=tied)
    model = continued(base)
    folder = export(model, base, tmp_path / "deep" / "export – 1")
    saved = load_file(folder / "model.safetensors")
    own: dict[str, Tensor] = model.state_dict()
    assert ("lm_head.weight" in saved) is not tied
    assert all(torch.equal(tensor, own[name]) for name, tensor in saved.items())
    logits = load_base(folder).eval()(input_ids=SAMPLE).logits
    assert torch.equal(logits, model.eval()(input_ids=SAMPLE).logits)
    assert not torch.equal(logits, load_base(base).eval()(input_ids=SAMPLE).logits)


@pytest.mark.parametrize("family", ["gemma2", "gpt_neox", "gpt2", "qwen3"])
def test_families(tmp_path: Path, family: str) -> None:
    base = make_family_folder(tmp_path / "base", family)
    folder = export(continued(base), base, tmp_path / "export", dtype="bfloat16")
    facts, base_facts = read_model_facts(folder), read_model_facts(base)
    changed = {"folder", "saved_dtype", "weights_fingerprint"}
    assert facts.model_dump(exclude=changed) == base_facts.model_dump(exclude=changed)
    assert facts.saved_dtype == "bfloat16"


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_narrow_weights_are_the_runs_rounded(base: Path, tmp_path: Path, name: str) -> None:
    model = continued(base)
    folder = export(model, base, tmp_path / "export", dtype=name)
    dtype = getattr(torch, name)
    saved = load_file(folder / "model.safetensors")
    own: dict[str, Tensor] = model.state_dict()
    assert own.keys() - saved.keys() == {"lm_head.weight"}
    assert all(torch.equal(tensor, own[key].to(dtype)) for key, tensor in saved.items())
    assert json.loads((folder / "config.json").read_text())["dtype"] == name


def test_the_bases_type_is_the_default(base: Path, tmp_path: Path) -> None:
    model = continued(base)
    plan = plan_of(base)
    facts = plan.conduct.model.model_copy(update={"saved_dtype": "bfloat16"})
    plan = plan.model_copy(update={"conduct": plan.conduct.model_copy(update={"model": facts})})
    folder = export(model, base, tmp_path / "export", plan=plan)
    assert read_model_facts(folder).saved_dtype == "bfloat16"


def test_the_runs_model_is_left_as_it_was(base: Path, tmp_path: Path) -> None:
    model = continued(base)
    model.model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generation = model.generation_config
    export(model, base, tmp_path / "export", dtype="bfloat16")
    assert model.training
    assert not model.model.norm.training
    assert model.generation_config is generation
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_all_but_weights_and_card_is_the_bases(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    # As older versions of transformers wrote it, and still read it.
    config |= {"rope_theta": 5e5, "torch_dtype": config.pop("dtype"), "use_cache": True, "my": 1}
    del config["rope_parameters"]
    (base / "config.json").write_text(json.dumps(config))
    # Contradictory, which transformers refuses to save.
    generation = {"do_sample": False, "temperature": 0.5, "eos_token_id": 1}
    (base / "generation_config.json").write_text(json.dumps(generation))
    for name in ("LICENSE.txt", "Notice", "chat_template.jinja", "vocab.json"):
        (base / name).write_text(f"the base's {name}")
    (base / "README.md").write_text("---\nlicense: mit\n---\nthe base's card")
    (base / "modeling_evil.py").write_text("raise SystemExit")
    (base / "optimizer.bin").write_text("pickle")
    (base / "LICENSES").mkdir()
    folder = export(continued(base), base, tmp_path / "export", dtype="bfloat16")
    copied = {
        "LICENSE.txt",
        "Notice",
        "chat_template.jinja",
        "vocab.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    written = {"README.md", "config.json", "model.safetensors", "rewarm.json"}
    assert {path.name for path in folder.iterdir()} == copied | written
    for name in copied:
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    exported = json.loads((folder / "config.json").read_text())
    assert exported == {**config, "torch_dtype": "bfloat16"}
    assert "the base's card" not in (folder / "README.md").read_text()


def test_files_are_readable_by_others(base: Path, tmp_path: Path) -> None:
    folder = export(continued(base), base, tmp_path / "export")
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_a_base_of_links_is_copied_not_linked(base: Path, tmp_path: Path) -> None:
    # As the hub's cache lays out a model.
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in base.iterdir():
        (linked / path.name).symlink_to(path)
    folder = export(continued(base), linked, tmp_path / "export")
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert file_sha256(folder / "tokenizer.json") == file_sha256(base / "tokenizer.json")


def test_users_can_generate_with_it(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = export(continued(base), base, tmp_path / "export")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)("The quick", return_tensors="pt")
    generated = model.generate(**tokens, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert generated.shape == (1, tokens["input_ids"].shape[1] + 4)
    assert model.config.use_cache


# What is refused, with nothing left behind


def test_an_unknown_type(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--dtype: 'int3' is not known\n.*float32, bfloat16"):
        export(continued(base), base, tmp_path / "export", dtype="int3")
    assert_nothing_was_left(tmp_path / "export", base)


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_place_that_is_taken(base: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "export"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is something already"):
        export(continued(base), base, place)


def test_weights_that_the_type_cannot_hold(base: Path, tmp_path: Path) -> None:
    model = continued(base)
    with torch.no_grad():
        model.model.norm.weight[0] = 70_000.0
        model.model.layers[1].mlp.up_proj.weight[0, 0] = -80_000.0
    with pytest.raises(UserError) as caught:
        export(model, base, tmp_path / "export", dtype="float16")
    text = str(caught.value)
    assert "--dtype: tensor model.norm.weight reaches 7e+04, which float16 cannot hold" in text
    assert "tensor model.layers.1.mlp.up_proj.weight reaches 8e+04" in text
    assert_nothing_was_left(tmp_path / "export", base)
    export(model, base, tmp_path / "export", dtype="bfloat16")


def test_weights_that_are_not_finite(base: Path, tmp_path: Path) -> None:
    model = continued(base)
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    message = "the run's weights: tensor model.norm.weight holds values that are not finite"
    with pytest.raises(UserError, match=message):
        export(model, base, tmp_path / "export")
    assert_nothing_was_left(tmp_path / "export", base)


def test_a_tokenizer_that_changed_since_the_plan(base: Path, tmp_path: Path) -> None:
    model, plan = continued(base), plan_of(base)
    (base / "tokenizer.json").write_text((base / "tokenizer.json").read_text() + " ")
    with pytest.raises(BaseModelError, match="it is not the tokenizer that the run's text was"):
        export(model, base, tmp_path / "export", plan=plan)
    (base / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match="it is not the tokenizer that the run's text was"):
        export(model, base, tmp_path / "export", plan=plan)
    assert_nothing_was_left(tmp_path / "export", base)


def _flip_a_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _change_the_network(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_flip_a_bit, r"does not hold the run's weights: 1 differ \(model\.norm\.weight\)"),
        (_change_the_network, r"gives other logits than the run's model, by up to \d"),
        (_truncate, r"cannot be loaded again: .*truncated"),
    ],
)
def test_a_folder_that_does_not_give_the_model_back(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    spoil: Any,
    message: str,
) -> None:
    model = continued(base)

    def flawed(source: Path, folder: Path) -> None:
        copy_files(source, folder)
        spoil(folder)

    monkeypatch.setattr(export_room, "copy_files", flawed)
    with pytest.raises(RewarmError, match=f"the exported folder {message}") as caught:
        export(model, base, tmp_path / "export", dtype=dtype)
    assert caught.value.exit_code == 1
    assert "nothing was exported" in str(caught.value)
    assert_nothing_was_left(tmp_path / "export", base)


def test_a_full_disk(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = continued(base)
    monkeypatch.setattr(export_room, "save_weights", full)
    with pytest.raises(EnvironmentFault, match=r"export cannot be written \(No space left"):
        export(model, base, tmp_path / "export")
    assert_nothing_was_left(tmp_path / "export", base)


def test_a_parent_that_is_a_file(base: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        export(continued(base), base, base / "config.json" / "export")


# The card


def split(text: str) -> tuple[dict[str, Any], str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_of_a_made_up_run(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path / "run")
    plan = load_plan(run.plan)
    verdicts = domain_verdicts(run.evals())
    front, body = split(card_text(ModelCard(plan, verdicts)))
    assert front == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["continued-pretraining", "rewarm"],
    }
    assert "# made-up\n" in body
    assert f"continued on {plan.science.num_tokens / 1000:.0f}k tokens" in body
    for verdict in verdicts:
        cells = f"| {verdict.first:.3f} | {verdict.last:.3f} | {verdict.delta:+.3f} |"
        assert cells in body
    for source, epochs in epochs_of(plan.science.sources, plan.science.phases).items():
        assert re.search(rf"\| {source} \| \w+ \| [\d.]+k \| {epochs:.2f} \|", body)
    assert "| learning rate | cosine 0.0001 → 1e-06, steps 0 to 389 |" in body
    assert "| phase qa blend | steps 278 to 389: english 25.0%, python 63.0%, qa 12.0% |" in body
    assert "AdamW, betas 0.9 and 0.95, eps 1e-08, weight decay 0.1" in body
    assert f"| plan | {plan.fingerprint} |" in body
    assert "planned steps" not in body
    assert "\n\n\n" not in body


def test_the_card_of_a_run_that_is_not_finished(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path / "run")
    _, body = split(card_text(ModelCard(load_plan(run.plan), (), 100)))
    assert "These weights are those after 100 of 390 planned steps" in body
    assert "continued on 205k tokens" in body
    assert "| qa | qa | 0 | 0.00 | not stated |" in body
    assert "It was not measured." in body


def test_names_cannot_break_out_of_the_card(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path / "run", hostile=True)
    plan = load_plan(run.plan)
    evil = 'x: "y" # \n---\n<script>| \\` 🙂\ud800\u2028'
    cached = f"/cache/models--{evil.replace('/', '--')}/snapshots/1"
    facts = plan.conduct.model.model_copy(update={"licence": evil})
    conduct = plan.conduct.model_copy(
        update={"model": facts, "base_name": evil, "base_folder": cached, "base_revision": evil}
    )
    text = card_text(ModelCard(plan.model_copy(update={"conduct": conduct}), ()))
    text.encode("utf-8")
    metadata, body = split(text)
    assert metadata["license"] == evil
    assert metadata["base_model"] == evil
    assert "<" not in body
    assert HOSTILE_LICENCE.partition(">")[0].removeprefix("<") in body
    assert all(line.count("|") == 6 for line in body.splitlines() if line.startswith("| english"))
    assert body.count("\n---\n") == 0


def test_a_base_of_the_hub_is_named_and_a_local_path_is_not(tiny_base: Path) -> None:
    snapshot = "/home/somebody/.cache/hub/models--org--model/snapshots/abc"
    hub = plan_of(tiny_base, base_name="org/model", base_folder=snapshot, base_revision="abc")
    metadata, body = split(card_text(ModelCard(hub, ())))
    assert metadata["base_model"] == "org/model"
    assert metadata["base_model_relation"] == "finetune"
    assert "org/model (revision abc), a model of" in body
    # A local folder may have a name of the same form.
    local = plan_of(tiny_base, base_name="org/model", base_folder="/home/somebody/org/model")
    text = card_text(ModelCard(local, ()))
    assert "base_model" not in split(text)[0]
    assert "somebody" not in text
    assert "somebody" not in card_text(ModelCard(hub, ()))
    copy = local.model_copy(
        update={"conduct": local.conduct.model_copy(update={"base_hub_id": "org/model"})}
    )
    assert split(card_text(ModelCard(copy, ())))[0]["base_model"] == "org/model"


def test_the_card_tells_the_precision_that_was_computed_in(tiny_base: Path) -> None:
    card = ModelCard(plan_of(tiny_base), (), None, "bfloat16")
    assert "| precision | bfloat16;" in card_text(card)


def test_the_licence_of_the_base_is_in_the_metadata(base: Path, tmp_path: Path) -> None:
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    folder = export(continued(base), base, tmp_path / "export")
    metadata, body = split((folder / "README.md").read_text(encoding="utf-8"))
    assert metadata["license"] == "apache-2.0"
    assert "The base's licence: apache-2.0." in body
    assert read_model_facts(folder).licence == "apache-2.0"
