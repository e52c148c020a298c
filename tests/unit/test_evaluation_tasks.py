"""Local multiple choice: files in every spelling, mistakes with their lines, the figure."""

import codecs
import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from rewarm.errors import CorpusError
from rewarm.evaluation.tasks import (
    ClozeItem,
    MinimalPair,
    TaskItem,
    cloze,
    cloze_bits_per_byte,
    minimal_pairs,
    multiple_choice,
    read_cloze,
    read_pairs,
    read_task,
)
from tests.support.held_out import FRAMING, byte_tokenizer

ITEMS = [
    TaskItem("What is red?", ("blood", "grass"), 0),
    TaskItem("What is cold?", ("fire", "ice", "the sun", "a stove"), 1),
]


def as_lines(items: list[TaskItem]) -> bytes:
    return b"\n".join(json.dumps(item._asdict()).encode() for item in items) + b"\n\n"


def test_plain_gzip_and_zstandard_files_hold_the_same(tmp_path: Path) -> None:
    data = as_lines(ITEMS)
    frames = [zstandard.ZstdCompressor().compress(part) for part in (data[:50], data[50:])]
    (tmp_path / "task.jsonl").write_bytes(data)
    (tmp_path / "with-a-mark.jsonl").write_bytes(codecs.BOM_UTF8 + data)
    (tmp_path / "task.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "task.jsonl.zst").write_bytes(b"".join(frames))
    for path in tmp_path.iterdir():
        assert read_task(path) == ITEMS
        assert read_task(path, max_items=1) == ITEMS[:1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "not an object"),
        ('{"choices": ["a", "b"], "answer": 0}', "question is not a text"),
        ('{"question": "q", "choices": ["a"], "answer": 0}', "two or more"),
        ('{"question": "q", "choices": "ab", "answer": 0}', "two or more"),
        ('{"question": "q", "choices": ["a", " "], "answer": 0}', "a choice is not a text"),
        ('{"question": "q", "choices": ["a", "\\ud800"], "answer": 0}', "a choice is not a text"),
        ('{"question": "q", "choices": ["a", "b"], "answer": 2}', "answer is 2, not the index"),
        ('{"question": "q", "choices": ["a", "b"], "answer": -1}', "answer is -1"),
        ('{"question": "q", "choices": ["a", "b"], "answer": true}', "answer is True"),
        ('{"question": "q", "choices": ["a", "b"], "answer": "A"}', "answer is 'A'"),
        ('{"question": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_malformed_item_is_named_by_file_and_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "task.jsonl"
    path.write_bytes(as_lines(ITEMS) + line.encode() + b"\n")
    with pytest.raises(CorpusError, match=message) as caught:
        read_task(path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:4"]
    assert "line" not in caught.value.problems[0].what, "the file's line is told once"


def test_the_first_five_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text("{}\n" * 100)
    with pytest.raises(CorpusError) as caught:
        read_task(path)
    assert [problem.where for problem in caught.value.problems] == [
        f"{path}:{number}" for number in range(1, 6)
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.jsonl", b"\n\n", "holds no items"),
        (
            "long.jsonl",
            b"{}\n" + b"x" * (2**26 + 1),
            r"long\.jsonl:2: the line is longer than 64 MiB",
        ),
        ("cut.jsonl.gz", gzip.compress(b"\n" * 1000)[:-10], "cannot be read"),
        ("plain.jsonl.gz", b"{}\n", "cannot be read"),
        ("plain.jsonl.zst", b"{}\n", "cannot be read"),
        (".", b"", "cannot be read"),
        ("missing.jsonl", b"", "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    if data:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=message):
        read_task(tmp_path / name, max_items=2000)


def test_the_remedy_is_that_of_what_refuses_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remedy(path: Path) -> str:
        with pytest.raises(CorpusError) as caught:
            read_task(path)
        (problem,) = caught.value.problems
        return problem.fix

    path = "check the path: a relative one counts from the folder of the file that names it"
    assert remedy(tmp_path / "missing.jsonl") == path
    (tmp_path / "file").write_text("")
    assert remedy(tmp_path / "file" / "within.jsonl") == path
    assert remedy(tmp_path / ("long" * 100)) == path
    assert remedy(tmp_path) == "give a file: this is a folder"
    (tmp_path / "loop").symlink_to("loop")
    assert remedy(tmp_path / "loop") == "mend the link: it leads back to itself"
    (tmp_path / "plain.jsonl.gz").write_text("{}\n")
    whole = "check that it is whole (fetch it again if it was copied)"
    assert remedy(tmp_path / "plain.jsonl.gz") == whole

    def closed(path: Path, mode: str) -> None:  # root reads everything
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", closed)
    assert remedy(tmp_path / "file") == "check its permissions"


def test_choices_are_scored_per_byte_against_the_mean_chance() -> None:
    measure, warnings = multiple_choice(
        ITEMS, domain="colours", tokenizer=byte_tokenizer(), framing=FRAMING
    )
    assert measure is not None
    assert warnings == ()
    assert [passage.num_scored for passage in measure.passages] == [6, 6, 5, 4, 8, 8]
    # "ice" has the fewest nats, but "the sun" the fewest per byte
    nats = np.array([6.0, 12.0, 10.0, 6.0, 8.0, 16.0])
    record = measure.record(nats, step=2, seconds=0.0)
    assert record.item_values == (1.0, 0.0)
    assert record.chance == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert (record.value, record.role) == (0.5, "task")
    ties = measure.record(np.array([6.0, 6.0, 5.0, 4.0, 8.0, 8.0]), step=2, seconds=0.0)
    assert ties.item_values == (0.5, 0.25)


def test_each_normalisation_is_what_it_says() -> None:
    """One question whose three choices win under one normalisation each, worked by hand."""
    # " aaaa" has 5 bytes and tokens, " bb" 3, " c" 2.
    items = [TaskItem("Which?", ("aaaa", "bb", "c"), 0)]
    with_context = np.array([10.0, 7.0, 6.0])  # per byte: 2, 7/3, 3
    alone = np.array([9.0, 12.0, 3.0])  # what context gains: -1, 5, -3

    def chosen(normalise: str, nats: np.ndarray) -> int:
        picked = []
        for answer in range(3):
            asked = [items[0]._replace(answer=answer)]
            measure = multiple_choice(
                asked,
                domain="abc",
                tokenizer=byte_tokenizer(),
                framing=FRAMING,
                normalise=normalise,  # type: ignore[arg-type]
            ).measure
            assert measure is not None
            assert len(measure.passages) == len(nats)
            picked.append(measure.record(nats, step=0, seconds=0.0).value)
        assert sum(picked) == 1.0
        return picked.index(1.0)

    assert chosen("bytes", with_context) == 0
    assert chosen("tokens", with_context) == 0
    assert chosen("none", with_context) == 2
    assert chosen("unconditional", np.concatenate([with_context, alone])) == 1


def test_a_cloze_is_right_where_no_token_of_the_target_is_missed() -> None:
    items = [ClozeItem("The sky is ", "blue"), ClozeItem("Grass is", " green")]
    measure = cloze(items, domain="last", tokenizer=byte_tokenizer(), framing=FRAMING).measure
    assert measure is not None
    assert measure.counts == "misses"
    # One space stands between text and target, however they were written.
    assert [passage.num_scored for passage in measure.passages] == [5, 6]
    record = measure.record(np.array([0.0, 1.0]), step=3, seconds=0.0)
    assert (record.value, record.item_values, record.metric) == (0.5, (1.0, 0.0), "cloze")
    bits = cloze_bits_per_byte(
        items, domain="last", tokenizer=byte_tokenizer(), framing=FRAMING
    ).measure
    assert bits is not None
    assert bits.weights == (5, 6)
    value = bits.record(np.log(2) * np.array([5.0, 12.0]), step=3, seconds=0.0).value
    assert value == pytest.approx(17 / 11)


def test_of_a_pair_the_whole_sentences_are_compared_and_ties_count_a_half() -> None:
    pairs = [MinimalPair("she runs", "she run"), MinimalPair("a b", "b a"), MinimalPair("x", "y")]
    measure = minimal_pairs(
        pairs, domain="grammar", tokenizer=byte_tokenizer(), framing=FRAMING
    ).measure
    assert measure is not None
    assert [passage.num_scored for passage in measure.passages] == [8, 7, 3, 3, 1, 1]
    record = measure.record(np.array([8.0, 9.0, 4.0, 3.0, 2.0, 2.0]), step=0, seconds=0.0)
    assert record.item_values == (1.0, 0.0, 0.5)
    assert (record.chance, record.metric) == (0.5, "minimal_pairs")


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (read_cloze, '{"text": "a"}', "target is not a text"),
        (read_cloze, '{"text": " ", "target": "b"}', "text is not a text"),
        (read_pairs, '{"good": "a", "bad": "a"}', "the same sentence"),
        (read_pairs, '{"good": "a"}', "bad is not a text"),
        (read_pairs, "[]", "not an object"),
    ],
)
def test_malformed_cloze_items_and_pairs_are_named(
    tmp_path: Path, read: Callable[[Path], object], line: str, message: str
) -> None:
    (tmp_path / "items.jsonl").write_text(f"{line}\n")
    with pytest.raises(CorpusError, match=message):
        read(tmp_path / "items.jsonl")


def test_cloze_items_and_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"text": "a", "target": "b", "id": 1}\n{"text": "c", "target": "d"}\n')
    assert read_cloze(path) == [ClozeItem("a", "b"), ClozeItem("c", "d")]
    path.write_text('{"good": "a", "bad": "b", "paradigm": "p"}\n')
    assert read_pairs(path) == [MinimalPair("a", "b")]


@pytest.mark.parametrize(
    ("choices", "answer", "told"),
    [
        ('["a", "a"]', "0", "the answer's text stands among the wrong choices too"),
        ('["a", "b"]', "9" * 5000, "a number has thousands of digits"),
    ],
)
def test_what_no_item_can_be_is_told_with_file_and_line(
    choices: str, answer: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "task.jsonl"
    good = '{"question": "q", "choices": ["a", "b"], "answer": 0}'
    bad = f'{{"question": "q", "choices": {choices}, "answer": {answer}}}'
    path.write_text(f"{good}\n{bad}\n")
    with pytest.raises(CorpusError) as raised:
        read_task(path)
    assert f"{path}:2: {told}" in str(raised.value)
    assert "set_int_max_str_digits" not in str(raised.value)
    path.write_text('{"question": "q", "choices": ["a", "b", "b"], "answer": 0}\n')
    assert read_task(path)[0].choices == ("a", "b", "b")  # as some of ARC's questions are
