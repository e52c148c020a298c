"""Scores by document, and the views they make: right, out of sample, restartable, re-planned."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewarm.artifacts import MANIFEST_NAME
from rewarm.cli import main
from rewarm.corpus import classifier, quality
from rewarm.corpus.bins import ensure_packing, open_bins
from rewarm.corpus.ngram import fit_ngrams
from rewarm.corpus.pieces import pieces_of
from rewarm.corpus.scores import DocumentScorer
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.selection import SCORES
from rewarm.corpus.views import open_view
from rewarm.errors import CorpusError, PlanError, RecipeError
from rewarm.planning.plan import Plan, load_plan
from rewarm.recipe.load import parse_recipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.run_folder import RunFolder
from rewarm.stages.job import Job, open_job
from rewarm.stages.model_tools import MODEL_TOOLS
from rewarm.stages.plan import plan_job
from rewarm.stages.prepare import ModelTools, prepare_job
from rewarm.stages.selecting import ScoringModels
from tests.support.extras import skip_without
from tests.support.mixed_folder import (
    BASE_LOSS,
    CLASSIFIER,
    PERPLEXITY,
    make_mixed_folder,
    recipe_text,
)

skip_without("scipy", "sklearn")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder prepared for each score, with 12 of the reference's texts in the corpus too."""
    folder = make_mixed_folder(tmp_path_factory.mktemp("made"), copies=12)
    for keep in (PERPLEXITY, CLASSIFIER, BASE_LOSS):
        prepare_job(job_in(folder, keep), MODEL_TOOLS)
    return folder


def job_in(folder: Path, keep: str, **more: Any) -> Job:
    (folder / "recipe.toml").write_text(recipe_text(keep, **more))
    return open_job(folder / "recipe.toml")


def _never(*_: object) -> Any:
    raise AssertionError("the base is not asked for")


never = ModelTools(_never, ScoringModels(_never, _never), _never)


def facts_in(folder: Path, keep: str) -> CorpusFacts:
    return prepare_job(job_in(folder, keep), never)[0]


def whole(folder: Path) -> CorpusFacts:
    return facts_in(folder, "")


def scores_of(facts: CorpusFacts) -> np.ndarray:
    assert facts.selection is not None
    return np.asarray(np.load(Path(facts.selection.scores) / SCORES))


def ids_of(facts: CorpusFacts, **options: bool) -> list[str]:
    view = open_view(facts, **options)
    return [view.document_id(index) for index in range(view.num_documents)]


def bodies_of(facts: CorpusFacts) -> list[np.ndarray]:
    view = open_view(facts)
    return [view.document(index)[1:-1] for index in range(view.num_documents)]  # no <s>, </s>


@pytest.mark.parametrize("keep", [PERPLEXITY, CLASSIFIER])
def test_what_is_like_the_reference_is_kept(made: Path, keep: str) -> None:
    facts = facts_in(made, keep)
    kept = ids_of(facts)
    assert kept
    assert not [name for name in kept if name.startswith("unlike")]
    everything = whole(made)
    assert kept == [name for name in ids_of(everything) if name in set(kept)]
    assert facts.selection is not None
    assert facts.selection.of_tokens == everything.num_tokens
    assert 0.2 <= facts.num_tokens / everything.num_tokens < 0.25
    view = open_view(facts)
    assert (view.num_tokens, view.num_documents) == (facts.num_tokens, facts.num_documents)
    assert view.total_bytes == facts.num_bytes


@pytest.mark.parametrize("keep", [PERPLEXITY, CLASSIFIER, BASE_LOSS])
def test_held_out_documents_have_no_score_and_stay_held_out(made: Path, keep: str) -> None:
    facts = facts_in(made, keep)
    held_out = ids_of(facts, held_out=True)
    assert held_out == ids_of(whole(made), held_out=True)
    assert not set(held_out) & set(ids_of(facts))
    assert len(scores_of(facts)) == whole(made).num_documents


def test_perplexities_are_those_of_the_reference_s_model(made: Path) -> None:
    """Of a document that the reference has, of a model of the reference without its fold."""
    facts = prepare_job(job_in(made, PERPLEXITY), never)
    web, good = facts
    reference = bodies_of(good)
    texts = [body.tolist() for body in reference]
    folds = quality.fold_of(quality.Bodies(good, open_view(good)).hashes)
    bodies, found = bodies_of(whole(made)), scores_of(web)
    full = fit_ngrams(reference, vocab_size=320, order=3)
    num_shared = 0
    for index, body in enumerate(bodies):
        model = full
        if body.tolist() in texts:
            fold = folds[texts.index(body.tolist())]
            rest = [text for text, other in zip(reference, folds, strict=True) if other != fold]
            model = fit_ngrams(rest, vocab_size=320, order=3)
            num_shared += 1
        assert found[index] == pytest.approx(math.exp(model.mean_nats([body])[0]), rel=1e-9)
    assert num_shared > 5


def test_no_classifier_scores_what_it_was_fitted_to(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, tmp_path / "f", ignore=shutil.ignore_patterns("scores"))
    fitted: list[set[bytes]] = []
    scored: dict[int, set[bytes]] = {}
    fit = classifier.fit_classifier

    def watched(positive: Any, negative: Any) -> Any:
        number = len(fitted)
        fitted.append({document.tobytes() for document in (*positive, *negative)})
        assert not {d.tobytes() for d in positive} & {d.tobytes() for d in negative}
        found = fit(positive, negative)

        class Watched:
            def log_odds(self, documents: Any) -> Any:
                scored.setdefault(number, set()).update(d.tobytes() for d in documents)
                return found.log_odds(documents)

        return Watched()

    monkeypatch.setattr(quality, "fit_classifier", watched)
    facts = facts_in(tmp_path / "f", CLASSIFIER)
    assert len(fitted) == quality.NUM_FOLDS == len(scored)
    for number, documents in scored.items():
        assert not documents & fitted[number]
    assert len(set.union(*scored.values())) == len(scores_of(facts))


def test_the_base_s_loss_is_what_the_model_itself_says(made: Path) -> None:
    """Against transformers' own loss, a document at a time, over windows of 128 inputs."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made / "base", dtype=torch.float32).eval()
    facts = whole(made)
    view, found = open_view(facts), scores_of(facts_in(made, BASE_LOSS))
    longest = int(np.argmax(view.document_tokens))
    assert view.document_tokens[longest] > 130
    for index in (0, 7, longest):
        ids = view.document(index)[:-1].tolist()
        windows = [ids[at : at + 129] for at in range(0, len(ids) - 1, 128)]
        nats = 0.0
        for window in windows:
            tokens = torch.tensor([window])
            with torch.no_grad():
                loss = model(tokens, labels=tokens).loss
            nats += float(loss) * (len(window) - 1)
        wanted = nats / math.log(2) / view.num_bytes(index)
        assert found[index] == pytest.approx(wanted, rel=1e-5)


def test_another_share_is_planned_without_scoring(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> DocumentScorer:
        raise AssertionError("scored again")

    monkeypatch.setattr("rewarm.stages.selecting.reference_scorer", refuse)
    fifth = plan_job(job_in(made, PERPLEXITY), estimates_allowed=False)
    again = plan_job(job_in(made, PERPLEXITY), estimates_allowed=False)
    half = plan_job(job_in(made, PERPLEXITY.replace("0.2", "0.5")), estimates_allowed=False)
    everything = plan_job(job_in(made, ""), estimates_allowed=False)
    most = PERPLEXITY.replace("lowest", "highest")
    other = plan_job(job_in(made, most), estimates_allowed=False)
    assert fifth.fingerprint == again.fingerprint
    assert len({p.fingerprint for p in (fifth, half, everything, other)}) == 4
    # Not by the number of windows alone: two selections may fill as many.
    assert len({p.science.sources[0].key for p in (fifth, half, everything, other)}) == 4
    windows = [p.science.sources[0].num_windows for p in (fifth, half, everything)]
    assert windows[0] < windows[1] < windows[2]
    assert fifth.measured
    reason = next(r for r in fifth.reasons if r.field == "sources.web.keep")
    reference = next(r for r in fifth.reasons if r.field == "sources.good")
    assert reference.value == "evaluated, and what web is kept by"
    assert "lowest perplexity against good" in reason.reason


def test_before_it_is_scored_a_plan_is_an_estimate(tmp_path: Path) -> None:
    folder = make_mixed_folder(tmp_path)
    prepare_job(job_in(folder, ""), never)
    job = job_in(folder, PERPLEXITY)
    plan = plan_job(job, estimates_allowed=True)
    assert not plan.measured
    assert any("not scored yet" in warning for warning in plan.warnings)
    with pytest.raises(Exception, match=r"sources\.web\.keep: its documents are not scored"):
        plan_job(job, estimates_allowed=False)


class Counting:
    """A scorer by place that stops after some pieces."""

    tokens_per_piece = 500

    def __init__(self, stop_after: int | None = None) -> None:
        self.pieces: list[tuple[int, int]] = []
        self.stop_after = stop_after

    def scores(self, first: int, last: int, /) -> np.ndarray:
        if len(self.pieces) == self.stop_after:
            raise KeyboardInterrupt
        self.pieces.append((first, last))
        return np.arange(first, last, dtype=np.float64)


def with_scorer(folder: Path, scorer: Counting) -> CorpusFacts:
    return prepare_job(
        job_in(folder, BASE_LOSS),
        ModelTools(_never, ScoringModels(lambda job, scoring, view: scorer, _never), _never),
    )[0]


def cut_off(raw: bytes) -> bytes:
    return raw[:-4]


def flipped(raw: bytes) -> bytes:
    """Return a file with one bit of one score changed: shape and type stay as they were."""
    place = raw.index(b"NUMPY") + 128
    return raw[:place] + bytes([raw[place] ^ 64]) + raw[place + 1 :]


@pytest.mark.parametrize("damage", [cut_off, flipped])
def test_what_was_scored_before_a_kill_is_not_scored_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    folder = make_mixed_folder(tmp_path)
    first = Counting(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        with_scorer(folder, first)
    (torn,) = (folder / "prepared").glob("web-*/scores/base-loss-*/pieces/000001.*")
    torn.write_bytes(damage(torn.read_bytes()))
    second = Counting()
    facts = with_scorer(folder, second)
    assert second.pieces[0] == first.pieces[1]
    assert not {first.pieces[0], first.pieces[2]} & set(second.pieces)
    assert scores_of(facts).tolist() == list(range(whole(folder).num_documents))
    assert not torn.parent.exists()
    third = Counting(stop_after=0)
    assert with_scorer(folder, third) == facts


def test_pieces_cover_every_document_once() -> None:
    rng = np.random.default_rng(0)
    for high in (3, 50, 2000):
        ends = np.cumsum(rng.integers(1, high, size=200))
        pieces = list(pieces_of(ends, 100))
        assert [first for first, _ in pieces] == [0, *(last for _, last in pieces[:-1])]
        assert pieces[-1][1] == 200
    assert list(pieces_of(np.empty(0, dtype=np.int64), 100)) == []


@pytest.mark.parametrize("damage", ["scores", "manifest"])
def test_damaged_scores_are_told_before_training_and_made_again(
    made: Path, tmp_path: Path, damage: str
) -> None:
    folder = shutil.copytree(made, tmp_path / "f")
    facts = facts_in(folder, PERPLEXITY)
    assert facts.selection is not None
    place = Path(facts.selection.scores)
    good = scores_of(facts)
    if damage == "manifest":
        (place / MANIFEST_NAME).unlink()
    else:
        np.save(place / SCORES, good[::-1])
    with pytest.raises(CorpusError, match=r"changed since prepare|cannot be read"):
        verify_prepared(facts)
    assert facts_in(folder, PERPLEXITY) == facts
    assert scores_of(facts).tolist() == good.tolist()


def test_scores_that_keep_others_than_planned_are_refused(made: Path) -> None:
    facts = facts_in(made, PERPLEXITY)
    assert facts.selection is not None
    other = facts.selection.model_copy(update={"share": 0.3})
    with pytest.raises(CorpusError, match="keep other documents than were planned with"):
        open_view(facts.model_copy(update={"selection": other}))


def test_another_reference_or_setting_is_another_score(made: Path) -> None:
    before = facts_in(made, PERPLEXITY).selection
    assert before is not None
    for change in (("ngram = 3", "ngram = 2"), ("ngram = 3", "reference_tokens = 2000")):
        after = facts_in(made, PERPLEXITY.replace(*change)).selection
        assert after is not None
        assert after.key != before.key
        assert after.scores != before.scores


def test_a_reference_is_drawn_by_hash_up_to_its_tokens(made: Path) -> None:
    _, good = prepare_job(job_in(made, PERPLEXITY), never)
    bodies = quality.Bodies(good, open_view(good))
    everything = np.arange(good.num_documents)
    some = bodies.drawn(everything, 1000)
    tokens = bodies.view.document_tokens
    assert 1000 <= tokens[some].sum() < 1000 + tokens.max()
    more = bodies.drawn(everything, 2000)
    assert more[: len(some)].tolist() == some.tolist()
    assert sorted(bodies.drawn(everything, 10**9).tolist()) == everything.tolist()


def test_the_whole_road_with_a_selection(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    (made / "road.toml").write_text(recipe_text(PERPLEXITY, name="road"))
    assert main(["prepare", "road.toml"]) == 0
    told = capsys.readouterr().out
    assert "Kept by score" in told
    assert "lowest perplexity (good)" in told
    assert main(["train", "road.toml"]) == 0
    plan: Plan = load_plan(RunFolder(made / "runs" / "road").plan)
    facts = plan.conduct.corpora["web"]
    capsys.readouterr()
    assert main(["trace", "road.toml", "--step", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert {row["document"] for row in rows} <= set(ids_of(facts))
    assert main(["train", "road.toml", "-o", "sources.web.keep.share=0.3"]) == 2
    assert "this run has begun under another plan" in capsys.readouterr().err


def test_held_out_text_in_a_reference_is_told(tmp_path: Path) -> None:
    """It would choose what is trained on, though no phase shows the reference."""
    folder = make_mixed_folder(tmp_path, copies=60)
    text = recipe_text(PERPLEXITY).replace(
        'role = "quality", held_out = 0.1',
        'role = "quality", held_out = 0.0, curate = { decontaminate = false }',
    )
    (folder / "recipe.toml").write_text(text)
    with pytest.raises(CorpusError, match="also held out by source 'web'") as caught:
        prepare_job(open_job(folder / "recipe.toml"), never)
    assert "would choose what is trained on" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda f: (f / "good.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n'),
            "training documents; 10 are the least that a reference is taken from",
        ),
        (
            lambda f: (f / "web.jsonl").write_text((f / "good.jsonl").read_text()),
            "0 of its documents are not the reference's",
        ),
    ],
)
def test_too_little_text_is_told(
    tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    folder = make_mixed_folder(tmp_path)
    change(folder)
    with pytest.raises(CorpusError, match=told):
        prepare_job(job_in(folder, CLASSIFIER), never)


def test_a_missing_scikit_learn_is_told_before_any_work(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    with pytest.raises(CorpusError, match=r"pip install 'rewarm\[classifier\]'"):
        facts_in(made, CLASSIFIER)


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ('keep = { share = 0.1, reference = "good" }', "give lowest, highest or nearest"),
        ('keep = { lowest = "base-loss" }', "give share or tokens"),
        ('keep = { lowest = "base-loss", share = 0.1, tokens = 5 }', "give share or tokens"),
        ('keep = { lowest = "perplexity", share = 0.1 }', "perplexity needs a reference"),
        ('keep = { lowest = "base-loss", share = 0.1, ngram = 3 }', "leave out ngram"),
        ('keep = { lowest = "perplexity", share = 1.0, reference = "good" }', "less than 1"),
        ('keep = { lowest = "perplexiti", share = 0.1 }', "perplexity"),
        ('keep = { lowest = "perplexity", share = 0.1, reference = "god" }', "no source is called"),
        ('keep = { lowest = "perplexity", share = 0.1, reference = "web" }', "its own reference"),
        (
            'keep = { highest = "classifier", share = 0.1, reference = "good", ngram = 2 }',
            "leave out ngram",
        ),
    ],
)
def test_what_a_recipe_says_wrongly_is_told(keep: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_recipe(recipe_text(keep))


def test_a_reference_keeps_all_of_itself() -> None:
    text = recipe_text(PERPLEXITY).replace(
        'role = "quality"', 'role = "quality", keep = { lowest = "base-loss", share = 0.5 }'
    )
    with pytest.raises(RecipeError, match="a reference is read whole"):
        parse_recipe(text)


def test_tags_of_what_is_kept_are_counted_and_no_others(tmp_path: Path) -> None:
    """Each document's kind is its language here: those of `unlike` are counted where all is kept,
    and not where the part that is like the reference is."""
    folder = make_mixed_folder(tmp_path / "f")
    rows = [json.loads(line) for line in (folder / "web.jsonl").read_text().splitlines()]
    for row in rows:
        row["kind"] = row["id"].partition("-")[0]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = 'language_field = "kind", licence_field = "id"'
    everything = prepare_job(job_in(folder, fields), MODEL_TOOLS)[0]
    assert set(everything.languages) == {"like", "unlike"}
    kept = prepare_job(job_in(folder, f"{fields}, {PERPLEXITY}"), MODEL_TOOLS)[0]
    assert kept.languages == {"like": kept.num_documents}
    assert kept.licences == dict.fromkeys(sorted(ids_of(kept)), 1)
    for path in Path(kept.folder).glob("shard-*.tags.jsonl"):
        path.write_text(path.read_text()[:-20])
    with pytest.raises(PlanError, match="tags do not fit its shards"):
        plan_job(job_in(folder, f"{fields}, {PERPLEXITY}"), estimates_allowed=True)
    assert prepare_job(job_in(folder, f"{fields}, {PERPLEXITY}"), MODEL_TOOLS)[0] == kept


def test_each_selection_has_bins_of_its_own(made: Path) -> None:
    """Packing what another share keeps leaves the bins that a plan was made with."""
    facts = facts_in(made, PERPLEXITY)
    planned = ensure_packing(facts, 32)
    for other in (facts_in(made, PERPLEXITY.replace("0.2", "0.5")), whole(made)):
        assert ensure_packing(other, 32).fingerprint != planned.fingerprint
    bins = open_bins(facts, 32, planned.fingerprint)
    assert bins.counts.sum() == facts.num_tokens - 1
