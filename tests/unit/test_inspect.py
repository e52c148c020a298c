"""`rewarm inspect`: what it shows of prepared text, by hand; nothing in a text acts on a reader."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewarm.cli import main
from rewarm.reporting.text import harmless
from tests.support.chat import give_chat_template
from tests.support.html_page import Page
from tests.support.tiny_models import SENTENCES, make_tiny_base

EVIL_ID = "evil\x1b]0;title\x07 [red]x"
EVIL = (
    "\x1b[31mred\x1b[0m \u202etxt\u202c <script>alert(1)</script> \x9b2J \x7f </pre>"
    " the end <img src=x onerror=alert(1)>"
)
# What a terminal obeys: control characters but line feed and tab, the second set of them too.
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
RECIPE = """
name = "look"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
sources.papers = { path = "papers.jsonl", role = "new", held_out = 0.1, \
keep = { lowest = "perplexity", share = 0.25, reference = "book" } }
sources.book = { path = "book.jsonl", role = "quality", licence_field = "licence" }
sources.talk = { path = "talk.jsonl", role = "new", format = "chat" }
batch = { tokens = 128, sequence_length = 32, packing = "best-fit" }
budget.tokens = "2k"
[[phases]]
name = "first"
weights = { papers = 0.5, book = 0.5 }
until = { fraction = 0.5 }
[[phases]]
name = "second"
weights = { papers = 0.5, talk = 0.5 }
"""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inspected_folder(tmp_path_factory.mktemp("inspect"))


def make_inspected_folder(place: Path) -> Path:
    """Prepare papers that are scored, a book and a chat, with a hostile document among them."""
    give_chat_template(make_tiny_base(place / "base"))
    words = " ".join(SENTENCES[:5]).split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size=rng.integers(3, 40))) for _ in range(300)]
    papers: list[dict[str, Any]] = [
        {"id": f"paper-{number}", "text": f"{text} {number}"} for number, text in enumerate(texts)
    ]
    papers.append({"id": EVIL_ID, "text": EVIL})
    papers += [{"id": "no text"}, {"id": "zero", "text": f"zero\x00 {EVIL}"}]
    write_lines(place / "papers.jsonl", papers)
    write_lines(
        place / "book.jsonl",
        [
            {"text": f"{text} in a book {number}", "licence": "\x1b[2Jfree"}
            for number, text in enumerate(texts[:80])
        ],
    )
    write_lines(
        place / "talk.jsonl",
        [
            {
                "messages": [
                    {"role": "user", "content": f"question {number}"},
                    {"role": "assistant", "content": f"answer {number}"},
                ]
            }
            for number in range(60)
        ],
    )
    (place / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    assert main(["prepare", str(place / "recipe.toml")]) == 0
    return place


class Shown:
    """Runs the verb and returns what it said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0, target: str = "recipe.toml") -> str:
        self._capsys.readouterr()
        given = ["inspect", str(self.folder / target), *arguments]
        assert main(given) == code, self._capsys.readouterr()
        told = self._capsys.readouterr()
        assert not ACTS.search(told.out + told.err)
        return told.err if code else told.out

    def json(self, *arguments: str, target: str = "recipe.toml") -> list[dict[str, Any]]:
        sources: list[dict[str, Any]] = json.loads(self(*arguments, "--json", target=target))[
            "sources"
        ]
        return sources


@pytest.fixture
def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> Shown:
    return Shown(folder, capsys)


def prepared(folder: Path, name: str) -> Path:
    return next((folder / "prepared").glob(f"{name}-*"))


def test_what_acts_is_made_visible_and_what_shows_stays() -> None:
    assert harmless("a\tb\nc é 東 🙂 👩‍🔬 \u200c") == "a\tb\nc é 東 🙂 👩‍🔬 \u200c"
    assert harmless("\x1b[2J\r\x07\x7f") == "␛[2J␍␇␡"
    assert harmless("\x9b\u202e\ufeff\ud800") == "⟨U+009B⟩⟨U+202E⟩⟨U+FEFF⟩⟨U+D800⟩"


def test_the_overview_has_ledger_lengths_and_selection(shown: Shown) -> None:
    said = shown()
    for wanted in ("Data ledger", "papers", "book", "talk", "missing_field 1", "nul 1"):
        assert wanted in said
    assert "Kept by score" in said
    assert "Lengths of documents" in said
    assert "␛[2Jfree" in said  # a licence that a document claims


def test_histograms_count_every_document_once(folder: Path, shown: Shown) -> None:
    source = shown.json("papers")[0]
    lengths, density, scores = source["histograms"]
    whole = source["facts"]["selection"]
    for one in (lengths, density, scores):
        assert sum(one["counts"]) == whole["of_documents"]
        assert sum(one["shares"]) == pytest.approx(1.0)
    assert sum(scores["kept"]) == source["facts"]["num_documents"]
    assert scores["cut_at"] == whole["worst"]
    stored = np.load(Path(whole["scores"]) / "scores.npy")
    kept_below = int((stored <= whole["worst"]).sum())
    assert sum(scores["kept"]) == kept_below


def test_a_bin_of_lengths_holds_what_its_edges_say(shown: Shown) -> None:
    source = shown.json("talk", "-n", "60")[0]
    (lengths, *_), documents = source["histograms"], source["documents"]
    sizes = [one["num_tokens"] for one in documents]
    assert len(sizes) == source["facts"]["num_documents"]
    for low, high, count in zip(
        lengths["edges"][:-1], lengths["edges"][1:], lengths["counts"], strict=True
    ):
        assert sum(low <= size < high for size in sizes) == count


def test_a_document_is_shown_whole_with_its_special_tokens(shown: Shown) -> None:
    said = shown("papers", "--document", "id:paper-7")
    document = shown.json("papers", "--document", "id:paper-7")[0]["documents"][0]
    assert "<s>" in said
    assert "</s>" in said
    assert document["id"] == "paper-7"
    text = "".join(piece["text"] for piece in document["pieces"] if not piece["is_special"])
    assert text.endswith(" 7")
    assert [p["text"] for p in document["pieces"] if p["is_special"]] == ["<s>", "</s>"]
    by_number = shown.json("papers", "--document", str(document["number"]))[0]["documents"][0]
    assert by_number == document


def test_control_characters_of_a_document_never_reach_the_terminal(shown: Shown) -> None:
    said = shown("papers", "--document", f"id:{EVIL_ID}")
    assert "evil␛]0;title␇ [red]x" in said  # neither escape nor markup
    assert "␛[31mred" in said
    assert "⟨U+009B⟩2J" in said


def test_neither_rejects_errors_nor_traces_let_them_through(
    folder: Path, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "zero" in shown("papers", "--rejects")
    assert "␛[2Jno.toml" in shown(code=2, target="\x1b[2Jno.toml")
    assert main(["plan", str(folder / "recipe.toml")]) == 0
    for step in range(8):
        assert main(["trace", str(folder / "recipe.toml"), "--step", str(step)]) == 0
    assert not ACTS.search(capsys.readouterr().out)


def test_a_trace_shows_ids_as_they_are(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"[red]{number}\x1b[2J", "text": "a text " * 20} for number in range(30)]
    write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "r.toml").write_text(
        f"""
name = "ids"
base = {{ path = "{folder / "base"}", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
sources.a = {{ path = "a.jsonl", role = "new", held_out = 0.0 }}
batch = {{ tokens = 64, sequence_length = 32 }}
budget.tokens = 640
""",
        encoding="utf-8",
    )
    recipe = str(tmp_path / "r.toml")
    assert main(["prepare", recipe]) == main(["plan", recipe]) == 0
    capsys.readouterr()
    assert main(["trace", recipe, "--step", "0"]) == 0
    assert re.search(r"\[red\]\d+␛\[2J", capsys.readouterr().out)


def test_a_script_in_a_document_is_text_on_the_page(folder: Path, shown: Shown) -> None:
    shown("papers", "--page", str(folder / "look.html"), "--document", f"id:{EVIL_ID}")
    html = (folder / "look.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "<script>alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not ACTS.search(html)
    tags = {tag for tag, _, _ in page.attributes}
    assert "img" not in tags
    assert not [value for _, name, value in page.attributes if name in ("src", "onerror")]
    assert "http" not in re.sub(r'xmlns="[^"]*"|http-equiv|http://www.w3.org/2000/svg', "", html)


def test_a_page_is_the_same_twice_and_another_seed_draws_others(folder: Path, shown: Shown) -> None:
    pages = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        shown("--page", str(folder / f"{name}.html"), "--seed", seed)
        pages.append((folder / f"{name}.html").read_text(encoding="utf-8"))
        Page(pages[-1])
    assert pages[0] == pages[1] != pages[2]


def test_labels_that_count_are_marked(shown: Shown) -> None:
    said = shown("talk", "--document", "0")
    assert re.search(r"users: question \d+\s*│?\s*assistants:⟦ answer \d+</s>⟧", said)
    pieces = shown.json("talk", "--document", "0")[0]["documents"][0]["pieces"]
    counted = "".join(piece["text"] for piece in pieces if piece["counted"])
    assert re.fullmatch(r" answer \d+</s>", counted)


@pytest.mark.parametrize("packing", ["contiguous", "best-fit"])
def test_windows_say_what_lies_in_them(shown: Shown, packing: str) -> None:
    given = ("talk", "--windows", "-n", "500", "--packing", packing, "--tokens", "99")
    windows = shown.json(*given)[0]["windows"]
    seen: dict[int, list[tuple[int, int]]] = {}
    for window in windows:
        held = sum(span["last"] - span["first"] for span in window["spans"])
        assert held + window["num_padding"] == 32
        if packing == "contiguous":
            assert window["num_padding"] == 0
        for span in window["spans"]:
            seen.setdefault(span["number"], []).append((span["first"], span["last"]))
            ids = shown_tokens(span)
            assert ids or span["last"] == span["first"]
    # Every token is in one window, and in no two.
    for spans in seen.values():
        ordered = sorted(spans)
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(ordered))
    assert "best-fit windows" in shown("talk", "--windows")


def shown_tokens(span: dict[str, Any]) -> str:
    return "".join(piece["text"] for piece in span["pieces"])


def test_a_phase_s_windows_are_those_that_trace_tells_of(
    folder: Path, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(folder / "recipe.toml")]) == 0
    windows = shown.json("papers", "--phase", "second", "-n", "4")[0]["windows"]
    assert len(windows) == 4
    for window in windows:
        capsys.readouterr()
        step = ["--step", str(window["step"]), "--json"]
        assert main(["trace", str(folder / "recipe.toml"), *step]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        of_window = [
            (row["document"], row["first"], row["last"])
            for row in rows
            if (row["source"], row["window"], row["epoch"])
            == ("papers", window["number"], window["epoch"])
        ]
        spans = [(span["id"], span["first"], span["last"]) for span in window["spans"]]
        assert of_window == spans


def test_scores_show_best_worst_and_the_cut(shown: Shown) -> None:
    source = shown.json("papers", "--scores")[0]
    values = {one["which"]: next(iter(one["scores"].values())) for one in source["examples"]}
    low, cut, high = (
        values[f"{which} perplexity (book)"] for which in ("lowest", "at the cut of", "highest")
    )
    stored = np.load(Path(source["facts"]["selection"]["scores"]) / "scores.npy")
    assert (low, high) == (stored.min(), stored.max())
    assert cut == source["facts"]["selection"]["worst"]
    kept = {one["which"]: one["is_kept"] for one in source["examples"]}
    assert list(kept.values()) == [True, True, False]


def test_held_out_documents_are_the_other_side(shown: Shown) -> None:
    held = shown.json("papers", "--held-out", "-n", "500")[0]
    trained = shown.json("papers", "-n", "500")[0]
    ids = [{one["id"] for one in side["documents"]} for side in (held, trained)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert len(ids[0]) == held["facts"]["held_out_documents"]
    said = shown("papers", "--document", f"id:{sorted(ids[0])[0]}", code=2)
    assert "with --held-out" in said


def test_a_document_that_is_dropped_is_said_to_be(shown: Shown) -> None:
    found = shown.json("book", "--rejects")[0]["rejects"]
    dropped = [one["where"] for one in found if one["reason"] == "contaminated:held-out"]
    assert dropped
    assert "is dropped" in shown("book", "--document", f"id:{dropped[0]}", code=2)


def test_a_prepared_folder_is_looked_at_by_itself(folder: Path, shown: Shown) -> None:
    place = prepared(folder, "papers").relative_to(folder)
    assert "tokens per byte" in shown(target=str(place))
    said = shown("--document", "id:paper-3", target=str(place))
    assert "<s>" in said  # the base is where `prepare` noted it
    assert shown.json("--windows", target=str(place))[0]["windows"]
    shown("--phase", "first", code=2, target=str(place))


def test_a_run_folder_is_looked_at(folder: Path, shown: Shown) -> None:
    assert main(["plan", str(folder / "recipe.toml")]) == 0
    one = shown.json("papers", "--document", "id:paper-3", target="runs/look")
    assert one[0]["documents"] == shown.json("papers", "--document", "id:paper-3")[0]["documents"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("paper",), "did you mean 'papers'"),
        (("papers", "--document", "999"), "from 0 to"),
        (("papers", "--document", "id:paper-x7"), "did you mean 'paper-"),
        (("--document", "3"), "papers, book, talk"),
        (("papers", "--window", "999"), "from 0 to"),
        (("papers", "--window", "-1"), "from 0 to"),
        (("papers", "--phase", "frist"), "did you mean 'first'"),
        (("talk", "--phase", "first"), "does not show source 'talk'"),
        (("papers", "--reason", "nol"), "did you mean 'nul'"),
        (("talk", "--reason", "nul"), "leave it out"),
        (("papers", "--windows", "--packing", "best"), "did you mean 'best-fit'"),
        (("papers", "--windows", "--length", "77"), "--packing contiguous"),
        (("book", "--windows", "--packing", "contiguous", "--length", "999999"), "shorter"),
        (("book", "--scores"), "not scored"),
        (("papers", "--held-out", "--windows"), "leave one of them out"),
        (("--json", "--page", "x.html"), "one of the two"),
    ],
)
def test_every_mistake_is_told_with_a_remedy(
    shown: Shown, arguments: tuple[str, ...], told: str
) -> None:
    assert told in shown(*arguments, code=2)


def test_folders_that_are_none_are_told(folder: Path, shown: Shown) -> None:
    said = shown(code=2, target="prepared")
    assert prepared(folder, "book").name in said
    shown(code=2, target="base")


def test_another_tokenizer_is_an_error_with_both_values(
    folder: Path, shown: Shown, tmp_path: Path
) -> None:
    from rewarm.corpus.tokenize import tokenizer_fingerprint

    other = make_tiny_base(tmp_path / "other", vocab_size=300)
    place = prepared(folder, "book").relative_to(folder)
    said = shown("--document", "0", "--tokenizer", str(other), code=2, target=str(place))
    for base in (folder / "base", other):
        assert tokenizer_fingerprint(base)[:12] in said


def test_what_prepare_refused_can_be_looked_at(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [{"text": f"text {number}"} for number in range(20)]
    write_lines(tmp_path / "bad.jsonl", [*rows, {"text": "\x00"}, {"body": EVIL}])
    (tmp_path / "recipe.toml").write_text(
        f"""
name = "bad"
base = {{ path = "{folder / "base"}", pretraining = {{ peak_lr = 1e-3, final_lr = 1e-4 }} }}
sources.bad = {{ path = "bad.jsonl", role = "new" }}
batch = {{ tokens = 128, sequence_length = 32 }}
budget.tokens = "2k"
""",
        encoding="utf-8",
    )
    assert main(["prepare", str(tmp_path / "recipe.toml")]) == 2
    shown = Shown(tmp_path, capsys)
    for arguments in ((), ("bad", "--rejects"), ("bad", "--reason", "missing_field")):
        said = shown(*arguments)
        assert "only what was rejected" in said
        assert "bad.jsonl:22" in said
    assert "run `rewarm prepare`" in shown("bad", "--document", "0", code=2)


def test_only_what_is_shown_is_read_of_the_tokens(
    folder: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: an overview touches no token, a document its first ones."""
    from rewarm.corpus.views import View

    read: list[int] = []
    whole = View.read_into

    def counted(self: View, out: Any, firsts: Any, counts: Any, places: Any) -> None:
        read.append(int(counts.sum()))
        whole(self, out, firsts, counts, places)

    monkeypatch.setattr(View, "read_into", counted)
    shown()
    assert read == []
    shown("papers", "-n", "2", "--tokens", "5")
    assert len(read) == 2
    assert max(read) <= 5
