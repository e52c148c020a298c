"""What is kept of where text comes from: fields mapped, languages and licences counted, rejects."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from rewarm.corpus.inputs import resolve_inputs
from rewarm.corpus.place import SourceText, load_facts
from rewarm.corpus.prepare import prepare_source
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.errors import CorpusError
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.stages.console import ledger_table


def recipe(path: str, **fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"path": path, "role": "new", "held_out": 0.0, **fields})


def text_of(folder: Path, base: Path, source: SourceRecipe) -> SourceText:
    inputs = resolve_inputs("s", source, folder)
    return SourceText("s", source, inputs, folder, base, TokenizerRecipe())


def prepare(folder: Path, base: Path, source: SourceRecipe) -> CorpusFacts:
    text = text_of(folder, base, source)
    return prepare_source(text, prepared_root=folder / "prepared", vocab_size=320)


ROWS = [
    {"body": f"text number {n}", "lang": ("de", "en")[n % 3 == 0], "lic": "CC0" if n < 9 else None}
    for n in range(12)
]
FIELDS = {"text_field": "body", "language_field": "lang", "licence_field": "lic"}


def write(folder: Path, kind: str) -> str:
    if kind == "jsonl":
        (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "csv":
        lines = [f"{row['body']},{row['lang']},{row['lic'] or ''}\n" for row in ROWS]
        (folder / "a.csv").write_text("body,lang,lic\n" + "".join(lines))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    return f"a.{kind}"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tags_are_counted_by_document(tmp_path: Path, tiny_base: Path, kind: str) -> None:
    source = recipe(write(tmp_path, kind), **FIELDS)
    facts = prepare(tmp_path, tiny_base, source)
    assert facts.languages == {"de": 8, "en": 4}
    assert facts.licences == {"CC0": 9, "not said": 3}
    assert facts.stated_licence == "CC0 (9), not said (3)"
    relabelled = source.model_copy(update={"licence": "mixed, see NOTICE", "language": "German"})
    again = load_facts(text_of(tmp_path, tiny_base, relabelled), tmp_path / "prepared")
    assert again is not None
    assert (again.key, again.stated_licence) == (facts.key, "mixed, see NOTICE")
    assert again.stated_language == "German"
    console = Console(width=100, file=io.StringIO())
    console.print(ledger_table([facts]))
    assert "s: de (8), en (4); CC0 (9), not said (3)" in console.file.getvalue()  # type: ignore[attr-defined]


def test_only_what_is_trained_on_is_counted(tmp_path: Path, tiny_base: Path) -> None:
    facts = prepare(tmp_path, tiny_base, recipe(write(tmp_path, "jsonl"), **FIELDS, held_out=0.4))
    assert sum(facts.languages.values()) == facts.num_documents < len(ROWS)


def test_a_field_full_of_different_tags_stays_a_short_table(
    tmp_path: Path, tiny_base: Path
) -> None:
    rows = [{"text": f"text {n}", "lic": f"licence {n} " + "x" * 500} for n in range(500)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = prepare(tmp_path, tiny_base, recipe("a.jsonl", licence_field="lic"))
    assert len(facts.licences) == 201
    assert facts.licences["others"] == 300
    assert max(map(len, facts.licences)) <= 64


def test_a_table_without_the_named_field_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="no column 'lang'"):
        list(
            read_documents(
                tmp_path / "a.parquet", recipe("a.parquet", language_field="lang"), Rejections()
            )
        )


def test_what_was_not_taken_can_be_looked_at(tmp_path: Path, tiny_base: Path) -> None:
    """Some of each reason with how it begins; a megabyte of it is not kept."""
    good = [{"text": f"text {n}"} for n in range(4000)]
    lines = [json.dumps(row) for row in good] + ['{"text": ' + "x" * 10**6] + ['{"other": 1}'] * 30
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    facts = prepare(tmp_path, tiny_base, recipe("a.jsonl"))
    assert facts.rejected == {"malformed_json": 1, "missing_field": 30}
    path = Path(facts.folder) / "rejects.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["where"] for row in found[:2]] == ["a.jsonl:4001", "a.jsonl:4002"]
    assert sum(row["reason"] == "missing_field" for row in found) == 20
    assert len(found[0]["excerpt"]) == 500
    assert found[0]["excerpt"].startswith('{"text": xxx')


def test_where_too_much_is_rejected_the_message_says_where_to_look(
    tmp_path: Path, tiny_base: Path
) -> None:
    lines = [json.dumps({"text": f"text {n}"}) for n in range(20)] + ["{", "{"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(CorpusError, match=r"above 1 %.*\n.*some of them are in (\S+)") as caught:
        prepare(tmp_path, tiny_base, recipe("a.jsonl"))
    path = str(caught.value).rpartition("some of them are in ")[2].strip()
    assert [json.loads(line)["where"] for line in Path(path).read_text().splitlines()] == [
        "a.jsonl:21",
        "a.jsonl:22",
    ]


def test_an_excerpt_of_a_row_is_text_whatever_it_holds() -> None:
    rejections = Rejections()
    rejections.add("x", "here", {"a": b"\xff" * 9999, "b": "\ud800", "c": [1] * 10**6, "d": None})
    (kept,) = rejections.kept
    kept.excerpt.encode("utf-8")
    assert len(kept.excerpt) <= 600
