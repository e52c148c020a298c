"""Local multiple choice: files in every spelling, mistakes with their lines, the figure."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from rewarm.errors import CorpusError
from rewarm.evaluation.tasks import TaskItem, multiple_choice, read_task
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
        ("long.jsonl", b"x" * (2 << 20), "longer than 1 MiB"),
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
