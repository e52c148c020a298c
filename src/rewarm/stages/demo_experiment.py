"""The experiment that the demo leaves behind: what three seeds say of two of its arms."""

from __future__ import annotations

__all__ = ["experiment_text"]

_TEXT = """\
# What the demo shows with one seed, asked again with three: `rewarm compare` with this file.
name = "replay"
hypothesis = "A quarter of old text lowers forgetting, at 0.1 bits per byte of learning at most."
recipe = "rewarm.toml"
seeds = 3
control = "naive"

[[primary]]
metric = "forgetting"
expect = "lower"

[[primary]]
metric = "adaptation"
expect = "equal"
within = 0.1

[arms.naive]
description = "new text only"
[arms.naive.set]
budget.tokens = {tokens}
phases = [{{ name = "new", weights = {{ new = 1.0 }} }}]
evaluation = {{ max_bytes_per_domain = 8000, matched_continuation_items = 0, max_answers = 8 }}

[arms.replay]
description = "a quarter of old text"
[arms.replay.set]
budget.tokens = {tokens}
evaluation = {{ max_bytes_per_domain = 8000, matched_continuation_items = 0, max_answers = 8 }}

[run]
mode = "processes"
keep_checkpoints = false
"""
_NUM_STEPS = 12


def experiment_text(batch_tokens: int) -> str:
    """Return the experiment file; it stands beside the demo's recipes."""
    return _TEXT.format(tokens=_NUM_STEPS * batch_tokens)
