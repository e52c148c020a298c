"""Markdown from templates, in which nothing that a person wrote can become markup."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

from rewarm.evaluation.forgetting import DomainVerdict
from rewarm.records.facts import Metric

__all__ = ["rendered", "result_cells"]

_METRICS: dict[Metric, str] = {
    "bits_per_byte": "bits per byte of text ↓",
    "answer_bits_per_byte": "bits per byte of answers ↓",
    "answer_contrast": "bits per byte of answers, own question less another's ↓",
    "chat_bits_per_byte": "bits per byte of answers in a chat ↓",
    "matched_continuation": "matched continuation, share right ↑",
    "multiple_choice": "multiple choice, share right ↑",
    "minimal_pairs": "minimal pairs, share right ↑",
    "cloze": "cloze, share right ↑",
    "task_score": "lm-evaluation-harness ↑",
    "task_loss": "lm-evaluation-harness ↓",
    "task_perplexity": "lm-evaluation-harness, perplexity ↓",
}

# Whatever Markdown or HTML could take for markup within a line or a cell.
_ENTITIES = {ord(character): f"&#{ord(character)};" for character in "&\\`*_{}[]<>|#~"}


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """Return a template of this package, filled in; every value is shown as it is, on one line."""
    environment = jinja2.Environment(
        # Markdown knows HTML's entities, but more characters have a meaning than HTML escapes.
        autoescape=False,
        finalize=_inert,
        keep_trailing_newline=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = resources.files("rewarm.export").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(text).render(values)


def result_cells(verdict: DomainVerdict) -> list[str]:
    """Return the cells of a verdict's row: domain, role, measure, items, figures, verdict."""
    interval = "–"
    if verdict.low is not None and verdict.high is not None:
        interval = f"{verdict.low:+.3f} to {verdict.high:+.3f}"
    return [
        verdict.domain,
        verdict.role,
        _METRICS[verdict.metric],
        f"{verdict.num_items:,}",
        f"{verdict.first:.3f}",
        f"{verdict.last:.3f}",
        f"{verdict.delta:+.3f}",
        interval,
        verdict.verdict,
    ]


def _inert(value: object) -> str:
    """Return what Markdown and HTML show as `value`, on one line."""
    shown = "".join(character if character.isprintable() else " " for character in str(value))
    return " ".join(shown.translate(_ENTITIES).split())
