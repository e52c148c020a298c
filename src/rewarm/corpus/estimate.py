"""What a source will come to, from a sample of its text: for a plan before `prepare`."""

from __future__ import annotations

from rewarm.corpus.chat import OpenChat
from rewarm.corpus.documents import Encoded, Refused
from rewarm.corpus.files import Input, size_of
from rewarm.corpus.filters import Filters, open_filters
from rewarm.corpus.open_documents import document_encoder
from rewarm.corpus.place import SourceText
from rewarm.corpus.records import Document, Rejections, is_curated
from rewarm.corpus.rejected import check_rejected
from rewarm.corpus.sources import read_documents
from rewarm.corpus.token_shards import estimate_shards
from rewarm.corpus.tokenize import open_encoder, tokenizer_fingerprint
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts

__all__ = ["estimate_source"]

_MAX_FILES = 8
_SAMPLE_BYTES = 2 * 2**20


def estimate_source(
    text: SourceText, *, vocab_size: int, open_chat: OpenChat | None = None
) -> CorpusFacts:
    """Return facts extrapolated by file size from 2 MiB of text, spread over up to 8 files.

    Token shards have indices, which say more (`estimate_shards`). `open_chat` opens the template
    that conversations are written by.

    Raises CorpusError where nothing of the sample can be taken; where so much of it is rejected
    that `prepare` would refuse the source, a warning says so before that work is begun.
    """
    source, inputs = text.source, text.inputs
    if source.holds_tokens:
        return estimate_shards(text, vocab_size=vocab_size)
    encoder = open_encoder(text.tokenizer_folder, text.tokenizer_recipe, vocab_size=vocab_size)
    documents_encoder = document_encoder(text, encoder, open_chat)
    rejections = Rejections()
    filters = open_filters(text.name, source)
    documents: list[Document] = []
    sampled = 0.0
    num_files = min(_MAX_FILES, len(inputs))
    chosen = [inputs[number * len(inputs) // num_files] for number in range(num_files)]
    for path in chosen:
        share, found = _sample(path, source, rejections, max_bytes=_SAMPLE_BYTES // len(chosen))
        sampled += share * size_of(path)
        documents += _taken(found, filters, rejections)
    encoded = list[Encoded]()
    for one in documents_encoder.encode(documents):
        if isinstance(one, Refused):
            rejections.add(one.reason, one.document.id)
        else:
            encoded.append(one)
    warnings = _warnings(text.name, len(encoded), rejections)
    scale = sum(size_of(path) for path in inputs) / max(sampled, 1.0)
    num_documents = scale * len(encoded)
    num_bytes = scale * sum(len(one.document.text.encode("utf-8")) for one in encoded)
    num_tokens = scale * sum(len(one.tokens) for one in encoded)
    counted = scale * sum(int(one.counted.sum()) for one in encoded if one.counted is not None)
    held_out = source.held_out
    return CorpusFacts(
        name=text.name,
        role=source.role,
        key=text.key(),
        tokens="",
        folder="",
        measured=False,
        num_documents=round(num_documents * (1 - held_out)),
        num_tokens=round(num_tokens * (1 - held_out)),
        num_bytes=round(num_bytes * (1 - held_out)),
        held_out_documents=round(num_documents * held_out),
        held_out_tokens=round(num_tokens * held_out),
        held_out_bytes=round(num_bytes * held_out),
        begin_token_ids=encoder.frame.begin,
        end_token_ids=encoder.frame.end,
        begin_tokens=encoder.spell(encoder.frame.begin),
        end_tokens=encoder.spell(encoder.frame.end),
        tokenizer_fingerprint=tokenizer_fingerprint(text.tokenizer_folder),
        licence=source.licence,
        language=source.language,
        num_label_tokens=round(counted * (1 - held_out)) if source.format == "chat" else None,
        warnings=warnings,
    )


def _taken(
    documents: list[Document], filters: Filters | None, rejections: Rejections
) -> list[Document]:
    """Return what filters leave of documents; curation that looks at all text comes later."""
    if filters is None:
        return documents
    taken: list[Document] = []
    for document in documents:
        judged = filters.judge(document)
        if isinstance(judged, str):
            rejections.add(judged, document.id)
        else:
            taken.append(judged)
    return taken


def _warnings(name: str, num_documents: int, rejections: Rejections) -> tuple[str, ...]:
    """Return what `prepare` would not take of a sample; raise where it would take nothing."""
    try:
        check_rejected(name, num_documents, rejections.counts, rejections.examples)
    except CorpusError as error:
        if not num_documents:
            raise
        (problem,) = error.problems
        return (f"in a sample, {problem.what}; `rewarm prepare` would refuse it: {problem.fix}",)
    left_out = {reason: n for reason, n in rejections.counts.items() if is_curated(reason)}
    if not left_out:
        return ()
    total = num_documents + sum(left_out.values())
    most = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))[:3]
    reasons = ", ".join(f"{reason} {count}" for reason, count in most)
    return (
        f"of a sample of {total} documents, {sum(left_out.values())} are left out ({reasons}"
        f"{', …' if len(left_out) > 3 else ''}); tokens are estimated for the others",
    )


def _sample(
    path: Input, source: SourceRecipe, rejections: Rejections, *, max_bytes: int
) -> tuple[float, list[Document]]:
    """Return the first documents of a file and the share of it that they are (by position)."""
    documents: list[Document] = []
    taken = 0
    position = 0
    size = max(size_of(path), 1)
    for document, position in read_documents(path, source, rejections):
        documents.append(document)
        taken += len(document.text) + sum(len(m["content"]) for m in document.messages)
        if taken >= max_bytes:
            # A stream reads ahead: the text taken tells better than a position near the start.
            return min(1.0, position / size), documents
    return 1.0, documents
