"""How long a plan of 1,000 sources takes.

With facts at hand: by tokens and by UniMax in two phases, contiguous and packed, where half of the
sources are selected by a score. The ratio is to a plan of 10 sources in the same process. From the
disk: what `rewarm plan` does once Python has started, over 1,000 prepared sources of 20 documents,
half of them selected, all of them packed; seconds of the processor too, which other work on the
machine hardly touches. Preparing them takes minutes.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from record import Figure, median_s, write_results

from rewarm.order.blend import deal_cycle
from rewarm.order.position import _whole_phase
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from rewarm.records.facts import CorpusFacts, SelectionFacts
from rewarm.records.packing import PackingFacts, Windows
from rewarm.stages.job import Job, open_job
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import ModelTools, prepare_job

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.fake_facts import make_corpus_facts, make_model_facts
from tests.support.tiny_models import make_tiny_base

NUM_SOURCES = 1000
LENGTH = 128
_HEAD = f"""
name = "x"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
budget.tokens = "1B"
batch = {{ tokens = 131_072, sequence_length = {LENGTH} }}
"""
_WORDS = "a model that reads some text and learns the words of it in every step"
_SELECTED = SelectionFacts(
    score="perplexity",
    lowest=True,
    share=0.5,
    tokens=None,
    reference="s0",
    scores="scores",
    key="k" * 64,
    kept="d" * 64,
    worst=12.0,
    of_documents=2000,
    of_tokens=4_000_000_000,
)


def packing_of(facts: CorpusFacts) -> PackingFacts:
    number = facts.num_tokens // LENGTH
    windows = Windows(num_windows=number, num_text_tokens=number * LENGTH, num_cut=10)
    return PackingFacts(
        sequence_length=LENGTH,
        num_documents=facts.num_documents,
        num_long=10,
        num_tokens=facts.num_tokens,
        contiguous=windows,
        best_fit=windows,
        fingerprint="f" * 64,
    )


def phases(rule: str) -> str:
    return "".join(
        f'[[phases]]\nname = "{name}"\nweights = "{rule}"\n{until}'
        for name, until in (("a", "until.fraction = 0.7\n"), ("b", ""))
    )


def seconds(num_sources: int, rule: str, *, full: bool) -> float:
    """Return the seconds of a plan; `full` with selections and bins."""
    corpora = {
        f"s{index}": make_corpus_facts(f"s{index}", num_tokens=2_000_000_000 // (index + 1))
        for index in range(num_sources)
    }
    packings: dict[str, PackingFacts] = {}
    text = _HEAD
    if full:
        text = text.replace("sequence_length", 'packing = "best-fit", sequence_length')
        for name in list(corpora)[1::2]:
            corpora[name] = corpora[name].model_copy(update={"selection": _SELECTED})
        packings = {name: packing_of(facts) for name, facts in corpora.items()}
    text += "".join(f'[sources.{name}]\npath = "{name}"\nrole = "new"\n' for name in corpora)
    text += phases(rule)

    def plan() -> None:
        deal_cycle.cache_clear()
        _whole_phase.cache_clear()
        resolve(
            parse_recipe(text), make_model_facts(), corpora, base_folder="base", packings=packings
        )

    return median_s(plan, repeats=5)


def prepared_job(folder: Path) -> Job:
    """Return a recipe of many sources that are prepared, scored and packed."""
    make_tiny_base(folder / "base")
    rng = random.Random(0)
    words = _WORDS.split()
    text = _HEAD.replace('"1B"', '"2M"').replace(str(LENGTH), "64")
    text = text.replace("sequence_length", 'packing = "best-fit", sequence_length')
    for index in range(NUM_SOURCES):
        rows = (f"{' '.join(rng.choices(words, k=60))} {index} {row}" for row in range(20))
        lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        (folder / f"s{index}.jsonl").write_text(lines)
        text += f'[sources.s{index}]\npath = "s{index}.jsonl"\nrole = "new"\nheld_out = 0.05\n'
        if index % 2:
            text += 'keep = { lowest = "perplexity", share = 0.5, reference = "s0" }\n'
    (folder / "r.toml").write_text(text + phases("tokens"))
    job = open_job(folder / "r.toml")

    def never(*_: object) -> object:
        raise AssertionError("no conversations and no base's loss are asked for")

    # What is thrown away need not last.
    with mock.patch("os.fsync"), contextlib.redirect_stdout(io.StringIO()):
        prepare_job(job, ModelTools(never, never, never))  # type: ignore[arg-type]
    return job


def from_disk() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        job = prepared_job(Path(name))
        found = []
        for _ in range(6):
            clock, used = time.perf_counter(), time.process_time()
            plan_job(job, estimates_allowed=False)
            found.append((time.perf_counter() - clock, time.process_time() - used))
    clock, used = (statistics.median(column) for column in zip(*found[1:], strict=True))
    return [
        Figure("plan of 1,000 prepared sources, from the disk", clock, "s", "lower", 1.0),
        Figure("the same, of the processor", used, "s", "lower", 1.0),
    ]


def main() -> None:
    figures = []
    for rule in ("tokens", "unimax"):
        for full, what in ((False, ""), (True, ", selected and packed")):
            many, few = (seconds(number, rule, full=full) for number in (NUM_SOURCES, 10))
            figures += [
                Figure(f"plan of 1,000 sources by {rule}{what}", many, "s", "lower", 1.0),
                Figure(f"the same, of one of 10 ({rule}{what})", many / few, "×", "lower"),
            ]
    write_results("plan_sources", figures + from_disk())


if __name__ == "__main__":
    main()
