"""The bases that the experiments continue: small Llamas, pretrained here on English, one per seed.

The tokenizer is trained on English, German and medical text, as released ones have seen languages
and domains that their model is weak at. What is there already is left as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import zstandard

from rewarm.artifacts import write_atomically
from rewarm.cli import main
from rewarm.model.load import new_llama
from rewarm.model.vocabulary import train_bpe

__all__ = ["CORPORA", "ENGLISH", "FULL", "LARGE", "SMOKE", "Sizes", "make_bases"]

ENGLISH = (
    "eltec_eng",
    "openstax_life_liberty",
    "openstax_psychology",
    "openstax_world_history",
    "wikitext2_train_part",
)
_SEEN_BY_TOKENIZER = (*ENGLISH, "bundestag", "eltec_deu", "pmc_trials", "medquad")
CORPORA = tuple(f"text/{name}.jsonl.zst" for name in _SEEN_BY_TOKENIZER)
"""Files of the corpora that bases and their tokenizer are made of."""
_CHARACTERS_EACH = 1_000_000

_RECIPE = """\
name = "english-{seed}"
seed = {seed}
run_folder = "english-{seed}"
prepared_folder = "../prepared"

[base]
path = "new-{seed}"
[base.pretraining]
peak_lr = {peak_lr}

[budget]
tokens = {tokens}

[batch]
tokens = {batch_tokens}
sequence_length = 256

[schedule]
kind = "cosine"
peak_lr = "pretraining.peak"
final_lr = "peak/10"
warmup_fraction = 0.02

[sources.old]
path = [{paths}]
role = "general"
group_field = "document"
held_out = 0.03

[[phases]]
name = "pretraining"
weights = {{ old = 1.0 }}

[evaluation]
every_steps = {num_steps}
max_bytes_per_domain = 40_000
stride_fraction = 1.0

[checkpoints]
every_steps = 400

[training]
num_threads = {num_threads}
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large bases are."""

    hidden_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    tokens: int
    batch_tokens: int = 4096
    peak_lr: float = 4e-3


FULL = Sizes(hidden_size=96, num_layers=3, num_heads=3, vocab_size=4096, tokens=3_000_000)
LARGE = Sizes(
    hidden_size=576,
    num_layers=8,
    num_heads=9,
    vocab_size=4096,
    tokens=12_000_000,
    batch_tokens=16_384,
    peak_lr=1e-3,
)
SMOKE = Sizes(hidden_size=32, num_layers=2, num_heads=2, vocab_size=4096, tokens=32_768)


def make_bases(
    data: Path,
    work: Path,
    sizes: Sizes,
    seeds: Sequence[int],
    *,
    num_threads: int,
    at_once: int = 1,
) -> None:
    """Pretrain and export a base for each seed, unless it is there, `at_once` side by side.

    Raises SystemExit where a training does not come to its end; the same command goes on.
    """
    folder = work / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        write_atomically(tokenizer, train_bpe(_sample(data), sizes.vocab_size))
    text = tokenizer.read_text(encoding="utf-8")
    missing = [
        seed
        for seed in seeds
        if not (folder / f"english-{seed}" / "export" / "rewarm.json").exists()
    ]
    recipes = [_base_recipe(folder, text, sizes, seed, num_threads) for seed in missing]
    if len(recipes) > 1 and at_once > 1:
        _done(main(["prepare", str(recipes[0])]))  # once, for all of them
        with ThreadPoolExecutor(at_once) as pool:
            for code in pool.map(_in_a_process, recipes):
                _done(code)
        return
    for recipe in recipes:
        _done(main(["run", "--yes", str(recipe)]))


def _in_a_process(recipe: Path) -> int:
    command = [sys.executable, "-m", "rewarm", "run", "--yes", str(recipe)]
    return subprocess.run(command, check=False).returncode


def _done(code: int) -> None:
    if code:
        raise SystemExit(code)


def _base_recipe(folder: Path, tokenizer: str, sizes: Sizes, seed: int, num_threads: int) -> Path:
    """Return the recipe of a base's pretraining, from weights drawn by its seed."""
    if not (folder / f"new-{seed}" / "tokenizer_config.json").exists():  # what is written last
        new_llama(
            folder / f"new-{seed}",
            tokenizer_json=tokenizer,
            bos_token="<s>",
            eos_token="</s>",
            hidden_size=sizes.hidden_size,
            num_layers=sizes.num_layers,
            num_heads=sizes.num_heads,
            max_positions=256,
            seed=seed,
        )
    paths = ", ".join(f'"../text/{name}.jsonl"' for name in ENGLISH)
    recipe = folder / f"english-{seed}.toml"
    text = _RECIPE.format(
        seed=seed,
        tokens=sizes.tokens,
        batch_tokens=sizes.batch_tokens,
        peak_lr=sizes.peak_lr,
        num_steps=sizes.tokens // sizes.batch_tokens,
        paths=paths,
        num_threads=num_threads,
    )
    write_atomically(recipe, text)
    return recipe


def _sample(data: Path) -> Iterator[str]:
    """Yield documents of every corpus, about as much of each."""
    for name in _SEEN_BY_TOKENIZER:
        left = _CHARACTERS_EACH
        for text in _documents(data / "text" / f"{name}.jsonl.zst"):
            yield text[:left]
            left -= len(text)
            if left <= 0:
                break


def _documents(path: Path) -> Iterator[str]:
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
