"""Facts about models, corpora and runs, as frozen values that are written to disk as they stand.

A record refuses unknown keys and wrong types when it is read back: a file that was edited by hand
or written by another version is told at once, not at step 4,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "LOSS_METRICS",
    "LOWER_IS_BETTER",
    "SHARE_METRICS",
    "Amendment",
    "CorpusFacts",
    "DropFacts",
    "EvalRecord",
    "EventRecord",
    "Metric",
    "ModelFacts",
    "NewPieces",
    "OptimizerStateFacts",
    "Record",
    "RehearsalFacts",
    "Role",
    "SelectionFacts",
    "StepRecord",
    "neighbour_words",
]

Role = Literal["general", "quality", "qa", "replay", "new"]
"""What a source is for. Old-domain roles are general, quality and replay; `new` is what is to be
learned; `qa` holds questions with their answers."""


class Record(BaseModel):
    """Base of everything that is stored: frozen, strict about its keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NewPieces(Record):
    """Tokens that `rewarm extend-vocabulary` has added to a base."""

    first_id: int
    num_pieces: int
    tokens_per_byte_before: float = Field(description="with the base's own vocabulary")
    tokens_per_byte: float
    on_other_text: bool = Field(description="measured on text that the pieces were not made from")

    def gain(self) -> str:
        """Return what the pieces save, in words."""
        saved = 1 - self.tokens_per_byte / self.tokens_per_byte_before
        where = "on like text" if self.on_other_text else "on the text they were made from"
        return (
            f"{self.tokens_per_byte_before:.4f} → {self.tokens_per_byte:.4f} ({saved:.1%} fewer "
            f"tokens), {where}"
        )


class ModelFacts(Record):
    """What `config.json`, the safetensors headers and the tokenizer files say of a checkpoint."""

    folder: str
    model_type: str
    architecture: str
    num_parameters: int
    num_embedding_parameters: int = Field(description="input embedding, counted once when tied")
    num_head_parameters: int = Field(description="output head's own; 0 when tied to the embedding")
    num_layers: int
    hidden_size: int
    num_heads: int
    num_key_value_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    saved_dtype: str
    bos_token_id: int | None
    eos_token_id: int | None
    dropout: dict[str, float] = Field(
        default_factory=dict, description="probabilities above 0 in config.json, by key"
    )
    weights_fingerprint: str = Field(
        description="over names, shapes, types and sizes of the tensors and samples of their bytes"
    )
    tokenizer_fingerprint: str = Field(description="SHA-256 of tokenizer.json")
    licence: str | None = None
    has_chat_template: bool = Field(
        False, description="its tokenizer says how messages are written, as tuned models' do"
    )
    tensor_shapes: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="by name, as the safetensors headers have them"
    )
    expanded_layers: tuple[int, ...] = Field((), description="added to a base by `rewarm expand`")
    num_token_ids: int = Field(0, description="largest id of its tokenizer, plus 1; 0: not known")
    new_pieces: NewPieces | None = Field(None, description="added by `rewarm extend-vocabulary`")


class OptimizerStateFacts(Record):
    """What is known of the moments that a base's pretraining left, before they are read."""

    path: str = Field(description="file or folder")
    kind: Literal["checkpoint", "safetensors", "torch", "dcp"] = Field(
        description="checkpoint: rewarm's; safetensors: moments by name; torch: an optimizer.pt; "
        "dcp: parts of many ranks, as torch writes them"
    )
    fingerprint: str = Field(description="over names, sizes and samples of the files' bytes")
    num_updates: tuple[int, int] | None = Field(
        None, description="fewest and most updates of a parameter, where a plan can know"
    )
    betas: tuple[float, float] | None = Field(
        None, description="decay of the moments that they were taken with, where a plan can know"
    )


def _most_frequent(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f", {len(ranked) - 3} more" if len(ranked) > 3 else ""
    return ", ".join(f"{tag} ({count:,})" for tag, count in ranked[:3]) + more


def neighbour_words(score: float) -> str:
    """Return the score of a neighbour (see `SelectionFacts`) in words."""
    place = int(score)
    return f"neighbour {place + 1}, similarity {1 / (score - place) - 1:.2f}"


class SelectionFacts(Record):
    """Which of a source's training documents are kept, by a score of each.

    The score of a neighbour is its best place among those of a question, from 0 on, and to that
    1 / (1 + its similarity there).
    """

    score: Literal["perplexity", "classifier", "base-loss", "neighbours"]
    lowest: bool = Field(description="False: what scores highest is kept")
    share: float | None = Field(description="of the source's training tokens, if that was asked")
    tokens: int | None = Field(description="training tokens, if those were asked")
    reference: str | None = Field(
        description="source that a score of likeness reads, or whose questions have neighbours"
    )
    scores: str = Field(description="folder of the scores; empty while they are not there")
    key: str = Field(description="fingerprint of scorer, reference, text and tokenizer")
    kept: str = Field(
        description="SHA-256 of the numbers of the kept among the training documents, int64"
    )
    worst: float | None = Field(description="score of the last document that was kept")
    of_documents: int = Field(description="training documents to choose from")
    of_tokens: int

    @property
    def of_neighbours(self) -> bool:
        """Tell whether documents were chosen as neighbours of questions."""
        return self.score == "neighbours"

    @property
    def in_words(self) -> str:
        """What is kept, and what it was held against."""
        if self.of_neighbours:
            return f"nearest to {self.reference}"
        against = "" if self.reference is None else f" ({self.reference})"
        return f"{'lowest' if self.lowest else 'highest'} {self.score}{against}"

    @property
    def edge(self) -> str | None:
        """The last kept document's score in words; None where it has none."""
        if self.worst is None:
            return None
        if not self.of_neighbours:
            return f"{self.worst:.4g}"
        return neighbour_words(self.worst)


class DropFacts(Record):
    """Training documents that are left out of a source's view, though its shards have them."""

    kind: Literal["duplicates", "contaminated"] = Field(
        description="duplicates: copies and near copies; contaminated: of what is measured on"
    )
    folder: str = Field(description="where they are listed")
    key: str = Field(description="fingerprint of the text and of all that decides what is dropped")
    digest: str = Field(description="SHA-256 of their numbers over all shards, int64")
    reasons: dict[str, int] = Field(description="documents by reason")
    by: dict[str, int] = Field(
        default_factory=dict, description="documents by the task or source that they hold text of"
    )
    num_documents: int
    num_tokens: int
    num_bytes: int
    num_label_tokens: int = 0
    languages: dict[str, int] = Field(default_factory=dict, description="of them, as facts have it")
    licences: dict[str, int] = Field(default_factory=dict, description="of them, as facts have it")
    warnings: tuple[str, ...] = ()


class CorpusFacts(Record):
    """What is known of one prepared (or, before that, sampled) source."""

    name: str
    role: Role
    key: str = Field(description="fingerprint of inputs, reader options and tokenizer")
    tokens: str = Field(
        description="fingerprint of the training tokens themselves; empty while the facts are "
        "estimates. Copies of one text, on whatever machine, have one"
    )
    folder: str = Field(description="prepared folder; empty while the facts are estimates")
    measured: bool = Field(description="False: extrapolated from a sample before `prepare`")
    num_documents: int = Field(description="training documents")
    num_tokens: int = Field(description="training tokens, document begin and end tokens included")
    num_bytes: int = Field(description="UTF-8 bytes of the training documents")
    held_out_documents: int
    held_out_tokens: int
    held_out_bytes: int
    rejected: dict[str, int] = Field(default_factory=dict, description="documents by reason")
    begin_token_ids: tuple[int, ...] = Field(description="what every document begins with")
    end_token_ids: tuple[int, ...] = Field(description="what every document ends with")
    begin_tokens: tuple[str, ...] = Field((), description="the same, as the tokenizer spells them")
    end_tokens: tuple[str, ...] = ()
    all_framed: bool = Field(
        True, description="False: token shards some of whose documents lack begin or end tokens"
    )
    tokenizer_fingerprint: str
    licence: str | None = None
    language: str | None = Field(None, description="of all of it, as the recipe says")
    languages: dict[str, int] = Field(
        default_factory=dict,
        description="training documents by what a field of theirs says, before a selection",
    )
    licences: dict[str, int] = Field(
        default_factory=dict,
        description="training documents by what a field of theirs says, before a selection",
    )
    num_label_tokens: int | None = Field(
        None, description="training tokens that the loss counts, where not all do: answers of chats"
    )
    warnings: tuple[str, ...] = ()
    drops: tuple[DropFacts, ...] = Field(
        (), description="what is left out of the training documents, before a selection"
    )
    selection: SelectionFacts | None = Field(
        None, description="what was chosen of the training documents; None: all of them"
    )

    @property
    def is_whole(self) -> bool:
        """Tell whether the training view is all that is not held out."""
        return self.selection is None and not any(drop.num_documents for drop in self.drops)

    @property
    def stated_licence(self) -> str | None:
        """Its licence as the recipe has it, else those of its documents, most frequent first."""
        if self.licence is not None or not self.licences:
            return self.licence
        return _most_frequent(self.licences)

    @property
    def stated_language(self) -> str | None:
        """Its language as the recipe has it, else those of its documents, most frequent first."""
        if self.language is not None or not self.languages:
            return self.language
        return _most_frequent(self.languages)

    def num_windows(self, sequence_length: int) -> int:
        """Return how many windows of `sequence_length` inputs plus one label the view holds."""
        return max(0, (self.num_tokens - 1) // sequence_length)


class RehearsalFacts(Record):
    """What came of sampling text from a base."""

    key: str = Field(description="fingerprint of base, prefixes and settings")
    folder: str
    num_samples: int = Field(description="kept and dropped")
    num_documents: int = Field(description="samples that were kept")
    num_tokens: int = Field(description="of those, begin, prefix and end tokens included")
    dropped: dict[str, int] = Field(description="samples by reason")
    num_surplus: int = Field(description="good samples beyond the tokens that were asked for")
    num_sampled_tokens: int = Field(description="of all samples, prompts not counted")
    num_ended: int = Field(description="kept samples that the base ended itself")
    distinct_share: float = Field(description="different 4-token runs of the kept over all of them")
    nats_per_token: float = Field(description="of the kept, under the base itself")
    elapsed_s: float = Field(description="spent on sampling, over all launches")
    placements: tuple[str, ...] = Field(description="device, type and threads that sampled")
    warnings: tuple[str, ...] = ()


class StepRecord(Record):
    """One optimizer step that was taken."""

    step: int = Field(description="0-based; the record of step k tells of the (k+1)-th update")
    loss: float = Field(description="nats per valid token, before this step's update")
    lr: float
    grad_norm: float = Field(description="before clipping")
    num_valid_tokens: int = Field(description="labels that counted in this step")
    num_tokens: int = Field(description="input tokens consumed up to and with this step")
    phase: str
    samples: tuple[int, ...] = Field(description="sequences of this step by source, plan's order")
    step_s: float = Field(description="seconds that this step took")
    data_wait_s: float = Field(0.0, description="seconds that it waited for its batch before")
    layer_grad_norms: tuple[float, ...] = Field(
        (), description="by layer, before clipping; kept where freezing is decided by them"
    )
    retention: dict[str, float] = Field(
        default_factory=dict,
        description="l2sp, ewc: penalties; distill: nats of divergence per token that it acts on, "
        "left out where a step has none; agem: cosine to the memory's gradient, below 0 where the "
        "step was turned aside",
    )


class Amendment(Record):
    """A change to the plan while its run goes on; one line of `amendments.jsonl`."""

    parent: str = Field(description="fingerprint of the amendment before, or of the plan")
    from_step: int = Field(ge=0, description="first step that it governs")
    until_step: int = Field(description="step before which it ends")
    change: Literal["skip", "freeze", "replay"] = Field(
        description="skip: samples count as consumed, no update; freeze: the lowest layers stop; "
        "replay: the share of old text is raised"
    )
    layers: int = Field(0, ge=0, description="freeze: how many of the lowest do not train")
    share: float = Field(0.0, ge=0, lt=1, description="replay: least share of old text")
    evidence: str = Field(description="what was observed")


Metric = Literal[
    "bits_per_byte",
    "answer_bits_per_byte",
    "answer_contrast",
    "chat_bits_per_byte",
    "matched_continuation",
    "multiple_choice",
    "minimal_pairs",
    "cloze",
    "task_score",
    "task_loss",
    "task_perplexity",
]

LOSS_METRICS: frozenset[Metric] = frozenset(
    {"bits_per_byte", "answer_bits_per_byte", "answer_contrast", "chat_bits_per_byte"}
)
"""Metrics in bits per byte."""

SHARE_METRICS: frozenset[Metric] = frozenset(
    {"matched_continuation", "multiple_choice", "minimal_pairs", "cloze"}
)
"""Shares of right answers. The others (`task_…`) are in whatever unit lm-evaluation-harness has."""

LOWER_IS_BETTER: frozenset[Metric] = LOSS_METRICS | {"task_loss", "task_perplexity"}


class EvalRecord(Record):
    """One metric on one domain at one step, with every item's value for paired comparison.

    For the bits-per-byte metrics an item is a document (or an answer): `item_values` are nats,
    `item_weights` UTF-8 bytes, `value` = Σ nats / (ln 2 · Σ bytes). For accuracies an item is a
    question: values 0 or 1, weights 1, `value` their mean. Perplexities of lm-evaluation-harness
    are exp(Σ nats / Σ weights). Figures that it takes over all items together have no items.
    """

    step: int = Field(description="updates taken before this evaluation; 0 is the base itself")
    domain: str
    role: Role | Literal["task"]
    metric: Metric
    value: float
    standard_error: float | None = Field(
        description="over items, of these weights; None where a single item leaves it unknown"
    )
    item_values: tuple[float, ...]
    item_weights: tuple[int, ...]
    items_key: str = Field(default="", description="fingerprint of the items' tokens and weights")
    chance: float | None = Field(default=None, description="accuracy of guessing")
    seconds: float


class EventRecord(Record):
    """Something that happened to a run: launch, resume, checkpoint, stop, a file passed over.

    `mirrored`: a checkpoint was copied to the mirror; `mirror`: anything else about it.
    """

    time: str = Field(description="UTC, ISO 8601")
    kind: Literal[
        "launch",
        "resume",
        "checkpoint",
        "mirrored",
        "mirror",
        "passed_over",
        "non_finite",
        "spike",
        "skip",
        "freeze",
        "forgetting",
        "replay",
        "retention",
        "stop",
        "finish",
        "warning",
    ]
    step: int
    message: str
    details: dict[str, object] = Field(default_factory=dict)
