"""Memories of documents, written beside a stream's runs as token shards that they replay.

The tokens are those that the corpora were prepared to, so nothing is tokenized again, and what is
replayed is to the token what was shown.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewarm.artifacts import (
    MANIFEST_NAME,
    fingerprint,
    fsync_folder,
    make_folder,
    manifest_problems,
    parse_json,
    temporary_folder,
    write_atomically,
    write_manifest,
)
from rewarm.corpus.packed import open_windows
from rewarm.corpus.shards import dtype_for, write_shard
from rewarm.corpus.views import open_view
from rewarm.planning.plan import Plan
from rewarm.stream.documents import KeptDocument, shown_documents

__all__ = ["documents_of_phase", "write_memory"]

_SHARD = "memory"
_FILES = (f"{_SHARD}.bin", f"{_SHARD}.idx", f"{_SHARD}.ids")


def documents_of_phase(plan: Plan, phase: int, corpus: str) -> list[int]:
    """Return the documents of a corpus that a phase of a plan shows, as they first come."""
    science = plan.science
    source = next(source for source in science.sources if source.name == corpus)
    length = science.sequence_length
    windows = open_windows(plan.conduct.corpora[corpus], length, source.bins)

    def documents_of(window: int) -> list[int]:
        return [document for document, _, _ in windows.documents_of_window(window, length)]

    return shown_documents(science.order(), phase, corpus, documents_of)


def write_memory(plan: Plan, kept: Sequence[KeptDocument], folder: Path) -> Path:
    """Write what is kept of a plan's corpora into a folder, where it is not there whole already.

    Returns the shard's file of tokens. A folder that holds another memory, or a damaged one, is
    written anew.
    """
    names = sorted({document.corpus for document in kept})
    corpora = plan.conduct.corpora
    made_of = fingerprint(
        {
            "documents": [list(document) for document in kept],
            "tokens": {name: corpora[name].tokens for name in names},
        }
    )
    if _stands(folder, made_of):
        return folder / _FILES[0]
    views = {name: open_view(corpora[name]) for name in names}
    make_folder(folder.parent)
    with temporary_folder(folder.parent, f".{folder.name}-") as made:
        write_shard(
            made / _SHARD,
            (views[document.corpus].document(document.number) for document in kept),
            dtype_for(plan.conduct.model.vocab_size),
        )
        ids = [f"{d.corpus}: {views[d.corpus].document_id(d.number)}" for d in kept]
        write_atomically(made / _FILES[2], "".join(f"{json.dumps(name)}\n" for name in ids))
        tokenizer = next(iter(corpora.values())).tokenizer_fingerprint
        write_manifest(made, _FILES, {"made_of": made_of, "tokenizer_fingerprint": tokenizer})
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(made, folder)
    fsync_folder(folder.parent)
    return folder / _FILES[0]


def _stands(folder: Path, made_of: str) -> bool:
    try:
        manifest: Mapping[str, Any] = parse_json((folder / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return manifest.get("made_of") == made_of and not manifest_problems(folder, manifest)
