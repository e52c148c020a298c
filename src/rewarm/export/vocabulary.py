"""A base with further tokens as a folder: written stretch by stretch, read back, then named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCardData
from tokenizers import Tokenizer

from rewarm.artifacts import fingerprint, provenance, read_json, write_atomically, write_json
from rewarm.errors import BaseModelError, UserError
from rewarm.export.markdown import rendered
from rewarm.export.place import copy_files, mismatch, placed_folder, read_mark, write_card_and_mark
from rewarm.model.load import base_without_weights, load_base
from rewarm.model.modes import evaluating
from rewarm.model.vocabulary import NewPiece, extended_json
from rewarm.model.vocabulary_rows import Growth, grown_layout, write_grown
from rewarm.model.weight_folder import WeightFolder
from rewarm.model.weight_stream import headers_to_store, tensor_digest
from rewarm.planning.model_facts import NEW_PIECES
from rewarm.records.facts import NewPieces

__all__ = ["Extension", "export_extended", "find_extended"]

_SAMPLE_SHAPE = (2, 12)
_TOLERANCE = 1e-5
# Of the vocabulary as it was; the library reads tokenizer.json.
_OUTDATED = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")


@dataclass(frozen=True, slots=True)
class Extension:
    """What is added to a base; `base_name` holds no local path, `sample` are texts to try it on."""

    name: str
    base_name: str
    hub_id: str | None
    pieces: Sequence[NewPiece]
    growth: Growth
    facts: NewPieces
    sample: Sequence[str]


def export_extended(base: WeightFolder, extension: Extension, *, folder: Path) -> float:
    """Write the base with the new tokens; return by how much logits over old tokens differ at most.

    The folder is loaded again: its tokenizer must keep every id and cut the sample as the base's
    does but for the new pieces, its tensors be those that were written, and its logits over old
    tokens the base's to 1e-5 of the largest (in float32: a longer matrix product may round
    otherwise).

    Raises UserError for a folder that exists, BaseModelError for a base that is not finite or a
    tokenizer that does not bear it, EnvironmentFault where the disk refuses, RewarmError where the
    folder does not give back what was written. Nothing is left behind then.
    """
    config = read_json(base.folder / "config.json", what="the config", error=BaseModelError)
    text = (base.folder / "tokenizer.json").read_text(encoding="utf-8")
    with placed_folder(folder) as temporary:
        copy_files(base.folder, temporary)
        for name in _OUTDATED:
            (temporary / name).unlink(missing_ok=True)
        write_atomically(
            temporary / "tokenizer.json", extended_json(text, extension.pieces).encode()
        )
        _check_tokenizer(base.folder, temporary, extension)
        with base.open(base.folder.name) as weights:
            digests = write_grown(base, weights, extension.growth, temporary)
        changed = {
            "vocab_size": extension.growth.num_rows,
            NEW_PIECES: extension.facts.model_dump(mode="json"),
        }
        write_json(temporary / "config.json", {**config, **changed})
        write_card_and_mark(temporary, _card(base, extension), _mark(base, extension))
        return _check_weights(temporary, base, extension.growth, digests)


def find_extended(folder: Path, base: WeightFolder, extension: Extension) -> list[str] | None:
    """Return what is damaged of this very extension in a folder; None if it holds none."""
    mark = read_mark(folder)
    wanted = _mark(base, extension)
    if mark is None or any(mark.facts.get(key) != value for key, value in wanted.items()):
        return None
    return mark.problems


def _mark(base: WeightFolder, extension: Extension) -> dict[str, object]:
    """Return what tells this extension from any other."""
    return {
        "extended_from": base.facts.weights_fingerprint,
        "tokenizer": base.facts.tokenizer_fingerprint,
        "pieces": fingerprint([[p.token, p.left, p.right] for p in extension.pieces]),
        "num_rows": extension.growth.num_rows,
    }


def _check_tokenizer(base: Path, folder: Path, extension: Extension) -> None:
    """Make sure that old tokens keep their ids and old text is cut as it was."""
    old = Tokenizer.from_file(str(base / "tokenizer.json"))
    new = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours, theirs = old.get_vocab(), new.get_vocab()
    moved = [token for token, id_ in ours.items() if theirs.get(token) != id_]
    first = extension.growth.first_id
    wanted = {piece.token: first + number for number, piece in enumerate(extension.pieces)}
    lost = [token for token, id_ in wanted.items() if theirs.get(token) != id_]
    if moved or lost or len(theirs) != len(ours) + len(wanted):
        raise _unfit(base, f"{len(moved)} tokens would get another id, {len(lost)} none")
    means = {wanted[piece.token]: piece.old_ids for piece in extension.pieces}
    # What every old token spells goes through every old merge.
    texts = [*extension.sample, *(old.decode([id_]) for id_ in sorted(ours.values()))]
    for text, before, after in zip(
        texts, old.encode_batch(texts), new.encode_batch(texts), strict=True
    ):
        spelled_out = [old_id for id_ in after.ids for old_id in means.get(id_, (id_,))]
        same = spelled_out == before.ids or (
            # A word that is a piece as a whole may skip the merges (Llama 3).
            any(id_ in means for id_ in after.ids)
            and new.decode(after.ids) == old.decode(before.ids)
        )
        if not same:
            raise _unfit(base, f"it would cut {text[:40]!r} otherwise, without a new piece in it")


def _unfit(base: Path, what: str) -> UserError:
    return BaseModelError.one(
        str(base / "tokenizer.json"),
        f"further pieces cannot be joined to it soundly: {what}",
        "keep its vocabulary",
    )


def _check_weights(
    folder: Path, base: WeightFolder, growth: Growth, digests: Mapping[str, str]
) -> float:
    try:
        model = load_base(folder)
    except BaseModelError as error:
        raise mismatch(f"cannot be loaded again: {error}") from error
    found = model.state_dict()
    headers = headers_to_store(grown_layout(base, growth))
    differing = [
        name
        for name, digest in digests.items()
        if name not in found or tensor_digest(found[name].to(headers[name].dtype)) != digest
    ]
    if differing:
        shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        raise mismatch(f"does not hold what was written: {len(differing)} tensors differ ({shown})")
    return _check_logits(model, found, base, growth)


def _check_logits(
    model: Any, found: Mapping[str, torch.Tensor], base: WeightFolder, growth: Growth
) -> float:
    """Compare with the base's own network, which has the tensors just found without new rows."""
    network = base_without_weights(base.folder)
    of_base = {
        name: found[name][: growth.num_old_rows] if name in growth.names else found[name]
        for name in network.state_dict()
        if name in base.places
    }
    # A tied head has no place of its own.
    tied = {name: found[name] for name in network.state_dict() if name not in of_base}
    of_base |= {
        name: tensor[: growth.num_old_rows] if tensor.shape[:1] == (growth.num_rows,) else tensor
        for name, tensor in tied.items()
    }
    sample = torch.arange(_SAMPLE_SHAPE[0] * _SAMPLE_SHAPE[1]).view(_SAMPLE_SHAPE)
    inputs = {"input_ids": sample * 13 % growth.first_id, "use_cache": False}
    with torch.no_grad(), evaluating(network), evaluating(model):
        call = torch.func.functional_call(network, of_base, kwargs=inputs, tie_weights=False)
        expected = call.logits[..., : growth.first_id]
        logits = model(**inputs).logits[..., : growth.first_id]
    largest = float((logits - expected).abs().max())
    if not largest <= _TOLERANCE * float(expected.abs().max()):
        raise mismatch(f"gives other logits over old tokens, by up to {largest:.3g}")
    return largest


def _card(base: WeightFolder, extension: Extension) -> str:
    data = ModelCardData(
        base_model=extension.hub_id,
        library_name="transformers",
        license=base.facts.licence,
        pipeline_tag="text-generation",
        tags=["vocabulary-extension", "rewarm"],
    )
    versions = provenance(["rewarm", "torch", "transformers", "tokenizers"])["packages"]
    growth, facts = extension.growth, extension.facts
    values = {
        "name": extension.name,
        "base": extension.base_name,
        "pieces": f"{facts.num_pieces:,}",
        "first": growth.first_id,
        "last": growth.first_id + facts.num_pieces - 1,
        "facts": [
            ("base", extension.base_name),
            ("fingerprint of its weights", base.facts.weights_fingerprint),
            ("fingerprint of its tokenizer", base.facts.tokenizer_fingerprint),
            ("rows", f"{growth.num_old_rows:,} of the base, {growth.num_rows:,} here"),
            ("tokens per byte", facts.gain()),
            ("weights", f"{base.facts.saved_dtype}, the base's own bits but for new rows"),
            ("made with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ],
        "licence": base.facts.licence or "not stated",
    }
    return f"---\n{data.to_yaml()}\n---\n\n{rendered('vocabulary_card.md.j2', values)}"
