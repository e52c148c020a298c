"""What is measured on is not trained on: tasks, and held-out documents of all sources."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewarm.artifacts import MANIFEST_NAME, write_json
from rewarm.cli import main
from rewarm.corpus import contamination_index
from rewarm.corpus import decontaminate as room
from rewarm.corpus.contamination import (
    COMMON_DOCUMENTS,
    HeldOutMatcher,
    TaskIndex,
    common_runs,
    copies_of_held_out,
    index_held_out,
    index_tasks,
)
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.views import open_view
from rewarm.corpus.words import hash_words, runs_of, spell_words
from rewarm.errors import CorpusError
from rewarm.evaluation.harness_index import harness_key
from rewarm.planning.plan import Plan, load_plan
from rewarm.recipe.records import HarnessRecipe
from rewarm.records.facts import CorpusFacts
from tests.support.tiny_models import make_tiny_base

WORDS = [
    f"{first}{second}" for first in "bcdfghklmnprst" for second in ("a", "eo", "ili", "u", "or")
]


def some_words(rng: random.Random, count: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(count)]


def sentence(rng: random.Random, count: int = 40) -> str:
    return " ".join(some_words(rng, count))


# --- words --------------------------------------------------------------------------------------


def test_words_are_compared_without_case_punctuation_and_accents() -> None:
    assert spell_words("Don’t PANIC — naïve_Café, №5 is 12.5!") == (
        ["don", "t", "panic", "naive", "cafe", "no5", "is", "12", "5"]
    )
    assert spell_words("STRASSE Straße") == ["strasse", "strasse"]
    assert spell_words("東京はdata") == ["東", "京", "は", "data"]
    assert spell_words("") == []


def test_runs_are_those_of_each_text_alone() -> None:
    texts = ["a b c d", "", "c d e", "b c"]
    hashes, places = runs_of(hash_words(texts), 2)
    spelled = ["a b", "b c", "c d", "c d", "d e", "b c"]
    assert places.tolist() == [0, 1, 2, 4, 5, 7]
    same = [[one == other for other in spelled] for one in spelled]
    assert (hashes[:, None] == hashes[None, :]).tolist() == same
    assert len(runs_of(hash_words(texts), 5)[0]) == 0
    assert not set(runs_of(hash_words(["a a a"]), 2)[0]) & set(runs_of(hash_words(["a a a"]), 3)[0])


# --- tasks --------------------------------------------------------------------------------------


def split_words(text: str) -> list[str]:
    """Another way to the words of these tests' texts."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


def runs(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def is_hit_by_hand(text: str, items: Sequence[str]) -> bool:
    words = split_words(text)
    for item in items:
        wanted = split_words(item)
        if len(wanted) >= 8:
            length = min(13, len(wanted))
            if runs(wanted, length) & runs(words, length):
                return True
        elif wanted == words:
            return True
    return False


def test_texts_with_items_are_found_as_a_search_by_hand_finds_them() -> None:
    rng = random.Random(3)
    hit = missed = 0
    for _ in range(30):
        items = [sentence(rng, rng.choice([3, 7, 8, 10, 12, 13, 14, 30])) for _ in range(6)]
        texts = []
        for _ in range(40):
            item = rng.choice(items).split()
            first = rng.choice([0, 0, rng.randrange(len(item))])
            part = item[first : first + rng.randrange(1, 30)]
            around = [sentence(rng, rng.choice([0, 0, 5, 40])) for _ in range(2)]
            texts.append(" ".join([around[0], *part, around[1]]).strip())
        found = {one.document for one in index_tasks({"t": items}).hits(hash_words(texts))}
        wanted = {i for i, text in enumerate(texts) if is_hit_by_hand(text, items)}
        assert found == wanted
        hit, missed = hit + len(wanted), missed + len(texts) - len(wanted)
    assert min(hit, missed) > 100


def test_a_hit_tells_task_and_place() -> None:
    rng = random.Random(0)
    items = {"one": [sentence(rng, 20)], "two": [sentence(rng, 9), "why not"]}
    index = index_tasks(items)
    before = sentence(rng, 5)
    texts = [f"{before} {items['two'][0]} end", f"{before} {items['one'][0]}", "Why not?", before]
    hits = index.hits(hash_words(texts))
    assert [(h.document, index.names[h.task]) for h in hits] == [(0, "two"), (1, "one"), (2, "two")]
    spelled = [" ".join(spell_words(texts[h.document])[h.first : h.last]) for h in hits]
    assert spelled == [items["two"][0], " ".join(items["one"][0].split()[:13]), "why not"]


# --- held-out documents -------------------------------------------------------------------------


def copies(held_out: list[str], texts: list[str]) -> dict[int, int]:
    index = index_held_out(["s"], iter([(0, hash_words(held_out))]))
    found = HeldOutMatcher(index).matches(hash_words(texts))
    common = common_runs(index, iter([found]), len(texts))
    return dict(copies_of_held_out(index, found, common))


def copies_by_hand(held_out: list[str], texts: list[str]) -> set[int]:
    documents = [runs(split_words(text), 13) for text in held_out]
    own = [split_words(text) for text in texts]
    number = {run: sum(run in runs(words, 13) for words in own) for run in set().union(*documents)}
    most = max(COMMON_DOCUMENTS, len(texts) / 1000)
    telling = {run for run, count in number.items() if count <= most}
    found = set()
    for at, words in enumerate(own):
        every = [tuple(words[i : i + 13]) for i in range(len(words) - 12)]
        if len(words) < 13 and words in [split_words(text) for text in held_out]:
            found.add(at)
        shared = [run for run in every if run in telling]
        if len(shared) >= max(len(every) / 2, min(8, max(len(every), 1))):
            found.add(at)
        for document in documents:
            both = document & telling & set(every)
            if both and len(both) >= max(len(document & telling) / 2, min(8, len(document))):
                found.add(at)
    return found


def test_copies_are_found_as_a_search_by_hand_finds_them() -> None:
    rng = random.Random(5)
    some = none = 0
    for _ in range(12):
        licence = sentence(rng, 60)
        held_out = [sentence(rng, rng.choice([4, 14, 25, 60, 150])) for _ in range(8)]
        held_out += [f"{licence} {sentence(rng, 30)}", licence]
        texts = [f"{licence} {sentence(rng, rng.choice([20, 200]))}" for _ in range(14)]
        for _ in range(40):
            words = rng.choice(held_out).split()
            first = rng.randrange(len(words))
            part = words[first : first + rng.randrange(1, 150)]
            texts.append(" ".join([*some_words(rng, rng.choice([0, 5, 80])), *part]))
        found = copies(held_out, texts)
        assert set(found) == copies_by_hand(held_out, texts)
        some, none = some + len(found), none + len(texts) - len(found)
    assert min(some, none) > 100


def test_a_licence_that_many_documents_have_is_no_copy() -> None:
    rng = random.Random(1)
    licence = sentence(rng, 200)
    held_out = [f"{licence} {sentence(rng, 20)}"]
    texts = [f"{licence} {sentence(rng, 20)}" for _ in range(COMMON_DOCUMENTS + 1)]
    assert copies(held_out, texts) == {}
    assert set(copies(held_out, texts[:-1])) == set(range(COMMON_DOCUMENTS))


# --- the road -----------------------------------------------------------------------------------

RECIPE = """\
name = "r"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = 20_000 }
batch = { tokens = 512, sequence_length = 64 }
phases = [{ name = "a", weights = { web = 0.5, old = 0.5 } }]
[sources]
web = { path = "web.jsonl", role = "new", held_out = 0.2 }
old = { path = "old.jsonl", role = "replay", held_out = 0.2 }
[evaluation.tasks]
quiz = { path = "quiz.jsonl" }
"""


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def is_held_out(text: str, share: float) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose documents are called by what becomes of them."""
    folder = tmp_path_factory.mktemp("decontamination")
    make_tiny_base(folder / "base")
    rng = random.Random(7)
    question = "What does " + sentence(rng, 16)
    choice = sentence(rng, 20)
    quiz = [
        {"question": question, "choices": ["a b", "c d"], "answer": 1},
        {"question": "Who was it?", "choices": [choice, "x"], "answer": 0},
    ]
    write_rows(folder / "quiz.jsonl", quiz)

    def until(wanted: bool, make: Any) -> str:
        while is_held_out(text := make(), 0.2) != wanted:
            pass
        return str(text)

    plain = [until(False, lambda: sentence(rng, 80)) for _ in range(40)]
    kept_back = [until(True, lambda: sentence(rng, 80)) for _ in range(10)]
    shouted = ", ".join(question.upper().split())
    planted = {
        "task": until(False, lambda: f"{sentence(rng)} -- {shouted}? {sentence(rng)}"),
        "choice": until(False, lambda: f"{sentence(rng)}\n{choice}."),
        "near": until(False, lambda: kept_back[0] + " " + sentence(rng, 3)),
        "part": until(False, lambda: " ".join(kept_back[1].split()[10:50]) + sentence(rng, 2)),
    }
    web = [{"id": f"web{i}", "text": text} for i, text in enumerate(plain[:20])]
    web += [{"id": f"out{i}", "text": text} for i, text in enumerate(kept_back)]
    web += [{"id": name, "text": text} for name, text in planted.items()]
    old = [{"id": f"old{i}", "text": text} for i, text in enumerate(plain[20:])]
    old += [{"id": "copy", "text": until(False, lambda: kept_back[2] + " " + sentence(rng, 1))}]
    write_rows(folder / "web.jsonl", web)
    write_rows(folder / "old.jsonl", old)
    (folder / "r.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(made, tmp_path / "f")
    monkeypatch.chdir(folder)
    return folder


def planned(folder: Path, *overrides: str) -> Plan:
    given = [part for override in overrides for part in ("-o", override)]
    assert main(["prepare", "r.toml", *given]) == 0
    assert main(["plan", "r.toml", *given]) == 0
    return load_plan(folder / "runs" / "r" / "plan.json")


def trained_ids(facts: CorpusFacts) -> set[str]:
    view = open_view(facts)
    assert view.num_documents == facts.num_documents
    assert (view.num_tokens, view.total_bytes) == (facts.num_tokens, facts.num_bytes)
    return {view.document_id(index) for index in range(view.num_documents)}


def rejects(facts: CorpusFacts) -> Iterator[dict[str, str]]:
    for path in sorted((Path(facts.folder) / "dropped").glob("*/rejects.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def shard_bytes(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.glob("prepared/*/shard-*"))
    }


def test_planted_text_is_dropped_and_counted_and_the_rest_stays(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(folder)
    web, old = plan.conduct.corpora["web"], plan.conduct.corpora["old"]
    assert trained_ids(web) == {f"web{i}" for i in range(20)}
    assert trained_ids(old) == {f"old{i}" for i in range(20)}
    assert web.rejected == {"contaminated:held-out": 2, "contaminated:tasks": 2}
    assert old.rejected == {"contaminated:held-out": 1}
    assert web.drops[0].by == {"quiz": 2, "web": 2}
    assert old.drops[0].by == {"web": 1}
    told = {reject["where"]: reject for reject in rejects(web)}
    assert set(told) == {"task", "choice", "near", "part"}
    assert told["task"]["reason"] == "contaminated:tasks"
    assert told["task"]["excerpt"].startswith("has text of task quiz: what does")
    assert told["near"]["excerpt"].startswith("a copy of a document that web holds out: ")
    shown = capsys.readouterr().out
    assert "contaminated:tasks" in shown


def test_licences_of_what_is_dropped_are_not_counted(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "old.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["licence"] = "theirs" if row["id"] == "copy" else f"ours{number % 2}"
    write_rows(folder / "old.jsonl", rows)
    given = 'sources.old.licence_field="licence"'
    assert planned(folder, given).conduct.corpora["old"].licences == {"ours0": 10, "ours1": 10}
    off = planned(folder, given, "sources.old.curate.decontaminate=false").conduct.corpora["old"]
    assert off.licences == {"ours0": 10, "ours1": 10, "theirs": 1}


def test_what_is_held_out_is_measured_as_before(folder: Path) -> None:
    plan = planned(folder)
    off = planned(folder, "sources.web.curate.decontaminate=false")
    assert off.conduct.corpora["web"].drops == ()
    assert off.conduct.corpora["web"].num_documents == 24
    first, second = (open_view(p.conduct.corpora["web"], held_out=True) for p in (plan, off))
    assert first.num_documents == second.num_documents == 10
    assert first.offsets.tolist() == second.offsets.tolist()


def test_another_task_drops_others_and_tokenizes_nothing_again(folder: Path) -> None:
    first = planned(folder)
    before = shard_bytes(folder)
    rng = random.Random(11)
    wanted = json.loads((folder / "old.jsonl").read_text().splitlines()[0])["text"]
    item = {"question": " ".join(wanted.split()[5:25]), "choices": ["yes", "no"], "answer": 0}
    write_rows(folder / "more.jsonl", [item, {**item, "question": sentence(rng, 20)}])
    more = planned(folder, "evaluation.tasks.more.path=more.jsonl")
    assert shard_bytes(folder) == before
    assert trained_ids(more.conduct.corpora["old"]) == {f"old{i}" for i in range(1, 20)}
    assert more.conduct.corpora["old"].tokens != first.conduct.corpora["old"].tokens
    # Of the other source the same is dropped: its tokens are the same, and so is what stands on it.
    assert more.conduct.corpora["web"].tokens == first.conduct.corpora["web"].tokens
    assert more.conduct.corpora["web"].drops != first.conduct.corpora["web"].drops


TASK = """
task: own_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
output_type: {kind}
test_split: test
doc_to_text: "{asked}"
doc_to_target: {target}
doc_to_choice: {choices}
metric_list: [{{metric: {metric}}}]
"""


def write_harness_tasks(folder: Path, texts: Sequence[str]) -> None:
    """Write three kinds of tasks, each with an item from one of the texts."""
    folder.mkdir()
    parts = [text.split() for text in texts]
    tasks = {
        "choice": ("multiple_choice", "Question: {{q}}", "a", "c", "acc"),
        "rolling": ("loglikelihood_rolling", "", "'{{t}}'", "null", "word_perplexity"),
        "cloze": ("loglikelihood", "{{t}}", "'{{w}}'", "null", "acc"),
    }
    items: dict[str, dict[str, Any]] = {
        "choice": {"q": "Why?", "c": ["no", " ".join(parts[0][10:30])], "a": 1},
        "rolling": {"t": " ".join(parts[1][5:25])},
        "cloze": {"t": " ".join(parts[2][30:42]), "w": parts[2][42]},
    }
    for name, (kind, asked, target, choices, metric) in tasks.items():
        told = {"kind": kind, "asked": asked, "target": target, "choices": choices}
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, metric=metric, **told))
        write_rows(folder / f"{name}.jsonl", [items[name]])


def test_tasks_of_the_harness_count_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A choice, a text and a cloze with its last word (12 words alone would be an item's own)."""
    pytest.importorskip("lm_eval")
    rows = [json.loads(line) for line in (folder / "old.jsonl").read_text().splitlines()]
    write_harness_tasks(folder / "own", [row["text"] for row in rows])
    given = [
        'evaluation.harness.tasks=["own_choice", "own_rolling", "own_cloze"]',
        "evaluation.harness.include_path=own",
    ]
    old = planned(folder, *given).conduct.corpora["old"]
    assert trained_ids(old) == {f"old{i}" for i in range(3, 20)}
    assert old.drops[0].by == {"own_choice": 1, "own_cloze": 1, "own_rolling": 1, "web": 1}
    item = json.loads((folder / "own" / "rolling.jsonl").read_text())
    write_rows(folder / "own" / "rolling.jsonl", [{"t": item["t"][::-1]}])
    capsys.readouterr()
    arguments = [part for one in given for part in ("-o", one)]
    assert main(["plan", "r.toml", *arguments]) == 0
    assert "is not known yet" in capsys.readouterr().out
    old = planned(folder, *given).conduct.corpora["old"]
    assert trained_ids(old) == {"old1", *(f"old{i}" for i in range(3, 20))}


def test_data_of_the_harness_s_tasks_counts_wherever_it_lies(tmp_path: Path) -> None:
    """No harness is asked: the key is of files, also of those that task files name elsewhere."""
    own, data = tmp_path / "own", tmp_path / "data"
    files = {
        own / "a.yaml": "task: a\ndataset_kwargs: {data_files: {test: ../data/a.jsonl}}\n",
        own / "b.yaml": f"data_files:\n  test:\n    - '{data}/with space/b.jsonl'\n",
        own / "c.yaml": "task: c\ninclude: ../data/base.yaml\n",
        own / "d.yaml": "task: d\ndataset_path: ../data/folder\ndoc_to_text: ../data\n",
        own / "e.yaml": 'data_files: {test: "../data/many/*.jsonl"}\n',
        own / "f.yaml": "data_files: [../data/deep/**/e.jsonl]\n",
        data / "base.yaml": "dataset_kwargs:\n  data_files: {test: ../data/of_base.jsonl}\n",
    }
    named = [
        data / "base.yaml",
        *(data / name for name in ("a.jsonl", "with space/b.jsonl", "of_base.jsonl")),
        *(data / name for name in ("folder/x.csv", "many/1.jsonl", "deep/1/2/e.jsonl")),
    ]
    for path in [*files, *named, data / "other.jsonl"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(path, "{}\n"))
    wanted = HarnessRecipe(tasks=["a"], include_path="own")
    keys = [harness_key(wanted, tmp_path)]
    assert harness_key(wanted, tmp_path) == keys[0]
    for path in named:
        path.write_text(path.read_text() + "\n")
        keys.append(harness_key(wanted, tmp_path))
    assert len(set(keys)) == len(keys)
    (data / "other.jsonl").write_text("other\n")
    assert harness_key(wanted, tmp_path) == keys[-1]


def test_where_nothing_is_dropped_the_tokens_are_those_of_the_whole_source(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "old.jsonl").read_text().splitlines()]
    write_rows(folder / "old.jsonl", [row for row in rows if row["id"] != "copy"])
    on = planned(folder).conduct.corpora["old"]
    off = planned(folder, "sources.old.curate.decontaminate=false").conduct.corpora["old"]
    assert on.drops[0].num_documents == 0
    assert on.is_whole
    assert on.tokens == off.tokens


@pytest.mark.parametrize(
    ("measured", "left"),
    [('["tasks"]', {"near", "part"}), ('["held-out"]', {"task", "choice"})],
)
def test_one_of_the_two_alone(folder: Path, measured: str, left: set[str]) -> None:
    facts = planned(folder, f"sources.web.curate.decontaminate={measured}").conduct.corpora["web"]
    assert trained_ids(facts) == {f"web{i}" for i in range(20)} | left


def test_the_plan_says_what_is_not_known_yet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(folder)
    rows = [{"question": "how are you today", "choices": ["a", "b"], "answer": 0}]
    write_rows(folder / "quiz.jsonl", rows)
    capsys.readouterr()
    assert main(["plan", "r.toml"]) == 0
    assert "which of its documents are dropped" in capsys.readouterr().out
    assert main(["train", "r.toml"]) == 2
    told = capsys.readouterr().err
    assert "sources.web: which of its documents are dropped" in told
    assert "sources.old: which of its documents are dropped" in told


def test_a_list_that_changed_is_told_and_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = planned(folder)
    path = Path(first.conduct.corpora["web"].drops[0].folder) / "dropped.npy"
    good = path.read_bytes()
    np.save(path, np.load(path)[:-1])
    assert main(["train", "r.toml"]) == 2
    assert "which of its documents are dropped" in capsys.readouterr().err
    with pytest.raises(CorpusError, match=r"dropped\.npy: it changed since prepare"):
        verify_prepared(first.conduct.corpora["web"])
    with pytest.raises(CorpusError, match="other documents than were planned with"):
        trained_ids(first.conduct.corpora["web"])
    assert main(["prepare", "r.toml"]) == 0
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("where", "key"),
    [("", "num_bytes"), ("dropped/*", "num_tokens"), ("bins-32*", "num_documents")],
)
def test_no_plan_is_made_with_a_count_that_was_altered(folder: Path, where: str, key: str) -> None:
    batch = ("batch.sequence_length=32", "batch.packing='best-fit'")
    first = planned(folder, *batch)
    (path,) = Path(first.conduct.corpora["old"].folder).glob(f"{where}/facts.json".lstrip("/"))
    facts = json.loads(path.read_text())
    write_json(path, {**facts, key: facts[key] + 1})
    options = [part for one in batch for part in ("-o", one)]
    assert main(["plan", "r.toml", *options]) == 0
    again = load_plan(folder / "runs/r/plan.json")
    if where == "bins-32*":  # packed again then and there
        assert again.conduct == first.conduct
    else:
        assert not again.measured
    assert planned(folder, *batch).conduct == first.conduct


@pytest.mark.parametrize("name", ["train.view.npy", "shard-00000.idx"])
def test_no_plan_is_made_on_an_index_that_was_altered(folder: Path, name: str) -> None:
    first = planned(folder)
    path = Path(first.conduct.corpora["web"].folder) / name
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)
    assert main(["plan", "r.toml"]) == 0
    assert not load_plan(folder / "runs/r/plan.json").measured
    assert planned(folder).conduct == first.conduct


@pytest.mark.parametrize("content", [None, b"", b"[]"])
def test_what_vouches_for_a_list_is_made_again_where_it_is_gone_or_damaged(
    folder: Path, content: bytes | None
) -> None:
    facts = planned(folder).conduct.corpora["web"]
    path = Path(facts.drops[0].folder) / MANIFEST_NAME
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CorpusError, match="run `rewarm prepare` with the recipe") as caught:
        verify_prepared(facts)
    assert "check the path" not in str(caught.value)
    assert planned(folder).conduct.corpora["web"] == facts
    verify_prepared(facts)


def test_what_was_looked_through_before_a_fault_is_not_looked_through_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_TOKENS_PER_PIECE", 500)
    looked: list[tuple[int, int]] = []
    found = room._Search._found

    def counting(self: Any, first: int, last: int) -> Any:
        looked.append((first, last))
        if len(looked) == 4:
            raise KeyboardInterrupt
        return found(self, first, last)

    monkeypatch.setattr(room._Search, "_found", counting)
    assert main(["prepare", "r.toml"]) != 0
    plan = planned(folder)
    before, after = looked[:3], looked[4:]
    assert after[0] == looked[3], "it goes on with the piece that was at work"
    assert not set(before) & set(after[: after.index((0, before[0][1]))]), "and with none before it"
    assert trained_ids(plan.conduct.corpora["web"]) == {f"web{i}" for i in range(20)}


def test_a_source_of_which_nothing_is_left_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (folder / "web.jsonl").read_text().splitlines()]
    write_rows(folder / "old.jsonl", [row for row in rows if row["id"] in ("near", "part", "task")])
    assert main(["prepare", "r.toml"]) == 2
    told = capsys.readouterr().err
    assert "all of its 3 training documents are dropped" in told
    assert "contaminated:held-out 2" in told


def test_token_shards_are_looked_through_too(folder: Path) -> None:
    facts = planned(folder, "sources.web.curate.decontaminate=false").conduct.corpora["web"]
    (folder / "tokens").mkdir()
    for path in Path(facts.folder).glob("shard-*"):
        if path.suffix in (".bin", ".idx", ".ids"):
            shutil.copy(path, folder / "tokens")
    shards = ('sources.web.path="tokens"', 'sources.web.format="tokens"')
    taken = planned(folder, *shards).conduct.corpora["web"]
    assert trained_ids(taken) == {f"web{i}" for i in range(20)}


def test_a_large_split_is_indexed_in_part_beginning_with_what_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contamination_index, "_MOST_HELD_OUT_TOKENS", 1)
    monkeypatch.setattr(contamination_index, "_LEAST_SOURCE_TOKENS", 1)
    plan = planned(folder, "evaluation.max_bytes_per_domain=800")
    facts = plan.conduct.corpora["web"]
    assert any("near copies of" in warning for warning in facts.warnings)
    assert "task" not in trained_ids(facts)


def test_an_index_names_every_task() -> None:
    assert isinstance(index_tasks({}), TaskIndex)
    assert index_tasks({}).hits(hash_words(["a b c"])) == []


def test_every_changed_place_of_a_source_is_told_though_a_manifest_is_gone(folder: Path) -> None:
    facts = planned(folder).conduct.corpora["web"]
    dropped = Path(facts.drops[0].folder)
    (Path(facts.folder) / MANIFEST_NAME).unlink()
    raw = bytearray((dropped / "dropped.npy").read_bytes())
    raw[-8] ^= 1
    (dropped / "dropped.npy").write_bytes(raw)
    with pytest.raises(CorpusError) as caught:
        verify_prepared(facts)
    told = str(caught.value)
    assert str(Path(facts.folder) / MANIFEST_NAME) in told
    assert f"{dropped / 'dropped.npy'}: it changed since prepare" in told
