"""Documents by language and quality: datatrove's own filters, wired by the recipe."""

from __future__ import annotations

import importlib.util
import inspect
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rewarm.cli import main
from rewarm.corpus.filters import curation_packages, open_filters
from rewarm.corpus.records import Document
from rewarm.corpus.views import open_view
from rewarm.planning.plan import Plan, load_plan
from rewarm.recipe.curate import C4Recipe, FineWebRecipe, GopherRecipe, RepetitionRecipe
from rewarm.recipe.sources import SourceRecipe
from tests.support.tiny_models import make_tiny_base

pytest.importorskip("datatrove")
pytest.importorskip("spacy")
pytest.importorskip("py3langid")

from datatrove.data import Document as TroveDocument
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

REPOSITORY = Path(__file__).resolve().parents[2]
TROVE: dict[str, Any] = {
    "gopher": GopherQualityFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
    "repetition": GopherRepetitionFilter,
}
GERMAN = (
    "Das ist ein deutscher Text, der lang genug ist, damit man die Sprache sicher erkennt. "
    "Er handelt von nichts, und das in ganzen Sätzen."
)
ENGLISH = (
    "This is the text that you have to read, and it is long enough that anybody can tell which "
    "language it was written in. "
) * 5


def real_texts() -> list[tuple[str, str]]:
    """Return this repository's pages and programs: prose, tables, lists and code."""
    paths = [*REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("src/rewarm/**/*.py")]
    paths += [REPOSITORY / "LICENSE", REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md"]
    texts = [(path.name, path.read_text(encoding="utf-8")[:20_000]) for path in sorted(paths)]
    parts = [
        (f"{name}#{n}", part) for name, text in texts for n, part in enumerate(text.split("\n## "))
    ]
    return [(name, text) for name, text in [*texts[::6], *parts[::4]] if text.strip()]


class Excluded:
    """What datatrove writes dropped documents with."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> Excluded:
        return self

    def __exit__(self, *raised: object) -> None: ...

    def write(self, document: Any, rank: int) -> None:
        self.reasons[document.id] = document.metadata["filter_reason"]


def source(**curate: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"path": "x.jsonl", "role": "new", "curate": curate})


@pytest.mark.parametrize("family", sorted(TROVE))
def test_documents_are_judged_as_by_datatrove_s_own_pipeline(family: str) -> None:
    excluded = Excluded()
    documents = [TroveDocument(text=text, id=name) for name, text in real_texts()]
    kept = TROVE[family](exclusion_writer=excluded).run(iter(documents))
    wanted = {document.id: document.text for document in kept}
    curate = {"repetition": True} if family == "repetition" else {"quality": family}
    filters = open_filters("s", source(**curate))
    assert filters is not None
    found: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, text in real_texts():
        judged = filters.judge(Document(name, text))
        if isinstance(judged, str):
            reasons[name] = judged.removeprefix(f"{family}:")
        else:
            found[name] = judged.text
    assert found == wanted
    assert reasons == {k: v.removeprefix(f"{family}_") for k, v in excluded.reasons.items()}
    assert len(found) > 5
    assert len(reasons) > 5


@pytest.mark.parametrize(
    ("recipe", "family"),
    [
        (GopherRecipe, "gopher"),
        (C4Recipe, "c4"),
        (FineWebRecipe, "fineweb"),
        (RepetitionRecipe, "repetition"),
    ],
)
def test_thresholds_are_datatrove_s_unless_they_are_given(recipe: Any, family: str) -> None:
    parameters = inspect.signature(TROVE[family].__init__).parameters
    wanted = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("self", "exclusion_writer", "language", "stop_chars")
    }
    found = recipe().model_dump()
    for name in ("top_n_grams", "dup_n_grams"):
        if name in found:
            found[name] = tuple(map(tuple, found[name]))
    assert found == wanted


def test_a_threshold_of_one_s_own_decides() -> None:
    text = Document("1", ENGLISH)
    for least, taken in ((5, True), (10_000, False)):
        filters = open_filters("s", source(quality="gopher", gopher={"min_doc_words": least}))
        assert filters is not None
        judged = filters.judge(text)
        assert (judged == text) is taken
        assert taken or judged == "gopher:short_doc"


def test_languages() -> None:
    filters = open_filters("s", source(language="en"))
    assert filters is not None
    assert filters.judge(Document("1", ENGLISH)) == Document("1", ENGLISH)
    assert filters.judge(Document("2", GERMAN)) == "language:de"
    both = open_filters("s", source(language=["en", "de"]))
    assert both is not None
    assert isinstance(both.judge(Document("2", GERMAN)), Document)
    sure = open_filters("s", source(language="en", language_score=0.9999))
    assert sure is not None
    assert sure.judge(Document("3", "return the value")) == "language:unsure"
    said = ({"role": "user", "content": GERMAN}, {"role": "assistant", "content": GERMAN})
    assert filters.judge(Document("4", "", messages=said)) == "language:de"


def test_nothing_to_judge_is_a_reason_and_no_fault() -> None:
    for curate in (
        {"quality": "fineweb", "fineweb": {"line_punct_thr": 0, "short_line_thr": 1}},
        {"quality": "gopher", "gopher": {"min_doc_words": 0}},
        {"quality": "c4"},
        {"repetition": True},
    ):
        filters = open_filters("s", source(**curate))
        assert filters is not None
        for text in ("   ", "…", "\u200b", "IS_ALPHA", "\n" * 50, "a" * 5000):
            judged = filters.judge(Document("1", text))
            assert isinstance(judged, Document) or ":" in judged


@pytest.mark.parametrize(
    ("curate", "told"),
    [
        ({"language": "english"}, "no language code"),
        ({"language": []}, "name one or several"),
        ({"language_score": 0.5}, "language_score goes with language"),
        ({"quality": "good"}, "'gopher', 'c4' or 'fineweb'"),
        ({"quality": ["gopher", "gopher"]}, "each once"),
        ({"gopher": {"min_doc_words": 5}}, 'quality = "gopher"'),
        ({"language": "de", "quality": "gopher"}, "English stop words"),
        ({"repetition": {"dup_n_grams": [[5, 1.5]]}}, "pairs of words"),
        ({"decontaminate": []}, "or write false"),
        ({"decontaminate": True}, "true is not what belongs here"),
    ],
)
def test_mistakes_are_told(curate: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        source(**curate)
    assert told in str(caught.value)


def test_text_filters_do_not_go_with_tokens_nor_c4_with_answers() -> None:
    fields: dict[str, Any] = {"path": "x", "role": "new", "format": "tokens"}
    with pytest.raises(ValidationError, match="not filtered by language or"):
        SourceRecipe.model_validate(fields | {"curate": {"language": "en"}})
    SourceRecipe.model_validate(fields | {"curate": {"decontaminate": ["tasks"]}})
    with pytest.raises(ValidationError, match="tear questions from answers"):
        SourceRecipe.model_validate(
            {"path": "x", "role": "new", "format": "chat", "curate": {"quality": "c4"}}
        )


def test_a_threshold_as_it_is_by_default_is_no_other_text() -> None:
    plain, spelled = (
        source(quality="gopher"),
        source(quality=["gopher"], gopher={"min_stop_words": 2}),
    )
    assert plain.curate.text_settings() == spelled.curate.text_settings()
    other = source(quality="gopher", gopher={"min_stop_words": 1})
    assert plain.curate.text_settings() != other.curate.text_settings()
    assert source(decontaminate=False).curate.text_settings() == {}


def test_what_is_needed() -> None:
    assert curation_packages(source().curate) == ()
    assert curation_packages(source(language="en").curate) == ("py3langid",)
    assert set(curation_packages(source(language="en", language_model="ft176").curate)) == {
        "datatrove",
        "fasttext",
    }


ANY = ("-o", "sources.web.curate.gopher.min_stop_words=0")


# --- the road -----------------------------------------------------------------------------------

RECIPE = """\
name = "r"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = 20_000 }
batch = { tokens = 512, sequence_length = 64 }
phases = [{ name = "a", weights = { web = 1.0 } }]
[sources.web]
path = "web.jsonl"
role = "new"
held_out = 0.1
[sources.web.curate]
language = "en"
quality = "gopher"
repetition = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_tiny_base(tmp_path / "base")
    rng = random.Random(0)
    words = [
        "the",
        "of",
        "and",
        "to",
        "that",
        "have",
        "with",
        "be",
        "water",
        "people",
        "under",
        "every",
        "light",
        "some",
        "between",
    ]
    rows = [(f"good{i}", " ".join(rng.choices(words, k=90)) + ".") for i in range(60)]
    rows += [(f"de{i}", f"{GERMAN} Und Nummer {i}.") for i in range(20)]
    rows += [(f"short{i}", f"this is what you have to read, and {i}") for i in range(15)]
    rows += [("again", "\n\n".join([f"{ENGLISH[:90]}."] * 20))]
    (tmp_path / "web.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in rows)
    )
    (tmp_path / "r.toml").write_text(RECIPE + "[sources.web.curate.gopher]\nmin_doc_words = 20\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(folder: Path, *overrides: str) -> Plan:
    given = [part for override in overrides for part in ("-o", override)]
    assert main(["plan", "r.toml", *given]) == 0
    return load_plan(folder / "runs" / "r" / "plan.json")


def test_what_is_left_out_is_counted_kept_to_be_looked_at_and_no_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = plan_of(folder).conduct.corpora["web"]
    assert any("are left out (language:de 20," in warning for warning in estimate.warnings)
    assert main(["prepare", "r.toml"]) == 0
    told = capsys.readouterr().out
    assert "language:de 20" in told
    facts = plan_of(folder).conduct.corpora["web"]
    families = Counter[str]()
    for reason, count in facts.rejected.items():
        families[reason.partition(":")[0]] += count
    assert families["language"] >= 20
    assert facts.rejected["gopher:short_doc"] == 15
    view, held_out = open_view(facts), open_view(facts, held_out=True)
    ids = {v.document_id(i) for v in (view, held_out) for i in range(v.num_documents)}
    assert ids <= {f"good{i}" for i in range(60)}
    assert len(ids) + sum(facts.rejected.values()) == 96
    assert abs(estimate.num_tokens - facts.num_tokens) < 0.2 * facts.num_tokens
    rejects = [
        json.loads(line) for line in (Path(facts.folder) / "rejects.jsonl").read_text().splitlines()
    ]
    assert {
        "where": "de0",
        "reason": "language:de",
        "excerpt": f"{GERMAN} Und Nummer 0.",
    } in rejects


def test_a_filter_makes_other_tokens_and_decontamination_does_not(folder: Path) -> None:
    first = plan_of(folder).conduct.corpora["web"].key
    assert (
        plan_of(folder, "sources.web.curate.decontaminate=false").conduct.corpora["web"].key
        == first
    )
    assert (
        plan_of(folder, "sources.web.curate.repetition=false").conduct.corpora["web"].key != first
    )


def test_a_source_of_which_nothing_is_left_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "r.toml", "-o", 'sources.web.curate.language="fr"', *ANY]) == 2
    told = capsys.readouterr().err
    assert "no document could be taken" in told
    assert "set its curate accordingly" in told


def test_an_unknown_language_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "r.toml", "-o", 'sources.web.curate.language="qq"', *ANY]) == 2
    assert "py3langid does not know qq" in capsys.readouterr().err


def test_a_package_that_is_missing_is_told_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "spacy" else find_spec(name),
    )
    assert main(["plan", "r.toml"]) == 2
    told = capsys.readouterr().err
    assert "sources.web.curate: it needs what is not installed: spacy" in told
    assert "rewarm[curate]" in told


def test_nothing_of_datatrove_is_loaded_where_no_filter_asks_for_it() -> None:
    import subprocess

    code = (
        "import sys, rewarm.corpus.prepare, rewarm.stages.curating;"
        "print(sorted({'datatrove', 'spacy', 'py3langid', 'multiprocess'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
