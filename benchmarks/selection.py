"""What each score keeps of a mixed corpus, and what a small model learns from it.

The corpus: passages (about 2,000 characters) of reports of clinical trials and of consumer health
pages, of a psychology textbook, of English novels, and of other trial reports with the sentences of
each passage shuffled. The reference is a textbook of anatomy, or (-kin) other reports and health
pages than the corpus has; the base is a small model of general English. A tenth of the tokens is
kept by each score, by BM25 (each passage of the reference is a query; a document's score is the
mean over queries) and at random.

Precision is the share of kept tokens that are medical and in order (or medical at all). Intervals
are 95 %, by resampling the articles and chapters that passages were cut from. Arms are paired by
seed; their interval is Student's t over seeds. BM25 needs bm25s (`pip install bm25s`), and is left
out where it is not there.

    python benchmarks/selection.py [FOLDER OF THE SHARED CORPORA]
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from numpy.typing import NDArray
from record import Figure, write_results
from rich.console import Console
from scipy.stats import t as student
from tokenizers import Tokenizer

from rewarm.corpus.selection import load_scores, rank
from rewarm.corpus.views import View, open_view, text_hashes
from rewarm.model.load import new_llama
from rewarm.model.vocabulary import train_bpe
from rewarm.records.facts import CorpusFacts
from rewarm.records.run_folder import RunFolder
from rewarm.stages.export import export_run
from rewarm.stages.job import keep_plan, open_job
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import prepare_job
from rewarm.stages.train import train_plan

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARE = 0.1
PASSAGE_CHARACTERS = 2000
NUM_RESAMPLES = 4000
MIXTURE = {
    "trials": 1.0e6,
    "health": 0.5e6,
    "shuffled": 1.5e6,
    "psychology": 0.75e6,
    "novels": 2.25e6,
}
IN_ORDER = ("trials", "health")
MEDICAL = (*IN_ORDER, "shuffled")
KEEPS = {
    "perplexity": '{ lowest = "perplexity", share = 0.1, reference = "anatomy" }',
    "classifier": '{ highest = "classifier", share = 0.1, reference = "anatomy" }',
    "base-loss": '{ lowest = "base-loss", share = 0.1 }',
    "perplexity-kin": '{ lowest = "perplexity", share = 0.1, reference = "kin" }',
    "classifier-kin": '{ highest = "classifier", share = 0.1, reference = "kin" }',
}
SEEDS = (1, 2, 3, 4)
ARM_TOKENS, BASE_TOKENS, STEP_TOKENS = 204_800, 2_048_000, 2048

Passages = list[tuple[str, str]]
Floats = NDArray[np.float64]


def main() -> None:
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    if not (shared / "text" / "pmc_trials.jsonl.zst").is_file():
        print(f"left out: no corpora in {shared}/text")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("SELECTION_FOLDER", name))
        write_texts(folder, shared / "text")
        make_base(folder)
        figures = [*precisions(folder), *arms(folder)]
    write_results("selection", figures)


# Text


def documents(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        for line in stream.read().splitlines():
            row = json.loads(line)
            yield row["id"], row["text"]


def passages(kind: str, found: Sequence[tuple[str, str]], num_characters: float) -> Passages:
    """Return passages of documents in turn, until they have so many characters."""
    cut: Passages = []
    total = 0
    for name, text in found:
        part: list[str] = []
        for paragraph in (*text.split("\n\n"), None):
            if paragraph is None or sum(map(len, part)) >= PASSAGE_CHARACTERS:
                body = "\n\n".join(part)
                part = []
                if len(body) >= PASSAGE_CHARACTERS // 4:
                    cut.append((f"{kind}|{name}|{len(cut)}", body))
                    total += len(body)
                if total >= num_characters:
                    return cut
            if paragraph is not None:
                part.append(paragraph)
    return cut


def shuffled(rng: random.Random, text: str) -> str:
    """Return a text with its sentences in another order, in paragraphs of as many as before."""
    paragraphs = [re.split(r"(?<=[.!?])\s+", paragraph) for paragraph in text.split("\n\n")]
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph]
    rng.shuffle(sentences)
    rest = iter(sentences)
    return "\n\n".join(" ".join(next(rest) for _ in paragraph) for paragraph in paragraphs)


def write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    lines = (json.dumps({"id": name, "text": text}) + "\n" for name, text in rows)
    path.write_text("".join(lines), encoding="utf-8")


def write_texts(folder: Path, text: Path) -> None:
    rng = random.Random(0)

    def read(name: str) -> list[tuple[str, str]]:
        found = list(documents(text / f"{name}.jsonl.zst"))
        rng.shuffle(found)
        return found

    trials, health = read("pmc_trials"), read("medquad")
    # Articles are dealt out whole: nothing of what is measured on stands elsewhere.
    target = passages("target", trials[:30], 4e5) + passages("target", health[:100], 2e5)
    kin = passages("kin", trials[140:240], 8e5) + passages("kin", health[1000:], 4e5)
    mixed = passages("trials", trials[30:140], MIXTURE["trials"])
    mixed += passages("health", health[100:1000], MIXTURE["health"])
    mixed += [
        (name, shuffled(rng, body))
        for name, body in passages("shuffled", trials[240:], MIXTURE["shuffled"])
    ]
    mixed += passages("psychology", read("openstax_psychology"), MIXTURE["psychology"])
    mixed += passages("novels", read("eltec_eng"), MIXTURE["novels"])
    measured_on = {body for _, body in target}  # health pages repeat themselves
    mixed = [row for row in mixed if row[1] not in measured_on]
    kin = [row for row in kin if row[1] not in measured_on]
    rng.shuffle(mixed)
    general = [
        row
        for name in ("wikitext2_train_part", "openstax_world_history", "openstax_life_liberty")
        for row in read(name)
    ]
    write(folder / "mixed.jsonl", mixed)
    write(folder / "target.jsonl", target)
    write(folder / "kin.jsonl", kin)
    write(folder / "general.jsonl", general)
    write(folder / "anatomy.jsonl", passages("anatomy", read("openstax_anatomy_physiology"), 1e9))


# Base


def recipe(name: str, base: str, sources: str, weights: str, tokens: int, seed: int = 1) -> str:
    every = tokens // STEP_TOKENS
    return f"""\
name = "{name}"
seed = {seed}
base = {{ path = "{base}", pretraining = {{ peak_lr = 2e-3, final_lr = 2e-4 }} }}
budget = {{ tokens = {tokens} }}
batch = {{ tokens = {STEP_TOKENS}, sequence_length = 128 }}
schedule = {{ peak_lr = 1e-3, warmup_fraction = 0.1 }}
evaluation = {{ every_steps = {every}, max_bytes_per_domain = 200000, stride_fraction = 1.0, \
matched_continuation_items = 0 }}
checkpoints = {{ every_steps = {every}, keep = 1 }}
training = {{ num_threads = 1 }}
phases = [{{ name = "all", weights = {{ {weights} = 1.0 }} }}]
{sources}
"""


def trained(folder: Path, name: str, text: str) -> RunFolder:
    path = folder / f"{name}.toml"
    path.write_text(text)
    job = open_job(path)
    prepare_job(job, MODEL_TOOLS)
    plan = plan_job(job, estimates_allowed=False)
    keep_plan(plan, job)
    train_plan(plan, job.run, command="", console=Console(quiet=True))
    return job.run


def make_base(folder: Path) -> None:
    if (folder / "base" / "config.json").exists():
        return
    texts = [json.loads(line)["text"] for line in (folder / "general.jsonl").open("rb")]
    new_llama(
        folder / "new-model",
        tokenizer_json=train_bpe(texts, 2048),
        bos_token="<s>",
        eos_token="</s>",
        hidden_size=96,
        num_layers=3,
        num_heads=3,
        max_positions=128,
        seed=0,
    )
    sources = 'sources.general = { path = "general.jsonl", role = "new", held_out = 0.02 }'
    run = trained(folder, "base-run", recipe("base", "new-model", sources, "general", BASE_TOKENS))
    job = open_job(folder / "base-run.toml")
    plan = plan_job(job, estimates_allowed=False)
    export_run(plan, run, output=folder / "base", console=Console(quiet=True))


# Precision


@dataclass(frozen=True)
class Kept:
    """What one way of choosing keeps: tokens in all, by article, and of the kinds asked for."""

    tokens: Floats
    of_kind: dict[tuple[str, ...], Floats]

    def precision(self, kinds: tuple[str, ...], counts: Floats) -> Floats:
        """Return the precision for each row of counts of the articles, [rows]."""
        found: Floats = (counts @ self.of_kind[kinds]) / (counts @ self.tokens)
        return found


def sources(keep: str = "", subset: str = "") -> str:
    more = f", keep = {keep}" if keep else f", subset = {subset}" if subset else ""
    return f"""\
sources.mixed = {{ path = "mixed.jsonl", role = "new", held_out = 0.02{more} }}
sources.anatomy = {{ path = "anatomy.jsonl", role = "quality", held_out = 0.02 }}
sources.kin = {{ path = "kin.jsonl", role = "quality", held_out = 0.02 }}
sources.target = {{ path = "target.jsonl", role = "new", held_out = 0.95 }}
"""


def scored(folder: Path, name: str) -> tuple[CorpusFacts, float]:
    """Return the facts of the corpus with a selection, and the seconds that it took."""
    path = folder / f"{name}.toml"
    path.write_text(recipe(name, "base", sources(KEEPS[name]), "mixed", ARM_TOKENS))
    started = time.perf_counter()
    return prepare_job(open_job(path), MODEL_TOOLS)[0], time.perf_counter() - started


def precisions(folder: Path) -> list[Figure]:
    path = folder / "whole.toml"
    path.write_text(recipe("whole", "base", sources(), "mixed", ARM_TOKENS))
    facts = prepare_job(open_job(path), MODEL_TOOLS)
    mixed, anatomy, kin = facts[:3]
    view = open_view(mixed)
    hashes = text_hashes(Path(mixed.folder))[np.load(Path(mixed.folder) / "train.view.npy")]
    found: dict[str, Floats] = {}
    figures = [Figure("corpus", view.num_tokens / 1e6, "M tokens", "higher")]
    for name in KEEPS:
        selected, seconds = scored(folder, name)
        assert selected.selection is not None
        values = load_scores(Path(selected.selection.scores), view.num_documents)
        found[name] = values if selected.selection.lowest else -values
        rate = view.num_tokens / seconds
        figures.append(
            Figure(f"{name}: reference read and corpus scored", rate, "tokens/s", "higher")
        )
    found["random"] = np.random.default_rng(0).random(view.num_documents)
    if importlib.util.find_spec("bm25s") is None:
        print("left out: BM25, for bm25s is not installed")
    else:
        found["BM25"] = -bm25(folder, view, open_view(anatomy))
        found["BM25-kin"] = -bm25(folder, view, open_view(kin))
    kinds, articles = kinds_and_articles(view)
    kept = {}
    for name, values in found.items():
        ranking = rank(values, view.document_tokens, hashes, lowest=True)
        chosen = ranking.kept(share=SHARE, tokens=None)
        kept[name] = kept_by_article(view, chosen, kinds, articles)
        figures += composition(name, view, chosen, kinds)
    return figures + compared(kept)


def kinds_and_articles(view: View) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    names = [view.document_id(index).split("|") for index in range(view.num_documents)]
    # Parts of one long document (#1, #2 …) are one article.
    whole = [f"{kind}|{name.partition('#')[0]}" for kind, name, _ in names]
    return np.array([kind for kind, _, _ in names]), np.unique(whole, return_inverse=True)[1]


def kept_by_article(
    view: View, chosen: NDArray[np.int64], kinds: NDArray[np.str_], articles: NDArray[np.int64]
) -> Kept:
    num, tokens = int(articles.max()) + 1, view.document_tokens[chosen].astype(np.float64)

    def summed(weights: Floats) -> Floats:
        found = np.bincount(articles[chosen], weights=weights, minlength=num)
        return found.astype(np.float64)

    of_kind: dict[tuple[str, ...], Floats] = {
        wanted: summed(tokens * np.isin(kinds[chosen], wanted)) for wanted in (IN_ORDER, MEDICAL)
    }
    return Kept(summed(tokens), of_kind)


def composition(
    name: str, view: View, chosen: NDArray[np.int64], kinds: NDArray[np.str_]
) -> list[Figure]:
    tokens = view.document_tokens[chosen]
    return [
        Figure(
            f"{name} keeps {kind}",
            float(tokens[kinds[chosen] == kind].sum() / tokens.sum()),
            "of tokens",
            "higher",
        )
        for kind in MIXTURE
    ]


def compared(kept: Mapping[str, Kept]) -> list[Figure]:
    num_articles = len(kept["random"].tokens)
    rng = np.random.default_rng(1)
    counts = rng.multinomial(num_articles, [1 / num_articles] * num_articles, NUM_RESAMPLES)
    resampled, once = counts.astype(np.float64), np.ones((1, num_articles))
    figures = []
    for kinds, what in ((MEDICAL, "medical"), (IN_ORDER, "medical in order")):
        point = {name: float(one.precision(kinds, once)[0]) for name, one in kept.items()}
        spread = {name: one.precision(kinds, resampled) for name, one in kept.items()}
        figures += [
            Figure(
                f"precision, {what}: {name}",
                point[name],
                "",
                "higher",
                versus=interval(spread[name]),
            )
            for name in kept
        ]
        figures += [
            Figure(
                f"precision, {what}: {name} less {other}",
                point[name] - point[other],
                "",
                "higher",
                versus=interval(spread[name] - spread[other]),
            )
            for name in KEEPS
            for other in ("random", "BM25-kin" if name.endswith("-kin") else "BM25")
            if other in kept
        ]
    return figures


def interval(values: Floats) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"95 %: {low:+.3f} to {high:+.3f}, articles resampled"


def bm25(folder: Path, view: View, reference: View) -> Floats:
    """Return each document's mean BM25 score over the passages of the reference."""
    import bm25s

    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))

    def words(source: View) -> list[list[str]]:
        texts = [
            tokenizer.decode(source.document(index).tolist())
            for index in range(source.num_documents)
        ]
        return [re.findall(r"[a-z]{2,}", text.lower()) for text in texts]

    index = bm25s.BM25()
    index.index(words(view), show_progress=False)
    queries = words(reference)
    total = np.zeros(view.num_documents)
    for query in queries:
        total += index.get_scores(sorted(set(query)))
    found: Floats = total / len(queries)
    return found


# Arms


def arms(folder: Path) -> list[Figure]:
    """Train on a tenth kept by each score and on a random tenth, another for each seed."""
    ways = {
        **{name: sources(keep=keep) for name, keep in KEEPS.items()},
        "random": sources(subset=f"{{ share = {SHARE} }}"),
    }
    loss: dict[str, Floats] = {}
    start = float("nan")
    for way, text in ways.items():
        found = []
        for seed in SEEDS:
            name = f"arm-{way}-{seed}"
            run = trained(folder, name, recipe(name, "base", text, "mixed", ARM_TOKENS, seed))
            records = [r for r in run.evals() if r.domain == "target"]
            start = next(r.value for r in records if r.step == 0)
            found.append(max(records, key=lambda r: r.step).value)
            print(f"{name}: {start:.4f} to {found[-1]:.4f} bits per byte", flush=True)
        loss[way] = np.array(found)
    figures = [Figure("held-out medical text: the base", start, "bits per byte", "lower")]
    for way, values in loss.items():
        figures.append(
            Figure(
                f"held-out medical text: trained on the tenth of {way}",
                float(values.mean()),
                "bits per byte",
                "lower",
                versus=f"mean of {len(SEEDS)} seeds",
            )
        )
    for way in KEEPS:
        less = loss[way] - loss["random"]
        half = float(student.ppf(0.975, len(SEEDS) - 1) * less.std(ddof=1) / len(SEEDS) ** 0.5)
        mean = float(less.mean())
        figures.append(
            Figure(
                f"held-out medical text: {way} less random",
                mean,
                "bits per byte",
                "lower",
                versus=f"95 %: {mean - half:+.4f} to {mean + half:+.4f}, {len(SEEDS)} paired seeds",
            )
        )
    return figures


if __name__ == "__main__":
    main()
