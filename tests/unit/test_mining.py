"""Mined documents: those that questions were made from, whatever order, pieces and kills."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewarm.cli import main
from rewarm.corpus import mining
from rewarm.corpus.mining import NEIGHBOURS, QUESTIONS, SIMILARITIES, NeighbourScores
from rewarm.corpus.neighbours import TermSearch
from rewarm.corpus.queries import read_queries
from rewarm.corpus.selection import SCORES
from rewarm.corpus.tokenize import open_encoder
from rewarm.corpus.views import open_view
from rewarm.errors import BaseModelError, CorpusError, RecipeError
from rewarm.model.chat_template import chat_renderer
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.load import parse_recipe
from rewarm.records.facts import CorpusFacts
from rewarm.stages.job import Job, open_job
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import ModelTools, prepare_job
from rewarm.stages.selecting import ScoringModels
from tests.support.asked_folder import asked_recipe, make_asked_folder, nearest
from tests.support.chat import give_chat_template
from tests.support.extras import skip_without

skip_without("scipy", "sklearn", "faiss")

LSA = 'embedding = "lsa"'
FILES = (SCORES, NEIGHBOURS, SIMILARITIES, QUESTIONS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_asked_folder(tmp_path_factory.mktemp("made"))
    prepare_job(job_in(folder, nearest()), never)
    return folder


def _never(*_: object) -> Any:
    raise AssertionError("no model is asked for")


never = ModelTools(_never, ScoringModels(_never, _never), _never)


def job_in(folder: Path, keep: str, **more: Any) -> Job:
    (folder / "recipe.toml").write_text(asked_recipe(keep, **more))
    return open_job(folder / "recipe.toml")


def both(folder: Path, keep: str, **more: Any) -> tuple[CorpusFacts, CorpusFacts]:
    web, qa = prepare_job(job_in(folder, keep, **more), never)
    return web, qa


def ids_of(facts: CorpusFacts, **options: bool) -> list[str]:
    view = open_view(facts, **options)
    return [view.document_id(index) for index in range(view.num_documents)]


def stored(facts: CorpusFacts) -> dict[str, bytes]:
    assert facts.selection is not None
    return {name: (Path(facts.selection.scores) / name).read_bytes() for name in FILES}


def array(facts: CorpusFacts, name: str) -> np.ndarray:
    assert facts.selection is not None
    return np.asarray(np.load(Path(facts.selection.scores) / name))


def asked_about(qa: CorpusFacts) -> set[str]:
    """The documents that the training questions are about."""
    return {name.replace("q-", "asked-") for name in ids_of(qa)}


@pytest.mark.parametrize("settings", ["", 'queries = "questions"'])
def test_the_nearest_of_each_question_is_what_it_was_made_from(made: Path, settings: str) -> None:
    web, qa = both(made, nearest(settings))
    everything, _ = both(made, "")
    names, questions = ids_of(everything), ids_of(qa)
    first = array(web, NEIGHBOURS)[:, 0]
    hits = 0
    about = 0
    for question, document in zip(array(web, QUESTIONS), first, strict=True):
        wanted = questions[question].replace("q-", "")
        if f"asked-{wanted}" in names:
            about += 1
            hits += names[document] in (f"asked-{wanted}", f"copy-{wanted}", f"near-{wanted}")
    assert about > 20
    assert hits == about


def test_best_places_first_until_they_hold_the_tokens(made: Path) -> None:
    whole, qa = both(made, "")
    view = open_view(whole)
    names, tokens = ids_of(whole), view.document_tokens
    target = int(tokens.mean() * 20)
    web, _ = both(made, nearest(f"tokens = {target}"))
    kept = ids_of(web)
    assert target <= web.num_tokens < target + tokens.max()
    first = {names[index] for index in array(web, NEIGHBOURS)[:, 0]}
    assert set(kept) <= first  # some question's nearest, as there are enough of them
    scores = array(web, SCORES)
    kept_scores = [scores[names.index(name)] for name in kept]
    assert web.selection is not None
    assert web.selection.worst == max(kept_scores)
    others = [s for name, s in zip(names, scores, strict=True) if name not in kept]
    assert not [s for s in others if s < max(kept_scores)]
    last = array(web, NEIGHBOURS)[:, 0] == names.index(kept[int(np.argmax(kept_scores))])
    nearness = array(web, SIMILARITIES)[last, 0].max()
    assert web.selection.edge == f"neighbour 1, similarity {nearness:.2f}"
    assert len(open_view(qa).document_tokens) == qa.num_documents


def test_a_score_is_the_best_place_and_how_unlike_it_is_there(made: Path) -> None:
    web, _ = both(made, nearest("max_similarity = 1.0"))
    neighbours, similarities = array(web, NEIGHBOURS), array(web, SIMILARITIES)
    wanted: dict[int, float] = {}
    for documents, nearness in zip(neighbours.tolist(), similarities.tolist(), strict=True):
        for place, (document, similarity) in enumerate(zip(documents, nearness, strict=True)):
            if document >= 0:
                score = place + 1 / (1 + similarity)
                wanted[document] = min(score, wanted.get(document, score))
    scores = array(web, SCORES)
    assert {i: s for i, s in enumerate(scores.tolist()) if s == s} == pytest.approx(wanted)
    assert web.num_documents == len(wanted) < len(scores)


def test_held_out_documents_and_questions_take_no_part(made: Path) -> None:
    web, qa = both(made, nearest())
    whole, _ = both(made, "")
    assert ids_of(web, held_out=True) == ids_of(whole, held_out=True)
    assert not set(ids_of(web)) & set(ids_of(whole, held_out=True))
    assert sorted(array(web, QUESTIONS).tolist()) == list(range(qa.num_documents))
    assert qa.held_out_documents > 3
    held_out = {name.replace("q-", "asked-") for name in ids_of(qa, held_out=True)}
    rows = [json.loads(line) for line in (made / "qa.jsonl").read_text().splitlines()]
    secret = [r for r in rows if r["id"].replace("q-", "asked-") in held_out]
    (path,) = Path(qa.folder).glob("shard-*.questions.jsonl")
    lines = path.read_text().splitlines()
    assert len(lines) == qa.num_documents + qa.held_out_documents
    assert lines.count("null") == qa.held_out_documents
    assert not [row for row in secret if row["question"] in path.read_text()]


def queries_of(folder: Path, qa: CorpusFacts, which: Any, most: int = 1000) -> list[str]:
    encoder = open_encoder(folder / "base", TokenizerRecipe(), vocab_size=320)
    return read_queries(qa, encoder, which=which, max_queries=most).texts


def test_queries_are_questions_with_or_without_answers(made: Path) -> None:
    _, qa = both(made, nearest())
    rows = {row["id"]: row for row in map(json.loads, (made / "qa.jsonl").read_text().splitlines())}
    trained = [rows[name] for name in ids_of(qa)]
    assert sorted(queries_of(made, qa, "questions")) == sorted(r["question"] for r in trained)
    assert sorted(queries_of(made, qa, "questions-and-answers")) == sorted(
        f"{r['question']}\n{r['answer']}" for r in trained
    )
    few = queries_of(made, qa, "questions", 5)
    assert few == queries_of(made, qa, "questions")[:5]


def test_text_without_questions_is_looked_for_as_it_stands(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "f", ignore=shutil.ignore_patterns("prepared"))
    rows = [json.loads(line) for line in (folder / "qa.jsonl").read_text().splitlines()]
    lines = (json.dumps({"text": f"{r['question']} {r['answer']}"}) + "\n" for r in rows)
    (folder / "qa.jsonl").write_text("".join(lines))
    web, qa = both(folder, nearest(), qa='path = "qa.jsonl"')
    encoder = open_encoder(folder / "base", TokenizerRecipe(), vocab_size=320)
    found = read_queries(qa, encoder, which="questions", max_queries=100)
    texts = {f"{r['question']} {r['answer']}" for r in rows}
    assert set(found.texts) <= texts
    assert len([name for name in ids_of(web) if name.startswith("asked")]) > 20


def test_of_conversations_what_is_asked_or_all_is_looked_for(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "f", ignore=shutil.ignore_patterns("prepared"))
    give_chat_template(folder / "base")
    rows = [json.loads(line) for line in (folder / "qa.jsonl").read_text().splitlines()]
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": f"it is {row['answer']}"},
            ]
        }
        for row in rows
    ]
    (folder / "qa.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    text = asked_recipe(nearest('queries = "questions"'), qa='path = "qa.jsonl", format = "chat"')
    (folder / "recipe.toml").write_text(text)
    web, qa = prepare_job(
        open_job(folder / "recipe.toml"), ModelTools(chat_renderer, never.scoring, _never)
    )
    assert len([name for name in ids_of(web) if name.startswith("asked")]) > 20
    answers = {f"it is {row['answer']}" for row in rows}
    asked = queries_of(folder, qa, "questions")
    told = queries_of(folder, qa, "questions-and-answers")
    assert len(asked) == len(told) == qa.num_documents
    for question, whole in zip(asked, told, strict=True):
        (row,) = [row for row in rows if row["question"] in question]
        assert row["question"] in whole
        assert f"it is {row['answer']}" in whole
        assert not [answer for answer in answers if answer in question]


def test_of_copies_one_is_mined_and_of_near_copies_the_nearest(made: Path) -> None:
    web, _ = both(made, nearest())
    everything, _ = both(made, nearest("max_similarity = 1.0"))
    texts = {
        row["id"]: row["text"]
        for row in map(json.loads, (made / "web.jsonl").read_text().splitlines())
    }
    for facts in (web, everything):
        kept = [texts[name] for name in ids_of(facts)]
        assert len(set(kept)) == len(kept)
    bare = [texts[name].removesuffix(" end") for name in ids_of(everything)]
    assert len(set(bare)) < len(bare)  # near copies are mined where they are not told apart
    bare = [texts[name].removesuffix(" end") for name in ids_of(web)]
    assert len(set(bare)) == len(bare)


@pytest.mark.parametrize("settings", ["", pytest.param(LSA, marks=pytest.mark.slow)])
def test_neither_pieces_nor_the_order_of_files_decide(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    web, _ = both(made, nearest(settings))
    assert web.selection is not None
    other = shutil.copytree(made, tmp_path / "f", ignore=shutil.ignore_patterns("scores"))
    monkeypatch.setattr(NeighbourScores, "make", in_pieces(400))
    again, _ = both(other, nearest(settings))
    assert stored(again) == stored(web)
    back = make_asked_folder(tmp_path / "back", reverse=True)
    turned, _ = both(back, nearest(settings))
    texts_of = {
        row["id"]: row["text"]
        for row in map(json.loads, (made / "web.jsonl").read_text().splitlines())
    }
    assert {texts_of[name] for name in ids_of(turned)} == {texts_of[name] for name in ids_of(web)}


make = NeighbourScores.make


def in_pieces(
    tokens: int, *, stop_after: int | None = None
) -> Callable[[NeighbourScores, Path, Any, Callable[[int], None]], Any]:
    """Return a `make` with small pieces that is killed after some of them."""

    def small(self: NeighbourScores, folder: Path, view: Any, done: Callable[[int], None]) -> Any:
        told: list[int] = []

        def count(last: int) -> None:
            told.append(last)
            done(last)
            if len(told) == stop_after:
                raise KeyboardInterrupt

        pieces = NeighbourScores(
            self.scoring, self.encoder, self.embedding, self.say, tokens_per_piece=tokens
        )
        try:
            return make(pieces, folder, view, count)
        finally:
            PIECES_DONE.append(told)

    return small


PIECES_DONE: list[list[int]] = []


def test_a_killed_search_goes_on_to_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = both(made, nearest())
    folder = shutil.copytree(made, tmp_path / "f", ignore=shutil.ignore_patterns("scores"))
    PIECES_DONE.clear()
    for stop_after in (3, 1, 2):
        monkeypatch.setattr(NeighbourScores, "make", in_pieces(800, stop_after=stop_after))
        with pytest.raises(KeyboardInterrupt):
            both(folder, nearest())
    monkeypatch.setattr(NeighbourScores, "make", in_pieces(800))
    again, _ = both(folder, nearest())
    done = [last for told in PIECES_DONE for last in told]
    assert done == sorted(set(done))  # no piece twice
    assert [len(told) for told in PIECES_DONE[:3]] == [3, 1, 2]
    assert stored(again) == stored(whole)
    assert again.selection is not None
    assert not (Path(again.selection.scores) / "pieces").exists()


def test_damage_to_what_was_found_so_far_costs_time_alone(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = both(made, nearest())
    folder = shutil.copytree(made, tmp_path / "f", ignore=shutil.ignore_patterns("scores"))
    monkeypatch.setattr(NeighbourScores, "make", in_pieces(800, stop_after=3))
    with pytest.raises(KeyboardInterrupt):
        both(folder, nearest())
    (state,) = (folder / "prepared").glob("web-*/scores/neighbours-*/pieces/nearest.npz")
    state.write_bytes(state.read_bytes()[:-30])
    monkeypatch.setattr(NeighbourScores, "make", make)
    again, _ = both(folder, nearest())
    assert stored(again) == stored(whole)


def test_what_is_held_does_not_grow_with_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents of one piece at a time, and of each question its neighbours."""
    held: list[int] = []
    candidates = TermSearch.candidates

    def watched(self: TermSearch, vectors: Any, floors: Any) -> Any:
        held.append(sum(rows.shape[0] for rows in vectors))
        return candidates(self, vectors, floors)

    monkeypatch.setattr(TermSearch, "candidates", watched)
    monkeypatch.setattr(mining, "_TOKENS_PER_PIECE", 3000)
    monkeypatch.setattr(NeighbourScores, "make", in_pieces(3000))
    most: list[int] = []
    for num_others in (60, 752):  # eight times as many documents
        folder = make_asked_folder(tmp_path / str(num_others), num_others=num_others)
        held.clear()
        web, qa = both(folder, nearest())
        most.append(max(held))
        assert len(held) > 3
        assert array(web, NEIGHBOURS).shape == (qa.num_documents, 5)
    assert most[1] <= most[0] + 1


def test_another_target_is_planned_without_a_search(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NeighbourScores, "make", _never)
    keeps = [nearest(settings) for settings in ("", "tokens = 4000", "share = 0.1")]
    plans = [plan_job(job_in(made, keep), estimates_allowed=False) for keep in (*keeps, "")]
    assert len({plan.fingerprint for plan in plans}) == 4
    assert all(plan.measured for plan in plans)
    reason = next(r for r in plans[1].reasons if r.field == "sources.web.keep")
    assert "nearest to the questions of qa" in reason.reason
    assert "neighbour 1, similarity" in reason.reason
    assert reason.source == "Parmar et al. 2024, arXiv 2407.07263"


def test_other_settings_or_questions_are_other_neighbours(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "f")
    keys = {}
    for settings in (
        "",
        'queries = "questions"',
        "max_queries = 10",
        "max_similarity = 0.7",
        LSA,
    ):
        selection = both(folder, nearest(settings))[0].selection
        assert selection is not None
        keys[settings] = selection.key
    rows = (folder / "qa.jsonl").read_text().splitlines()
    (folder / "qa.jsonl").write_text("\n".join(rows[:-4]) + "\n")
    selection = both(folder, nearest())[0].selection
    assert selection is not None
    assert len({*keys.values(), selection.key}) == 6


def test_fewer_tokens_than_asked_for_are_told(made: Path) -> None:
    web, _ = both(made, nearest("tokens = 1000000"))
    assert web.selection is not None
    assert web.num_documents < web.selection.of_documents
    assert any(
        "the 5 neighbours of each question of qa hold" in warning for warning in web.warnings
    )
    assert not [w for w in both(made, nearest("tokens = 1000"))[0].warnings if "hold" in w]


def test_held_out_text_among_the_questions_is_told(tmp_path: Path) -> None:
    folder = make_asked_folder(tmp_path)
    (folder / "qa.jsonl").write_text((folder / "web.jsonl").read_text())
    qa = 'path = "qa.jsonl", curate = { decontaminate = false }'
    text = asked_recipe(nearest(), qa=qa).replace("held_out = 0.2", "held_out = 0")
    (folder / "recipe.toml").write_text(text)
    with pytest.raises(CorpusError, match="would choose what is trained on"):
        prepare_job(open_job(folder / "recipe.toml"), never)


def test_before_the_search_a_plan_is_an_estimate(tmp_path: Path) -> None:
    folder = make_asked_folder(tmp_path)
    both(folder, "")
    plan = plan_job(job_in(folder, nearest("tokens = 5000")), estimates_allowed=True)
    assert not plan.measured
    assert plan.conduct.corpora["web"].num_tokens == 5000
    with pytest.raises(Exception, match=r"sources\.web\.keep: its documents are not scored"):
        plan_job(job_in(folder, nearest()), estimates_allowed=False)


def test_the_whole_road_with_mining(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    (made / "road.toml").write_text(asked_recipe(nearest("tokens = 4000"), name="road"))
    assert main(["prepare", "road.toml"]) == 0
    told = capsys.readouterr().out
    assert "nearest to qa" in told
    assert main(["train", "road.toml"]) == 0
    capsys.readouterr()
    assert main(["trace", "road.toml", "--step", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert {row["document"] for row in rows} <= set(ids_of(both(made, nearest("tokens = 4000"))[0]))
    assert main(["train", "road.toml", "-o", "sources.web.keep.tokens=6000"]) == 2
    assert "this run has begun under another plan" in capsys.readouterr().err


def test_no_question_is_told(tmp_path: Path) -> None:
    folder = make_asked_folder(tmp_path)
    qa = 'path = "qa.jsonl", question_field = "question", answer_field = "answer", held_out = 0.99'
    (folder / "recipe.toml").write_text(
        asked_recipe(nearest(), qa=qa).replace(', role = "qa", held_out = 0.2', ', role = "qa"')
    )
    with pytest.raises(CorpusError, match="no training documents to look for"):
        prepare_job(open_job(folder / "recipe.toml"), never)


@pytest.mark.parametrize(
    ("package", "settings", "told"),
    [
        ("scipy", "", r"pip install 'rewarm\[mining\]'"),
        ("faiss", LSA, "it needs faiss-cpu"),
        ("sklearn", LSA, "it needs scikit-learn"),
    ],
)
def test_a_missing_package_is_told_before_any_work(
    made: Path, monkeypatch: pytest.MonkeyPatch, package: str, settings: str, told: str
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(CorpusError, match=told):
        both(made, nearest(settings))


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ('keep = { nearest = "qa", lowest = "base-loss" }', "one of the three"),
        ('keep = { nearest = "qa", share = 0.1, tokens = 5 }', "share or tokens"),
        ('keep = { nearest = "qa", reference = "qa" }', "leave out reference"),
        ('keep = { nearest = "qa", neighbours = 0 }', "greater than 0"),
        ('keep = { nearest = "qa", queries = "all" }', "questions-and-answers"),
        ('keep = { nearest = "aq" }', "no source is called 'aq'"),
        ('keep = { nearest = "web" }', "near to itself"),
        ('keep = { lowest = "base-loss", share = 0.1, neighbours = 3 }', "leave out neighbours"),
    ],
)
def test_what_a_recipe_says_wrongly_is_told(keep: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_recipe(asked_recipe(keep))


# Models that embed


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model of random weights: mean of a tiny BERT's hidden states."""
    models = pytest.importorskip("sentence_transformers", reason="sentence-transformers")
    modules = pytest.importorskip("sentence_transformers.models", reason="sentence-transformers")
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("embedding")
    base = make_asked_folder(folder / "text") / "base"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder / "bert")
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(base / "tokenizer.json")),
        pad_token="</s>",
        unk_token="<s>",
        model_max_length=128,
    ).save_pretrained(folder / "bert")
    transformer = modules.Transformer(str(folder / "bert"), max_seq_length=128)
    pooling = modules.Pooling(32, pooling_mode="mean")
    models.SentenceTransformer(modules=[transformer, pooling], device="cpu").save_pretrained(
        str(folder / "model")
    )
    return folder / "model"


def test_neighbours_are_those_of_the_model_s_own_vectors(made: Path, embedding: Path) -> None:
    from sentence_transformers import SentenceTransformer

    keep = nearest(f'embedding = "{embedding}", max_similarity = 1.0')
    web, qa = prepare_job(job_in(made, keep), MODEL_TOOLS)
    model = SentenceTransformer(str(embedding), device="cpu")
    everything = web.model_copy(update={"selection": None})
    texts_of = {
        row["id"]: row["text"]
        for row in map(json.loads, (made / "web.jsonl").read_text().splitlines())
    }
    documents = model.encode(
        [texts_of[name] for name in ids_of(everything)], normalize_embeddings=True
    )
    queries = model.encode(queries_of(made, qa, "questions-and-answers"), normalize_embeddings=True)
    similarities = queries @ documents.T
    neighbours, stored_nearness = array(web, NEIGHBOURS), array(web, SIMILARITIES)
    best = np.sort(similarities, axis=1)[:, ::-1]
    assert np.allclose(stored_nearness[:, 0], best[:, 0], atol=2e-3)
    for row, found in enumerate(neighbours):
        assert similarities[row, found].min() >= best[row, 12] - 2e-3


def test_a_folder_that_is_no_such_model_is_told(made: Path, tmp_path: Path) -> None:
    for path, told in (
        (made / "base", "holds no sentence-transformers model"),
        (tmp_path / "nowhere", "there is no folder"),
    ):
        with pytest.raises(CorpusError, match=told) as caught:
            both(made, nearest(f'embedding = "{path}"'))
        assert "sources.web.keep.embedding" in str(caught.value)


def test_other_weights_are_another_embedding(made: Path, embedding: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    model = shutil.copytree(embedding, tmp_path / "model")
    (path,) = model.rglob("*.safetensors")

    def key() -> str:
        keep = nearest(f'embedding = "{model}"')
        selection = prepare_job(job_in(made, keep), MODEL_TOOLS)[0].selection
        assert selection is not None
        return selection.key

    before = key()
    weights = load_file(path)
    name = next(iter(weights))
    weights[name] = weights[name] + np.float32(0.5)
    save_file(weights, path, metadata={"format": "pt"})
    assert key() != before


def test_a_model_that_cannot_be_opened_is_told(embedding: Path, tmp_path: Path) -> None:
    from rewarm.model.sentence_embedding import open_sentence_embedding

    broken = shutil.copytree(embedding, tmp_path / "broken")
    (broken / "modules.json").write_text("[")
    with pytest.raises(BaseModelError, match="cannot open it"):
        open_sentence_embedding(broken, device="cpu", texts_per_batch=8)
