"""Writes a continued model as a Hugging Face folder, and believes it only after reading it back."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor, nn

from rewarm.artifacts import canonical_json, fsync_folder, parse_json, provenance, write_json
from rewarm.errors import EnvironmentFault, RewarmError, UserError
from rewarm.evaluation.forgetting import DomainVerdict
from rewarm.model.load import load_base, save_weights
from rewarm.order.blend import CYCLE
from rewarm.planning.mixture import epochs_of
from rewarm.planning.plan import Plan
from rewarm.units import format_count

__all__ = ["ModelCard", "export_model"]

# What a tokenizer, a chat format and a licence may consist of; weights and code are never copied.
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
_LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the card says beside what the plan says."""

    plan: Plan
    verdicts: Sequence[DomainVerdict]


def export_model(
    model: nn.Module,
    *,
    folder: Path,
    card: ModelCard,
    sample: Tensor,
    dtype: str | None = None,
) -> Path:
    """Write `model` into `folder` (which must not be there) and return it.

    Weights are saved in `dtype` (default: the base's), beside the base's tokenizer, generation
    config and licence files and a model card. The folder is then loaded again, and its logits on
    `sample` (int64 [batch, time]) must be exactly those of the model rounded to that dtype; only
    then does the folder take its name. Raises UserError, EnvironmentFault, or RewarmError where
    the logits differ (nothing is left behind).
    """
    wanted = dtype or card.plan.conduct.model.saved_dtype
    if wanted not in _DTYPES:
        raise UserError.one(
            "--dtype", f"{wanted!r} is not known", f"use one of: {', '.join(_DTYPES)}"
        )
    if folder.exists():
        raise UserError.one(
            str(folder), "there is something already", "name another folder, or remove this one"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            rounded = _write(model, temporary, card, _DTYPES[wanted])
            _check(rounded, temporary, sample)
            os.chmod(temporary, 0o755)
            os.replace(temporary, folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{folder} cannot be written ({error.strerror or error})",
            "free some space or choose another folder, then export again",
        ) from error
    return folder


def _write(model: nn.Module, folder: Path, card: ModelCard, dtype: torch.dtype) -> nn.Module:
    """Write all files; return a float32 model of the weights as they were rounded."""
    base = Path(card.plan.conduct.base_folder)
    rounded = load_base(base)
    state = {name: tensor.to("cpu", dtype) for name, tensor in model.state_dict().items()}
    rounded.load_state_dict(state)
    rounded.to(dtype)
    save_weights(rounded, folder)
    # Only what the library writes of its own may differ; the base's choices stay.
    config = parse_json((folder / "config.json").read_bytes())
    config["use_cache"] = parse_json((base / "config.json").read_bytes()).get("use_cache", True)
    write_json(folder / "config.json", config)
    for pattern in (*_COPIED, *_LICENCE_FILES):
        for path in base.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    (folder / "README.md").write_text(_card_text(card, folder), encoding="utf-8")
    return rounded.to(torch.float32)


def _check(expected: nn.Module, folder: Path, sample: Tensor) -> None:
    """Load the folder as its users will and compare logits, to the last bit."""
    reloaded = load_base(folder)
    with torch.no_grad():
        logits = [
            m.eval()(input_ids=sample.cpu(), use_cache=False).logits for m in (expected, reloaded)
        ]
    if not torch.equal(*logits):
        largest = float((logits[0] - logits[1]).abs().max())
        raise RewarmError(
            f"the exported model's logits differ from the run's by up to {largest:.3g}\n"
            "    → nothing was exported; this is a fault of rewarm or of transformers: please "
            "report it with their versions"
        )


def _card_text(card: ModelCard, folder: Path) -> str:
    plan = card.plan
    environment = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["text"] = _inert
    template = resources.files("rewarm").joinpath("export_card.md.j2").read_text(encoding="utf-8")
    epochs = epochs_of(plan.science.sources, plan.science.phases)
    seen = {
        source.name: sum(phase.samples[index] for phase in plan.science.phases)
        * plan.science.sequence_length
        for index, source in enumerate(plan.science.sources)
    }
    return environment.from_string(template).render(
        front_matter=_front_matter(plan),
        name=plan.name,
        base_name=plan.conduct.base_name,
        num_tokens=format_count(plan.science.num_tokens),
        verdicts=card.verdicts,
        sources=[
            {
                "name": source.name,
                "role": source.role,
                "tokens": format_count(seen[source.name]),
                "epochs": epochs[source.name],
                "licence": plan.conduct.corpora[source.name].licence,
            }
            for source in plan.science.sources
        ],
        science=plan.science,
        phases=_phases(plan),
        fingerprint=plan.fingerprint,
        versions=provenance(["rewarm", "torch", "transformers"])["packages"],
        licence=plan.conduct.model.licence,
    )


def _phases(plan: Plan) -> list[str]:
    return [
        f"{phase.name} (steps {phase.start_step}–{phase.end_step - 1}): "
        + ", ".join(
            f"{source.name} {weight / CYCLE:.1%}"
            for source, weight in zip(plan.science.sources, phase.weights, strict=True)
            if weight
        )
        for phase in plan.science.phases
    ]


def _front_matter(plan: Plan) -> str:
    """Return YAML in which every value is a JSON string: nothing in a name can break out of it."""
    values: dict[str, Any] = {
        "base_model": plan.conduct.base_name,
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rewarm", "continued-pretraining"],
    }
    if plan.conduct.model.licence:
        values["license"] = plan.conduct.model.licence
    return "".join(f"{key}: {canonical_json(value)}\n" for key, value in values.items())


def _inert(value: object) -> str:
    """Return text that Markdown and HTML show as it is, in one table cell."""
    text = " ".join(str(value).split())
    for character in "\\`*_{}[]<>|#&~":
        text = text.replace(character, f"&#{ord(character)};")
    return text
