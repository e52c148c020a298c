"""A run that learned one text and forgot another, in seconds: the ground of a trade-off."""

from __future__ import annotations

import random
from pathlib import Path

from rewarm.cli import main
from tests.support.chat import give_chat_template
from tests.support.road import SENTENCE
from tests.support.tiny_models import make_tiny_base

_OLD = SENTENCE.split()
_NEW = [f"{number}" for number in range(100, 120)]

_RECIPE = """\
name = "{name}"
base = {{ path = "{base}", pretraining = {{ peak_lr = 1e-2, final_lr = 1e-2 }} }}
budget = {{ tokens = {tokens} }}
batch = {{ tokens = 512, sequence_length = 128 }}
sources.old = {{ path = "old.jsonl", role = "general", held_out = 0.1 }}
sources.new = {{ path = "new.jsonl", role = "new", held_out = 0.1 }}
phases = [{{ name = "all", weights = {{ {weights} }} }}]
evaluation = {{ every_steps = 1000 }}
checkpoints = {{ every_steps = 4, keep = 3 }}
"""


def make_forgetful_run(folder: Path) -> Path:
    """Write a base that knows the old text and a run of 24 steps on the new; return its recipe.

    The base carries a chat template. Must be called with `folder` as the working directory.
    """
    rng = random.Random(0)
    for name, words in (("old", _OLD), ("new", _NEW)):
        texts = (" ".join(rng.choice(words) for _ in range(60)) for _ in range(240))
        lines = "".join(f'{{"text": "{text} {k}"}}\n' for k, text in enumerate(texts))
        (folder / f"{name}.jsonl").write_text(lines)
    give_chat_template(make_tiny_base(folder / "raw"))
    recipe = _recipe(folder, "before", base="raw", tokens=512 * 40, weights="old = 1.0")
    assert main(["prepare", str(recipe)]) == 0
    assert main(["train", str(recipe)]) == 0
    assert main(["export", str(recipe), "--output", "base"]) == 0
    recipe = _recipe(folder, "run", base="base", tokens=512 * 24, weights="new = 1.0")
    assert main(["prepare", str(recipe)]) == 0
    assert main(["train", str(recipe)]) == 0
    return recipe


def _recipe(folder: Path, name: str, **values: object) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(_RECIPE.format(name=name, **values))
    return path
