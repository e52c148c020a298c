"""The text: where it is, what it is for, how much of it is shown."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from rewarm.errors import masked
from rewarm.recipe.keep import KeepRecipe
from rewarm.recipe.section import Count, Section, Share
from rewarm.records.facts import Role

__all__ = [
    "OLD_ROLES",
    "DelimitedRecipe",
    "HubRecipe",
    "RehearsalRecipe",
    "SourceRecipe",
    "SubsetRecipe",
    "is_url",
]

OLD_ROLES: frozenset[Role] = frozenset({"general", "quality", "replay"})
"""What the base was pretrained on, or is like it."""


class SubsetRecipe(Section):
    """A random part of a source that is shown in place of all of it; one of the first three."""

    share: float | None = Field(None, gt=0, lt=1, description="this share of its windows")
    tokens: Count | None = Field(None, description="about so many tokens")
    epochs: float | None = Field(
        None, gt=0, description="as much as makes the run show it so many times"
    )
    redraw: bool = Field(
        False, description="draw another part for each pass over it (a dynamic subset)"
    )

    @model_validator(mode="after")
    def _one(self) -> SubsetRecipe:
        given = [key for key in ("share", "tokens", "epochs") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of share, tokens, epochs")
        return self


_FIELDS_OF_TEXT = frozenset(
    {
        *("text_field", "group_field", "question_field", "answer_field", "messages_field"),
        *("language_field", "licence_field"),
    }
)

_SIGNED = re.compile(r"(?i)(sig|signature|token|key|credential|password)[^=&]*=")


def is_url(path: str) -> bool:
    """Tell whether a path names what lies elsewhere: protocol://…"""
    return "://" in path


def _holds_secret(url: str) -> bool:
    place, _, query = url.partition("?")
    return masked(place) != place or _SIGNED.search(query) is not None


class HubRecipe(Section):
    """A dataset of the hub, in place of a path; or a folder here that is laid out like one."""

    id: str = Field(min_length=1, description="owner/dataset, or a folder")
    revision: str = Field(
        "main", min_length=1, description="branch, tag or commit; it is pinned to a commit"
    )
    subset: str | None = Field(
        None, description="configuration that the card names, or folder; default: the card's own"
    )
    split: str = Field("train", min_length=1, description="train, validation, test, …")


class DelimitedRecipe(Section):
    """How the lines of csv and tsv files are cut into fields."""

    # Whitespace is stripped elsewhere; here a tab is the value.
    delimiter: Annotated[str, StringConstraints(strip_whitespace=False)] | None = Field(
        None, description="between two fields; default: a comma in csv, a tab in tsv"
    )
    quoted: bool = Field(
        True, description='fields may stand between ", a " within them doubled; false: " is text'
    )
    columns: list[str] | None = Field(
        None, description="names of the columns where the first line does not have them"
    )

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n\0 '):
            raise ValueError(f"{value!r} is not one character that can stand between fields")
        return value

    @field_validator("columns")
    @classmethod
    def _unlike(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("give every column a name of its own")
        return value


class RehearsalRecipe(Section):
    """Text that the base itself makes up before training (`rewarm rehearse`), in place of a path.

    For a base whose pretraining text is not public: what it has learned is what it says.
    """

    tokens: Count = Field(description="tokens to keep; sampled are more, some are dropped")
    prefixes: str = Field(
        "bos",
        min_length=1,
        description="what samples begin with: bos (nothing), the name of another source (first "
        "tokens of its training documents), or a file: .jsonl (field text), else a line each",
    )
    prefix_tokens: int = Field(16, gt=0, le=4096, description="a prefix is cut after so many")
    temperature: float = Field(
        1.0, gt=0, le=10, description="1: as the base has it; lower repeats what is most likely"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="the likeliest tokens up to this probability")
    top_k: int | None = Field(None, gt=0, description="the likeliest so many tokens; default: all")
    max_tokens_per_sample: int | None = Field(
        None, gt=1, description="default: the base's positions, at most 1,024"
    )
    top_k_logits: int = Field(
        0,
        ge=0,
        le=1024,
        description="also store the base's likeliest so many tokens at each place, with their "
        "log-probabilities, for a KL loss",
    )
    seed: int = Field(1, ge=0, lt=2**63, description="of prefixes and samples")
    batch_samples: int = Field(
        32, gt=0, le=65_536, description="samples made at a time; part of what decides them"
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="bf16 rounds logits to 8 bits: faster and coarser on a GPU"
    )
    min_tokens: int = Field(32, gt=0, description="sampled tokens; with fewer it is dropped")
    max_repeat_share: float = Field(
        0.5, gt=0, le=1, description="dropped above this share of 4-token runs seen before in it"
    )
    min_compressed_share: float = Field(
        0.15, ge=0, lt=1, description="dropped where zlib makes less than this of its bytes"
    )
    max_similarity: float = Field(
        0.8,
        gt=0,
        le=1,
        description="dropped where it shares more than this of its 5-token runs with one kept",
    )


Format = Literal["auto", "jsonl", "parquet", "csv", "tsv", "text", "code", "tokens", "chat"]


class SourceRecipe(Section):
    """One source of text."""

    path: str | list[str] | None = Field(
        None,
        description="file, folder, glob or URL (s3://, https://, …), or several; or give hub or "
        "rehearse",
    )
    hub: HubRecipe | None = Field(None, description="in place of a path: a dataset of the hub")
    format: Format = Field(
        "auto",
        description="jsonl, csv or tsv (plain, .gz, .zst), parquet, text (a file is a document), "
        "code (a source tree), tokens (Megatron .bin/.idx, used where they lie), chat (messages in "
        "one of the first four; loss on answers only)",
    )
    role: Role = Field(description="general | quality | qa | replay | new")
    text_field: str = Field("text", description="field or column that holds the text")
    group_field: str | None = Field(
        None, description="hold out by this field's value, so that a group is never split"
    )
    messages_field: str | None = Field(
        None,
        description="format chat: field of the messages; default: messages, conversations, "
        "or prompt and completion",
    )
    question_field: str | None = Field(None, description="role qa: field of the question")
    answer_field: str | None = Field(None, description="role qa: field of the answer")
    held_out: Share = Field(0.01, description="share of documents (or groups) kept for evaluation")
    max_epochs: float = Field(4.0, gt=0, description="how often the source may be repeated")
    max_epochs_reason: str | None = Field(None, description="why more than 4 epochs are right here")
    keep: KeepRecipe | None = Field(
        None, description="keep the best of its documents, by a score of each"
    )
    subset: SubsetRecipe | None = Field(None, description="show a part of it, several times over")
    order: Literal["shuffled", "stored"] = Field(
        "shuffled",
        description="stored: as the windows lie, e.g. in the order of the base's own training",
    )
    rehearse: RehearsalRecipe | None = Field(
        None, description="in place of a path: text that the base itself makes up"
    )
    csv: DelimitedRecipe = Field(
        default_factory=DelimitedRecipe, description="how csv and tsv are cut into fields"
    )
    language: str | None = Field(None, description="of all of it, for the ledger")
    licence: str | None = Field(None, description="for the ledger and the model card")
    language_field: str | None = Field(
        None, description="field of a document's language, counted in the ledger"
    )
    licence_field: str | None = Field(
        None, description="field of a document's licence, counted in the ledger"
    )

    @property
    def holds_tokens(self) -> bool:
        """Tell whether its files are token shards."""
        return self.format == "tokens" or self.rehearse is not None

    @field_validator("path")
    @classmethod
    def _some_path(cls, value: str | list[str] | None) -> str | list[str] | None:
        if value is not None and (not value or (isinstance(value, list) and not all(value))):
            raise ValueError("name at least one file, folder or glob")
        for path in [value] if isinstance(value, str) else value or []:
            if is_url(path) and _holds_secret(path):
                raise ValueError(
                    f"{masked(path)} holds a password, a token or a signature, and recipes are "
                    "copied: credentials belong in the environment, where the file system's own "
                    "package looks for them"
                )
        return value

    @model_validator(mode="after")
    def _from_somewhere(self) -> SourceRecipe:
        if sum(given is not None for given in (self.path, self.hub, self.rehearse)) != 1:
            raise ValueError("give path (text that there is), hub or rehearse, one of the three")
        if self.hub is not None and self.format in ("code", "tokens"):
            raise ValueError(f"hub reads tables and text, not {self.format}; give a path to those")
        if self.rehearse is not None and self.format not in ("auto", "tokens"):
            raise ValueError(f"what is sampled is tokens, not {self.format}; leave format out")
        if self.rehearse is not None and self.role not in OLD_ROLES:
            raise ValueError(
                f"what the base makes up it knows already: its role is replay, not {self.role}"
            )
        if self.holds_tokens:
            given = self.said(_FIELDS_OF_TEXT | {"csv"})
            if given:
                raise ValueError(f"tokens have no fields: leave out {', '.join(given)}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> SourceRecipe:
        if self.max_epochs > 4.0 and not self.max_epochs_reason:
            raise ValueError(
                f"max_epochs = {self.max_epochs:g} is above 4, where repeated text stops helping "
                "(Muennighoff et al. 2023); say why in max_epochs_reason"
            )
        if (self.question_field is None) != (self.answer_field is None):
            raise ValueError("question_field and answer_field go together")
        if self.format == "chat":
            given = self.said({"text_field", "question_field"})
            if given:
                raise ValueError(
                    f'chat is made of messages: leave out {", ".join(given)}, or format = "chat"'
                )
        elif self.messages_field is not None:
            raise ValueError('messages_field goes with format = "chat"')
        if self.order == "stored" and self.subset is not None and self.subset.redraw:
            raise ValueError("a source in stored order cannot be drawn anew for each pass")
        return self
