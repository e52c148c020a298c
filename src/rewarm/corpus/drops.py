"""Documents that a source's training view is without: listed beside its shards, by what drops them.

dropped.npy    int64 [documents], their numbers over all shards, in order
rejects.jsonl  some of them: where, reason, and what was found in them
facts.json     counts; MANIFEST.json: hashes, and the key of all that decided it
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rewarm.artifacts import (
    MANIFEST_NAME,
    fingerprint,
    write_atomically,
    write_json,
)
from rewarm.corpus.label_mask import LABEL_COUNTS
from rewarm.corpus.records import Reject
from rewarm.corpus.sealed import seal, sealed_json
from rewarm.corpus.tags import count_tags
from rewarm.errors import CorpusError
from rewarm.records.facts import CorpusFacts, DropFacts

__all__ = [
    "REJECTS",
    "digest_of",
    "drop_folder",
    "drop_of",
    "dropped_documents",
    "load_drop",
    "save_drop",
    "with_drop",
]

REJECTS = "rejects.jsonl"
_DROPPED = "dropped.npy"
_FACTS = "facts.json"

Integers = NDArray[np.int64]


class TrainingView(Protocol):
    """What is asked of a view: each kept document's number over all shards, tokens and bytes."""

    @property
    def kept(self) -> Integers:
        """Numbers over all shards."""
        ...

    @property
    def num_stored(self) -> int:
        """Documents of all shards."""
        ...

    @property
    def document_tokens(self) -> Integers:
        """Tokens of each."""
        ...

    @property
    def document_bytes(self) -> Integers:
        """UTF-8 bytes of each."""
        ...


def drop_folder(facts: CorpusFacts, kind: str, key: str) -> Path:
    """Where what is dropped of a prepared source is, or will be, listed."""
    return Path(facts.folder) / "dropped" / f"{kind}-{key[:12]}"


def digest_of(documents: Integers) -> str:
    """Return the SHA-256 of numbers of documents."""
    return hashlib.sha256(np.ascontiguousarray(documents, dtype="<i8").tobytes()).hexdigest()


def load_drop(folder: Path, key: str) -> DropFacts | None:
    """Return what is dropped under a key; None where that is not known, or its files are not as
    their manifest says."""
    if not (folder / MANIFEST_NAME).is_file():
        return None
    try:
        found = DropFacts.model_validate(sealed_json(folder, _FACTS, beside=("",)))
    except (OSError, ValueError, CorpusError):
        return None
    return found.model_copy(update={"folder": str(folder)}) if found.key == key else None


def drop_of(
    facts: CorpusFacts,
    kind: Literal["duplicates", "contaminated"],
    folder: Path,
    key: str,
    documents: Integers,
    view: TrainingView,
    *,
    reasons: Mapping[str, int],
    by: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
) -> DropFacts:
    """Return the facts of dropped documents, which are numbered within the training view."""
    dropped = view.kept[documents]
    labels = 0
    if facts.num_label_tokens is not None:
        prefixes = sorted(Path(facts.folder).glob(f"shard-*{LABEL_COUNTS}"))
        labels = int(np.concatenate([np.load(path) for path in prefixes])[dropped].sum())
    languages, licences = dict[str, int](), dict[str, int]()
    if facts.languages or facts.licences:
        shards = [path.with_suffix("") for path in sorted(Path(facts.folder).glob("shard-*.idx"))]
        shown = np.zeros(view.num_stored, dtype=np.bool_)
        shown[dropped] = True
        languages, licences = count_tags(shards, shown)
    return DropFacts(
        kind=kind,
        folder=str(folder),
        key=key,
        digest=digest_of(dropped),
        reasons=dict(sorted(reasons.items())),
        by=dict(sorted((by or {}).items())),
        num_documents=len(dropped),
        num_tokens=int(view.document_tokens[documents].sum()),
        num_bytes=int(view.document_bytes[documents].sum()),
        num_label_tokens=labels,
        languages=languages,
        licences=licences,
        warnings=tuple(warnings),
    )


def save_drop(
    drop: DropFacts, dropped: Integers, rejects: Iterable[Reject], tokenizer: str
) -> None:
    """Write what is dropped into its folder, the manifest last; the same facts, the same bytes.

    `tokenizer` is the fingerprint of the source's.
    """
    folder = Path(drop.folder)
    buffer = io.BytesIO()
    np.save(buffer, dropped.astype("<i8", copy=False))
    write_atomically(folder / _DROPPED, buffer.getvalue())
    lines = (json.dumps(asdict(reject), sort_keys=True) + "\n" for reject in rejects)
    write_atomically(folder / REJECTS, "".join(lines))
    # Where it lies is for whoever reads it to say: folders are moved.
    write_json(folder / _FACTS, drop.model_copy(update={"folder": ""}).model_dump(mode="json"))
    about = {"key": drop.key, "kind": drop.kind, "tokenizer_fingerprint": tokenizer}
    seal(folder, [], about)


def dropped_documents(drop: DropFacts) -> Integers:
    """Return the numbers over all shards of dropped documents; raises CorpusError where they are
    not those that were planned with."""
    path = Path(drop.folder) / _DROPPED
    again = "run `rewarm prepare` and `rewarm plan` again"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError.one(str(path), f"it cannot be read ({error})", again) from error
    if found.ndim != 1 or found.dtype != np.int64 or digest_of(found) != drop.digest:
        raise CorpusError.one(str(path), "it lists other documents than were planned with", again)
    documents: Integers = found
    return documents


def with_drop(facts: CorpusFacts, drop: DropFacts) -> CorpusFacts:
    """Return the facts of a source without what is dropped; raises CorpusError where nothing is
    left. Where nothing is dropped its tokens are what they were."""
    told = {"drops": (*facts.drops, drop), "warnings": (*facts.warnings, *drop.warnings)}
    if not drop.num_documents:
        return facts.model_copy(update=told)
    if drop.num_documents >= facts.num_documents:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(drop.reasons.items()))
        raise CorpusError.one(
            f"sources.{facts.name}",
            f"all of its {facts.num_documents} training documents are dropped ({reasons}); some of "
            f"them are in {Path(drop.folder) / REJECTS}",
            f"look at them, and set sources.{facts.name}.curate accordingly",
        )
    labels = facts.num_label_tokens
    return facts.model_copy(
        update={
            **told,
            "tokens": fingerprint([facts.tokens, drop.digest]),
            "num_documents": facts.num_documents - drop.num_documents,
            "num_tokens": facts.num_tokens - drop.num_tokens,
            "num_bytes": facts.num_bytes - drop.num_bytes,
            "num_label_tokens": None if labels is None else labels - drop.num_label_tokens,
            "languages": dict(Counter(facts.languages) - Counter(drop.languages)),
            "licences": dict(Counter(facts.licences) - Counter(drop.licences)),
            "rejected": dict(sorted((Counter(facts.rejected) + Counter(drop.reasons)).items())),
        }
    )
