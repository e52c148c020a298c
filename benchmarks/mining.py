"""Which documents mining finds: those that questions were made from, hidden among the rest.

The corpus: paragraphs of Wikipedia (SQuAD) and abstracts (PubMedQA), of which a half has a question
here and the others are siblings from the same articles and journals; passages of other Wikipedia
articles, of textbooks on history, civics, psychology and anatomy, of clinical trial reports, of
health pages and of novels. Each document of the half has one of its questions among the queries.
Documents are taken until they hold as many tokens as those that were asked about.

The weights of words and the rule for what comes first were chosen on the first half, and on
paragraphs of Wikipedia in German (XQuAD) among sittings of the German parliament, German novels and
a German manual. The other half, with the same corpus, and the paragraphs of XQuAD in English among
the English rest decided nothing.

Recall is the share of the asked documents that are taken. BM25 (bm25s, its defaults) has the same
words, the same queries and the same rule for what comes first: documents that are some question's
nearest, then the second nearest, and so on. Other rules are measured on the default embedding's
neighbours. Intervals are 95 %, by resampling articles, paired. BM25 needs bm25s (`pip install
bm25s`), and is left out where it is not there.

    python benchmarks/mining.py [FOLDER OF THE SHARED CORPORA]
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from record import Figure, write_results

from rewarm.corpus.mining import NEIGHBOURS, QUESTIONS, SIMILARITIES
from rewarm.corpus.selection import rank
from rewarm.corpus.views import kept_documents, open_view, text_hashes
from rewarm.corpus.words import spell_words
from rewarm.model.load import new_llama
from rewarm.model.vocabulary import train_bpe
from rewarm.records.facts import CorpusFacts
from rewarm.stages.job import open_job
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.prepare import prepare_job

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"
NUM_NEIGHBOURS = 50
PASSAGE_CHARACTERS = (700, 1500)
NUM_RESAMPLES = 4000
ENGLISH = {
    "wikitext2_train_part": 10_000,
    "openstax_world_history": 10_000,
    "openstax_life_liberty": 10_000,
    "openstax_psychology": 10_000,
    "openstax_anatomy_physiology": 10_000,
    "pmc_trials": 3000,
    "medquad": 2000,
    "eltec_eng": 2000,
}
GERMAN = {"bundestag": 10_000, "eltec_deu": 10_000, "rustbook_de": 10_000}


@dataclass(frozen=True)
class Case:
    """What is asked about, of which part of the documents, and what these are hidden among."""

    name: str
    asked: tuple[str, ...]
    part: tuple[float, float]
    rest: Mapping[str, int]
    with_lsa: bool = False


CASES = (
    Case("first half", ("squad_part", "pubmedqa_dev"), (0, 0.5), ENGLISH, with_lsa=True),
    Case("other half", ("squad_part", "pubmedqa_dev"), (0.5, 1), ENGLISH),
    Case("German", ("xquad_de",), (0, 1), GERMAN),
    Case("XQuAD", ("xquad_en",), (0, 1), ENGLISH),
)
QUERIES = ("questions", "questions-and-answers")

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def main() -> None:
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    if not (shared / "qa" / "squad_part.jsonl.zst").is_file():
        print(f"left out: no corpora in {shared}")
        return
    with tempfile.TemporaryDirectory() as name:
        figures = []
        for case in CASES:
            folder = Path(os.environ.get("MINING_FOLDER", name)) / case.name.replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            write_texts(folder, shared, case)
            figures += [figure for which in QUERIES for figure in measured(folder, case, which)]
    write_results("mining", figures)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        yield from map(json.loads, stream.read().splitlines())


def passages(text: str) -> Iterator[str]:
    least, most = PASSAGE_CHARACTERS
    part = ""
    for paragraph in text.split("\n\n"):
        part = f"{part}\n\n{paragraph}".strip()
        if len(part) >= least:
            yield part[:most]
            part = ""


def write_texts(folder: Path, shared: Path, case: Case) -> None:
    rng = random.Random(0)
    documents: list[dict[str, str]] = []
    questions: list[dict[str, str]] = []
    for name in case.asked:
        asked: dict[str, list[dict[str, Any]]] = {}
        for row in rows(shared / "qa" / f"{name}.jsonl.zst"):
            asked.setdefault(row["context"], []).append(row)
        contexts = list(asked)
        rng.shuffle(contexts)
        for number, context in enumerate(contexts):
            identity = f"{name}-{number}"
            article = str(asked[context][0].get("article", identity))
            documents.append({"id": f"{article}|{identity}", "text": context})
            if case.part[0] <= number / len(contexts) < case.part[1]:
                row = rng.choice(asked[context])
                kept = {"question": row["question"], "answer": row["answer"]}
                questions.append({"id": f"{article}|{identity}", **kept})
    for name, count in case.rest.items():
        found = [
            p for row in rows(shared / "text" / f"{name}.jsonl.zst") for p in passages(row["text"])
        ]
        rng.shuffle(found)
        named = enumerate(found[:count])
        documents += [{"id": f"{name}|{number}", "text": text} for number, text in named]
    rng.shuffle(documents)
    for name, kind in (("web", documents), ("qa", questions)):
        lines = "".join(json.dumps(row) + "\n" for row in kind)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    if not (folder / "base").exists():
        texts = [row["text"] for row in documents[::20]]
        new_llama(
            folder / "base",
            tokenizer_json=train_bpe(texts, 8192),
            bos_token="<s>",
            eos_token="</s>",
            hidden_size=32,
            num_layers=1,
            num_heads=2,
            max_positions=256,
            seed=0,
        )


def mined(folder: Path, name: str, keep: str) -> tuple[CorpusFacts, CorpusFacts, float]:
    """Return the facts of corpus and questions, and the seconds that mining took."""
    whole = _recipe(folder, f"{name}-whole", "")
    prepare_job(open_job(whole), MODEL_TOOLS)
    started = time.perf_counter()
    web, qa = prepare_job(open_job(_recipe(folder, name, keep)), MODEL_TOOLS)
    return web, qa, time.perf_counter() - started


def _recipe(folder: Path, name: str, keep: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f"""\
name = "{name}"
base = {{ path = "base", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
budget = {{ tokens = "100k" }}
batch = {{ tokens = 2048, sequence_length = 128 }}
sources.web = {{ path = "web.jsonl", role = "quality", held_out = 0.01{keep} }}
sources.qa = {{ path = "qa.jsonl", role = "qa", question_field = "question", \
answer_field = "answer", held_out = 0.05 }}
phases = [{{ name = "all", weights = {{ web = 1.0 }} }}]
training = {{ num_threads = 1 }}
""")
    return path


def measured(folder: Path, case: Case, which: str) -> list[Figure]:
    found: dict[str, tuple[Integers, Floats]] = {}
    figures: list[Figure] = []
    embeddings = ["tf-idf", *(["lsa"] if case.with_lsa and which == QUERIES[-1] else [])]
    for embedding in embeddings:
        keep = (
            f', keep = {{ nearest = "qa", neighbours = {NUM_NEIGHBOURS}, queries = "{which}", '
            f'embedding = "{embedding}" }}'
        )
        web, qa, seconds = mined(folder, f"{embedding}-{which}", keep)
        assert web.selection is not None
        place = Path(web.selection.scores)
        found[embedding] = np.load(place / NEIGHBOURS), np.load(place / SIMILARITIES)
        asked_by = np.load(place / QUESTIONS)
        rate = web.selection.of_tokens / seconds
        figures.append(Figure(f"{embedding}, corpus searched", rate, "tokens/s", "higher"))
    everything = web.model_copy(update={"selection": None})
    view = open_view(everything)
    names = [view.document_id(index) for index in range(view.num_documents)]
    number_of = {name: index for index, name in enumerate(names)}
    questions = open_view(qa)
    texts = _texts(folder, which)
    asked = [questions.document_id(int(index)) for index in asked_by]
    if importlib.util.find_spec("bm25s") is None:
        print("left out: BM25, for bm25s is not installed")
    else:
        found["BM25"] = bm25(folder, names, [texts[name] for name in asked])
    sources = np.array([number_of[name] for name in asked if name in number_of])
    hashes = text_hashes(Path(everything.folder))[kept_documents(everything)]
    target = int(view.document_tokens[sources].sum())
    figures += [
        Figure("corpus", view.num_tokens / 1e6, "M tokens", "higher"),
        Figure("documents", view.num_documents, "", "higher"),
        Figure("asked about", len(sources), "documents", "higher"),
        Figure("target", target / 1e3, "k tokens", "higher"),
    ]
    scores = {
        name: by_place(documents, similarities, view.num_documents)
        for name, (documents, similarities) in found.items()
    }
    scores["tf-idf, most similar first"] = by_similarity(*found["tf-idf"], view.num_documents)
    scores["tf-idf, most often found first"] = by_count(*found["tf-idf"], view.num_documents)
    scores["random"] = np.random.default_rng(0).random(view.num_documents)
    taken: dict[str, NDArray[np.bool_]] = {}
    for name, values in scores.items():
        ranking = rank(values, view.document_tokens, hashes, lowest=True, scored_alone=True)
        chosen = np.zeros(view.num_documents, dtype=np.bool_)
        chosen[ranking.kept(share=None, tokens=target)] = True
        taken[name] = chosen[sources]
    articles = np.unique([names[s].partition("|")[0] for s in sources], return_inverse=True)[1]
    figures += compared(taken, articles)
    named = f"{case.name}, {which}"
    return [replace(figure, name=f"{named}: {figure.name}") for figure in figures]


def _texts(folder: Path, which: str) -> dict[str, str]:
    found = {}
    for line in (folder / "qa.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = "" if which == "questions" else "\n" + row["answer"]
        found[row["id"]] = row["question"] + answer
    return found


def bm25(folder: Path, names: list[str], queries: list[str]) -> tuple[Integers, Floats]:
    """Return the nearest documents of each query by BM25, and their scores."""
    import bm25s

    lines = (folder / "web.jsonl").read_text(encoding="utf-8").splitlines()
    text_of = {row["id"]: row["text"] for row in map(json.loads, lines)}
    index = bm25s.BM25()
    index.index([spell_words(text_of[name]) for name in names], show_progress=False)
    documents = np.empty((len(queries), NUM_NEIGHBOURS), dtype=np.int64)
    scores = np.empty(documents.shape)
    for number, query in enumerate(queries):
        found = index.get_scores(sorted(set(spell_words(query))))
        best = np.argsort(-found, kind="stable")[:NUM_NEIGHBOURS]
        documents[number], scores[number] = best, found[best]
    return documents, scores


def by_place(documents: Integers, similarities: Floats, num_documents: int) -> Floats:
    places = np.broadcast_to(np.arange(documents.shape[1]), documents.shape)
    return _least(documents, places + 1 / (1 + similarities), num_documents)


def by_similarity(documents: Integers, similarities: Floats, num_documents: int) -> Floats:
    return _least(documents, -similarities, num_documents)


def by_count(documents: Integers, similarities: Floats, num_documents: int) -> Floats:
    counts = np.bincount(documents[documents >= 0], minlength=num_documents)
    return np.where(counts > 0, -counts.astype(np.float64), np.nan)


def _least(documents: Integers, values: Floats, num_documents: int) -> Floats:
    found = np.full(num_documents, np.inf)
    np.minimum.at(found, documents[documents >= 0], values[documents >= 0])
    return np.where(np.isinf(found), np.nan, found)


def compared(taken: dict[str, NDArray[np.bool_]], articles: Integers) -> list[Figure]:
    num = int(articles.max()) + 1
    sizes = np.bincount(articles, minlength=num).astype(np.float64)
    rng = np.random.default_rng(1)
    counts = rng.multinomial(num, [1 / num] * num, NUM_RESAMPLES).astype(np.float64)

    def resampled(hits: NDArray[np.bool_]) -> Floats:
        found: Floats = (counts @ np.bincount(articles, weights=hits, minlength=num)) / (
            counts @ sizes
        )
        return found

    spread = {name: resampled(hits) for name, hits in taken.items()}
    figures = [
        Figure(
            f"recall, {name}",
            float(hits.mean()),
            "",
            "higher",
            versus=interval(spread[name]),
        )
        for name, hits in taken.items()
    ]
    for name, other in (
        ("tf-idf", "random"),
        ("tf-idf", "BM25"),
        ("lsa", "random"),
        ("lsa", "BM25"),
    ):
        if {name, other} <= taken.keys():
            less = float(taken[name].mean() - taken[other].mean())
            told = interval(spread[name] - spread[other])
            figures.append(Figure(f"recall, {name} less {other}", less, "", "higher", versus=told))
    return figures


def interval(values: Floats) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"95 %: {low:+.3f} to {high:+.3f}, articles resampled"


if __name__ == "__main__":
    main()
