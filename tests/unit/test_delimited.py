"""What is read from csv and tsv, what is rejected and counted, and what stops at a file."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.corpus.streams import Caps
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe


def source(**fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"path": "*", "role": "new", **fields})


def read(path: Path, recipe: SourceRecipe, **caps: Any) -> tuple[list[str], Rejections]:
    rejections = Rejections()
    found = [d.text for d, _ in read_documents(path, recipe, rejections, Caps(**caps))]
    return found, rejections


def test_quotes_commas_and_lines_within_fields(tmp_path: Path) -> None:
    """By hand, from RFC 4180: quotes doubled, line ends of both kinds, blank lines between."""
    raw = 'id,text\r\n1,plain\r\n2,"a, b"\r\n\r\n3,"say ""hi"""\r\n4,"two\r\nlines"\r\n5,"last"'
    (tmp_path / "a.csv").write_bytes(raw.encode())
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(raw.encode()))
    for name in ("a.csv", "a.csv.gz"):
        found, rejections = read(tmp_path / name, source())
        assert found == ["plain", "a, b", 'say "hi"', "two\r\nlines", "last"]
        assert not rejections.counts


def test_a_mark_before_the_first_line_is_the_spreadsheet_s(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext\none\n\xef\xbb\xbftwo\n")
    found, rejections = read(tmp_path / "a.csv", source())
    assert found == ["one"]
    assert rejections.counts == {"bom": 1}


def test_bad_records_are_counted_and_reading_goes_on(tmp_path: Path) -> None:
    lines = [
        b"id,text",
        b"1,good",
        b"2,one,two",
        b"3",
        b'4,"closed"too early',
        b"5,\xff\xfe",
        b"6,nul\x00",
        b"7,",
        b'8,"' + b"x" * 3000 + b'"',
        b"9," + b"y" * 3000,
        b"10,also good",
    ]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines) + b"\n")
    found, rejections = read(tmp_path / "a.csv", source(), line_bytes=2000)
    assert found == ["good", "also good"]
    assert rejections.counts == {
        "wrong_number_of_fields": 2,
        "malformed_csv": 1,
        "invalid_utf8": 1,
        "nul": 1,
        "empty": 1,
        "line_too_long": 2,
    }
    kept = {(reject.where, reject.reason): reject.excerpt for reject in rejections.kept}
    assert kept["a.csv:3", "wrong_number_of_fields"] == "2,one,two\n"
    assert kept["a.csv:5", "malformed_csv"] == '4,"closed"too early\n'


def test_a_quote_that_is_never_closed_swallows_no_more_than_the_cap(tmp_path: Path) -> None:
    rows = b"".join(b"%d,fine\n" % number for number in range(1000))
    (tmp_path / "a.csv").write_bytes(b'id,text\n0,"open\n' + rows)
    found, rejections = read(tmp_path / "a.csv", source(), line_bytes=500)
    assert rejections.counts == {"line_too_long": 1}
    assert 900 < len(found) < 1000
    assert set(found) == {"fine"}
    found, rejections = read(tmp_path / "a.csv", source())
    assert (found, rejections.counts) == ([], {"malformed_csv": 1})


def test_many_short_fields_on_many_lines_are_capped_together(tmp_path: Path) -> None:
    """Each field is far below csv's own limit; together they would be one record without end."""
    (tmp_path / "a.csv").write_bytes(b"text\n" + b'"a\nb",' * 5000 + b"end\nafter\n")
    found, rejections = read(tmp_path / "a.csv", source(), line_bytes=1000)
    assert found[-1] == "after"
    assert rejections.counts["line_too_long"] >= 1


def test_a_field_of_a_gigabyte_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"text\n")
        file.seek(10**9)
        file.write(b"\nafter\n")
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, rejections = read(path, source(), line_bytes=2**20)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (found, rejections.counts) == (["after"], {"line_too_long": 1})
    assert grown_kib < 100 * 1024


def test_tabs_other_delimiters_and_quotes_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\ttext\n1\ta, "b"\n2\t"c\td"\n')
    assert read(tmp_path / "a.tsv", source())[0] == ['a, "b"', "c\td"]
    (tmp_path / "b.tsv").write_text('id\ttext\n1\t"never closed\n2\tafter\n')
    assert read(tmp_path / "b.tsv", source(csv={"quoted": False}))[0] == ['"never closed', "after"]
    (tmp_path / "c.csv").write_text("id;text\n1;one\n")
    assert read(tmp_path / "c.csv", source(csv={"delimiter": ";"}))[0] == ["one"]
    (tmp_path / "d.data").write_text("1\tone\n")
    recipe = source(format="csv", csv={"delimiter": "\t", "columns": ["id", "text"]})
    assert read(tmp_path / "d.data", recipe)[0] == ["one"]


def test_columns_that_do_not_serve_are_told_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,one\n")
    with pytest.raises(CorpusError, match=r"no column 'text'; its columns: 'id, body'"):
        read(tmp_path / "a.csv", source())
    (tmp_path / "b.csv").write_text("text,text\n1,one\n")
    with pytest.raises(CorpusError, match=r"several columns 'text'"):
        read(tmp_path / "b.csv", source())
    (tmp_path / "c.csv").write_text("")
    assert read(tmp_path / "c.csv", source())[0] == []


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text('ab",\n\r\t ü', max_size=8), st.text('xy",\n\t', max_size=5)),
        max_size=8,
    )
)
def test_what_python_writes_is_what_is_read(rows: list[tuple[str, str]]) -> None:
    """Whatever csv.writer writes comes back; only what is blank is left out."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "other"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(stream.getvalue().encode())
        found, rejections = read(path, source())
    assert found == [text for text, _ in rows if text.strip()]
    assert set(rejections.counts) <= {"empty"}
