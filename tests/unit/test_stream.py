"""Streams: scenario, memories, metrics and the verb, on small made-up images and texts."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from rewarm.cli import main
from rewarm.errors import CorpusError, RecipeError
from rewarm.stream.course import Progress, run_record
from rewarm.stream.experiment import read_stream
from rewarm.stream.memory import ClassBalanced, Reservoir
from rewarm.stream.metrics import Look, metrics_of
from rewarm.stream.scenario import Scenario, deal_classes, hold_out
from rewarm.stream.sections import SourceRecipe
from rewarm.stream.source import read_examples
from tests.support.streams import EXPERIMENT, Image, png, write_images

_SHIPPED = sorted((Path(__file__).parents[2] / "reproduction" / "streams").glob("*.toml"))

# --- metrics, by numbers worked by hand ---


def test_metrics_by_hand() -> None:
    matrix = [[0.9], [0.6, 0.8], [0.7, 0.4, 1.0]]
    looks = [
        Look(1, 10, {0: 0.3}),
        Look(1, 20, {0: 0.5}),
        Look(2, 10, {0: 0.65, 1: 0.2}),
    ]
    found = metrics_of(matrix, looks)
    assert found.final == pytest.approx(0.7)  # (0.7 + 0.4 + 1.0) / 3
    assert found.forgetting == pytest.approx(0.3)  # (0.9 − 0.7 + 0.8 − 0.4) / 2
    assert found.bwt == pytest.approx(-0.3)  # (0.7 − 0.9 + 0.4 − 0.8) / 2
    assert found.min_acc == pytest.approx(0.25)  # (0.3 + 0.2) / 2
    assert found.wc_acc == pytest.approx(0.5)  # 1.0 / 3 + 2/3 · 0.25
    # task 2: 0.9 − 0.3; task 3: max(0, 0.6 − 0.65 …) = 0.6 − 0.65 < 0 → 0, and 0.8 − 0.2
    assert found.stability_gap == pytest.approx((0.6 + 0.0 + 0.6) / 3)


def test_forgetting_does_not_take_the_end_as_the_best() -> None:
    assert metrics_of([[0.5], [0.75, 1.0]], []).forgetting == pytest.approx(-0.25)


def test_forgetting_is_from_the_best_accuracy() -> None:
    matrix = [[0.5], [0.9, 1.0], [0.4, 1.0, 1.0]]
    assert metrics_of(matrix, []).forgetting == pytest.approx(0.25)  # (0.9 − 0.4 + 1 − 1) / 2


def test_the_worst_of_a_task_is_after_its_own_end() -> None:
    """What gets better with later tasks was never as bad as when it was learned (De Lange 2023)."""
    found = metrics_of([[0.5], [0.75, 1.0]], [Look(1, 10, {0: 0.6})])
    assert found.min_acc == pytest.approx(0.6)
    assert found.wc_acc == pytest.approx(1.0 / 2 + 0.6 / 2)


def test_without_looks_nothing_is_said_of_the_worst_case() -> None:
    assert metrics_of([[1.0], [0.0, 1.0]], [])[3:] == (None, None, None)


def test_what_was_before_a_second_stage_counts_among_the_worst() -> None:
    matrix = [[0.9], [0.1, 0.8]]
    names = {"backbone": "a", "learner": "b"}
    progress = Progress(2, 0, 20, matrix, [Look(1, 5, {0: 0.5})])
    found = run_record(names, 1, progress, [0.7, 0.6], 0.0)
    assert found.metrics["min_acc"] == pytest.approx(0.1)
    assert found.metrics["wc_acc"] == pytest.approx(0.6 / 2 + 0.1 / 2)
    assert found.metrics["stability_gap"] == pytest.approx(0.9 - 0.1)
    assert found.metrics["forgetting"] == pytest.approx(0.2)  # after the second stage
    progress.looks.clear()
    assert run_record(names, 1, progress, [0.7, 0.6], 0.0).metrics["min_acc"] is None


# --- scenario ---


def test_classes_are_dealt_once_and_by_the_seed() -> None:
    tasks = deal_classes(11, 4, seed=1)
    assert sorted(label for part in tasks for label in part) == list(range(11))
    assert [len(part) for part in tasks] == [3, 3, 3, 2]
    assert tasks == deal_classes(11, 4, seed=1)
    assert tasks != deal_classes(11, 4, seed=2)


def test_more_tasks_than_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 classes cannot be dealt into 4 tasks"):
        deal_classes(3, 4, seed=0)


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_each_pass_shows_each_training_example_of_the_task_once(num_epochs: int) -> None:
    labels = np.repeat(np.arange(4), 10)
    scenario = Scenario(
        labels, hold_out(labels.tolist(), 0.2), ((0, 2), (1, 3)), 7, num_epochs, batch=3
    )
    batches = list(scenario.batches_of(1))
    shown = np.concatenate(batches)
    assert np.bincount(shown, minlength=40)[scenario.train_of(1)].tolist() == [num_epochs] * 16
    assert len(shown) == 16 * num_epochs
    again = np.concatenate(list(scenario.batches_of(1)))
    assert shown.tolist() == again.tolist()
    if num_epochs > 1:
        assert shown[:16].tolist() != shown[16:32].tolist()


def test_hold_out_takes_its_share_of_each_class() -> None:
    labels = [0] * 10 + [1] * 2
    assert [int(hold_out(labels, 0.3)[:10].sum()), int(hold_out(labels, 0.3)[10:].sum())] == [3, 1]


# --- memories ---


def test_a_reservoir_keeps_every_example_equally_often() -> None:
    counts = np.zeros(6)
    for seed in range(3000):
        memory, generator = Reservoir(2), np.random.default_rng(seed)
        for index in range(6):
            memory.offer(index, 0, generator)
        assert len(set(memory.kept().tolist())) == 2
        counts[memory.kept()] += 1
    # 3,000 draws of probability 1/3: standard deviation 25.8, five of them
    assert np.abs(counts - 1000).max() < 130


def test_a_balanced_memory_makes_room_for_a_new_class() -> None:
    memory, generator = ClassBalanced(6), np.random.default_rng(0)
    for index in range(100):
        memory.offer(index, 0, generator)
    for index in range(100, 104):
        memory.offer(index, 1, generator)
    for index in range(200, 203):
        memory.offer(index, 2, generator)
    kept = memory.kept()
    assert [int(((kept >= a) & (kept < a + 100)).sum()) for a in (0, 100, 200)] == [2, 2, 2]


# --- sources ---


def test_parquet_and_a_folder_hold_the_same_images(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet", each=3)
    for label in range(4):
        (tmp_path / "b" / f"c{label}").mkdir(parents=True)
        for shade in range(3):
            data = png(20 + 60 * label + shade)
            (tmp_path / "b" / f"c{label}" / f"{shade}.png").write_bytes(data)
    recipe = SourceRecipe(path="x", kind="image", image_size=8)
    first = read_examples(recipe, tmp_path / "a.parquet")
    second = read_examples(recipe, tmp_path / "b")
    assert first.images is not None
    assert second.images is not None
    assert first.classes == second.classes == ("c0", "c1", "c2", "c3")
    assert np.array_equal(first.images, second.images)
    assert first.images[0, 0, 0].tolist() == [20, 20, 20]


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    rows = [{"image": b"no image", "label": "a"}, {"image": png(1), "label": "b"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet row 1"):
        read_examples(SourceRecipe(path="x", kind="image"), tmp_path / "a.parquet")


def test_an_image_that_would_fill_the_memory_is_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    # The header alone says how large it is: width and height, and their checksum.
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    data = bytearray(file.getvalue())
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    rows = [{"image": bytes(data), "label": "a"}, {"image": png(1), "label": "b"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet row 1: it has far more pixels"):
        read_examples(SourceRecipe(path="x", kind="image"), tmp_path / "a.parquet")


def _image_folder(path: Path) -> Path:
    for name in ("c0", "c1"):
        (path / name).mkdir(parents=True)
        for number in range(3):
            (path / name / f"{number}.png").write_bytes(png(20 * number))
    return path


def test_each_file_of_a_folder_that_is_no_image_is_told(tmp_path: Path) -> None:
    folder = _image_folder(tmp_path / "images")
    (folder / "c0" / "gone.png").symlink_to("nowhere.png")
    (folder / "c0" / "loop.png").symlink_to("loop.png")
    (folder / "c0" / "none.png").touch()
    (folder / "c0" / "words.png").write_text("no image")
    (folder / "c1" / "x.png").mkdir()
    (folder / "y.png").mkdir()
    (folder / "stray.png").write_bytes(png(1))
    with pytest.raises(CorpusError) as caught:
        read_examples(SourceRecipe(path="x", kind="image"), folder)
    assert {problem.where: (problem.what, problem.fix) for problem in caught.value.problems} == {
        "c0/gone.png": (
            "it cannot be read (No such file or directory)",
            "restore what it leads to, or remove it",
        ),
        "c0/loop.png": (
            "it cannot be read (Too many levels of symbolic links)",
            "mend the link: it leads back to itself",
        ),
        "c0/none.png": ("it is empty, and no image", "mend or remove it"),
        "c0/words.png": ("it is no image that pillow knows", "mend or remove it"),
        "c1/x.png": ("it is a folder, named as an image is", "rename or remove it"),
        "stray.png": ("it lies in no folder of a class", "move it into one, or remove it"),
        "y.png": ("it is a folder, named as an image is", "rename or remove it"),
    }


@pytest.mark.parametrize(
    ("label", "shown"),
    [(float("nan"), "nan"), (float("inf"), "inf"), (b"x", "b'x'"), (" ", "' '")],
)
def test_a_label_of_parquet_that_names_no_class_is_told(
    label: object, shown: str, tmp_path: Path
) -> None:
    labels = [label, label if isinstance(label, bytes | float) else "b"]
    labels = [label, label] if isinstance(label, bool) else labels
    rows = [{"text": "some", "label": value} for value in labels]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(CorpusError) as caught:
        read_examples(SourceRecipe(path="x", kind="text"), tmp_path / "a.parquet")
    problem = caught.value.problems[0]
    assert problem.where == "a.parquet row 1"
    assert problem.what == f"label = {shown} names no class"


def test_labels_of_json_are_texts_and_numbers(tmp_path: Path) -> None:
    said = ['["x"]', '{"a": 1}', '""', "true", "false", '"a"', "2", "2.5"]
    lines = [f'{{"text": "some", "label": {label}}}' for label in said]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(CorpusError) as caught:
        read_examples(SourceRecipe(path="x", kind="text"), path)
    assert [f"{p.where}: {p.what}" for p in caught.value.problems] == [
        "a.jsonl row 1: label = ['x'] names no class",
        "a.jsonl row 2: label = {'a': 1} names no class",
        "a.jsonl row 3: label = '' names no class",
    ]
    path.write_text("\n".join(lines[3:] * 2))
    found = read_examples(SourceRecipe(path="x", kind="text"), path).classes
    assert found == ("2", "2.5", "a", "false", "true")


def test_truth_is_a_label_of_parquet_too(tmp_path: Path) -> None:
    rows = [{"text": "some", "label": label} for label in (True, False, False, True)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = read_examples(SourceRecipe(path="x", kind="text"), tmp_path / "a.parquet")
    assert found.classes == ("false", "true")
    assert found.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("TRAIN", "val"), r"no row is for the test, 'test' is never said: 'split' holds 'TRAIN'"),
        (("Test", "TEST"), r"no row is left to train on: 'split' holds 'TEST', 'Test'"),
    ],
)
def test_a_split_that_parts_nothing_is_told_with_what_it_holds(
    words: tuple[str, str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "x", "label": label, "split": word} for label in "ab" for word in words]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(CorpusError, match=rf"source\.split: {said}"):
        read_examples(SourceRecipe(path="x", kind="text", split="split"), path)


def test_a_split_says_test_in_large_or_small_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "x", "label": label, "split": w} for label in "ab" for w in ("Train", "Test")]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_examples(SourceRecipe(path="x", kind="text", split="split"), path)
    assert found.is_test.tolist() == [False, True] * 2


def test_images_that_are_neither_parquet_nor_a_folder_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"image": "x", "label": "a"}\n' * 3)
    with pytest.raises(CorpusError, match="neither a parquet file nor a folder") as caught:
        read_examples(SourceRecipe(path="a.jsonl", kind="image"), path)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_source_that_is_not_there_is_told_as_that(kind: str, tmp_path: Path) -> None:
    recipe = SourceRecipe.model_validate({"path": "a.parquet", "kind": kind})
    with pytest.raises(CorpusError, match=r"source\.path: .*/a\.parquet is not there"):
        read_examples(recipe, tmp_path / "a.parquet")


def test_a_folder_has_no_column_of_splits(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"source\.split: a folder of images has no column"):
        read_examples(SourceRecipe(path=".", kind="image", split="split"), tmp_path)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x", "label": "a"}\n')
    with pytest.raises(CorpusError, match=r"no text\n.*it has: body, label"):
        read_examples(SourceRecipe(path="x", kind="text"), tmp_path / "a.jsonl")


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_labelled_text_may_be_compressed(suffix: str, tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(8)]
    data = "\n".join(map(json.dumps, rows)).encode()
    path = tmp_path / f"a.jsonl{suffix}"
    packs: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".zst": zstandard.compress,
    }
    pack = packs[suffix]
    path.write_bytes(pack(data))
    found = read_examples(SourceRecipe(path="x", kind="text"), path)
    assert found.texts == tuple(row["text"] for row in rows)
    assert found.labels.tolist() == [0, 1] * 4
    path.write_bytes(pack(data)[:-9])  # cut short: of plain text the last row, else the end
    with pytest.raises(
        CorpusError, match=rf"a\.jsonl{suffix}(:8: not valid JSON|: cannot be read)"
    ):
        read_examples(SourceRecipe(path="x", kind="text"), path)


def test_every_line_that_is_no_row_is_told_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": "a"}\n[1]\n\n{"text": \n')
    with pytest.raises(CorpusError) as caught:
        read_examples(SourceRecipe(path="x", kind="text"), tmp_path / "a.jsonl")
    assert [problem.where.rpartition(":")[2] for problem in caught.value.problems] == ["2", "4"]


def test_labelled_text_is_as_long_as_text_to_train_on_may_be(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    texts = ("word " * 2**19, "short")
    lines = [json.dumps({"text": text, "label": label}) for text in texts for label in "ab"]
    path.write_text("\n".join(lines) + "\n")
    assert set(read_examples(SourceRecipe(path="x", kind="text"), path).texts) == set(texts)
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() + 2**26 + 1)
    with pytest.raises(CorpusError, match=r"a\.jsonl:5: the line is longer than 64 MiB"):
        read_examples(SourceRecipe(path="x", kind="text"), path)


def test_what_a_file_without_rows_should_hold_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(CorpusError) as caught:
        read_examples(SourceRecipe(path="x", kind="text"), tmp_path / "a.jsonl")
    (problem,) = caught.value.problems
    assert problem.fix == "write one a line: an object with a text and its label"


# --- experiment ---


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    text = EXPERIMENT.replace('"cnn"', '"bytes"').replace("tasks = 2", "tasks = 1")
    path.write_text(text + 'er = { algorithm = "er", temperature = 2.0, epoch = 1 }\n')
    with pytest.raises(RecipeError) as caught:
        read_stream(path)
    said = str(caught.value)
    for part in (
        "scenario.tasks",
        "learners.er.epoch",
        "learners.er.temperature: er has none: it is of lwf and scr",
        "'bytes' reads texts, and the source holds images",
    ):
        assert part in said


def test_what_is_set_without_effect_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    own = (
        ("candidates = 7", "mir"),
        ("compared = 4", "gss"),
        ("temperature = 1.0", "lwf", "scr"),
        ("ewc = 3.0", "ewc++"),
        ("fisher_decay = 0.5", "ewc++"),
        ("fisher_every = 2", "ewc++"),
        ("memory_epochs = 3", "gdumb"),
    )
    learners = f"er = {{ algorithm = 'er', {', '.join(key for key, *_ in own)} }}\n"
    for number, (key, *owners) in enumerate(own):
        for owner in owners:
            learners += f"own-{owner[:3]}-{number} = {{ algorithm = '{owner}', {key} }}\n"
    text = EXPERIMENT.replace("tasks = 2", "tasks = 2\nepochs = 7")
    text = text.replace('small = "cnn"', "small = 'cnn'\nrevision = 'v1'")
    text = text.replace("[scenario]", "split = 's'\ntest_share = 0.5\nmax_bytes = 9\n[scenario]")
    path.write_text(text + learners)
    with pytest.raises(RecipeError) as caught:
        read_stream(path)
    assert [problem.where for problem in caught.value.problems] == [
        "backbones.scratch.revision",
        *(f"learners.er.{key.split()[0]}" for key, *_ in own),
        "scenario.epochs",
        "source.test_share",
        "source.max_bytes",
    ]
    text = text.replace("epochs = 7", "epochs = 7\nmode = 'offline'").replace(
        "test_share = 0.5", ""
    )
    text = text.replace("max_bytes = 9", "").replace("revision = 'v1'", "")
    path.write_text(text + learners.split("\n", 1)[1])
    assert read_stream(path).experiment.scenario.num_epochs == 7


@pytest.mark.parametrize("path", _SHIPPED, ids=lambda path: path.stem)
def test_shipped_streams_set_nothing_without_effect(path: Path) -> None:
    assert read_stream(path).experiment.name == path.stem


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('source.label = ""', "source.label: '': String should have at least 1 character"),
        ('source.split = ""', "source.split: '': String should have at least 1 character"),
        ('learners.er = "er"', "learners.er: 'er': must be a table"),
    ],
)
def test_what_can_be_no_name_and_no_table_is_told(line: str, said: str, tmp_path: Path) -> None:
    lines = [
        'name = "x"',
        'source.path = "a.parquet"',
        'source.kind = "image"',
        "scenario.tasks = 2",
        'backbones.scratch.small = "cnn"',
        'learners.lwf.algorithm = "lwf"',
        line,
    ]
    (tmp_path / "e.toml").write_text("\n".join(lines))
    with pytest.raises(RecipeError) as caught:
        read_stream(tmp_path / "e.toml")
    assert [f"{p.where}: {p.what}" for p in caught.value.problems] == [said]


def _figures(folder: Path) -> list[object]:
    result = json.loads((folder / "result.json").read_text())
    return [
        (r["backbone"], r["learner"], r["seed"], r["matrix"], r["looks"]) for r in result["runs"]
    ]


def test_a_run_that_was_lost_is_made_again_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "a.parquet")
    path = tmp_path / "e.toml"
    learners = "mir = { algorithm = 'mir' }\ntwo = { algorithm = 'gss', second_stage_epochs = 2 }\n"
    path.write_text(EXPERIMENT + learners)
    assert main(["stream", str(path)]) == 0
    folder = tmp_path / "streams" / "made-up"
    before = _figures(folder)
    assert len(before) == 2 * 2
    lost = folder / "runs" / "scratch" / "mir" / "seed-2.json"
    kept = folder / "runs" / "scratch" / "mir" / "seed-1.json"
    at = kept.stat().st_mtime_ns
    lost.write_text(lost.read_text()[:40])  # what a disk may leave of it
    assert main(["stream", str(path)]) == 0
    assert _figures(folder) == before
    assert kept.stat().st_mtime_ns == at  # it was not run again
    page = (folder / "report.html").read_text()
    assert "scratch, two" in page
    assert "task 1 after task 2" in page


def test_runs_of_other_images_are_done_again_and_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT + 'er = { algorithm = "er" }\n')
    write_images(tmp_path / "a.parquet")
    assert main(["stream", str(path)]) == 0
    assert "done again" not in capsys.readouterr().out
    write_images(tmp_path / "a.parquet", each=13)
    assert main(["stream", str(path)]) == 0
    told = capsys.readouterr().out
    assert (
        told.count("on record with another source, other weights or settings: it is done again")
        == 2
    )


def test_texts_are_learned_from_bytes(tmp_path: Path) -> None:
    rows = [{"text": word * (3 + n), "label": word} for word in "abcd" for n in range(15)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = EXPERIMENT.replace('"image"\nimage_size = 8', '"text"').replace("a.parquet", "a.jsonl")
    text = text.replace('"cnn"', '"bytes"').replace("evaluate_every = 2\n", 'mode = "offline"\n')
    (tmp_path / "e.toml").write_text(text + "joint = { algorithm = 'joint' }\n")
    assert main(["stream", str(tmp_path / "e.toml")]) == 0
    result = json.loads((tmp_path / "streams/made-up/result.json").read_text())
    assert result["cells"][0]["figures"]["final"]["mean"] > 0.7  # chance is 0.25


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "a.parquet")
    (tmp_path / "e.toml").write_text(EXPERIMENT + "er = { algorithm = 'er' }\n")
    assert main(["stream", str(tmp_path / "e.toml"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "4 in 2 tasks" in shown
    assert "2 seeds each" in shown
    assert not (tmp_path / "streams").exists()


def test_a_folder_that_cannot_be_made_is_told_by_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "a.parquet")
    (tmp_path / "file").touch()
    text = 'folder = "file/nope"\n' + EXPERIMENT + "er = { algorithm = 'er' }\n"
    (tmp_path / "e.toml").write_text(text)
    assert main(["stream", str(tmp_path / "e.toml")]) == 2
    assert f"folder: {tmp_path}/file/nope cannot be made (Not a" in capsys.readouterr().err


def test_more_tasks_than_classes_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "a.parquet")
    text = EXPERIMENT.replace("tasks = 2", "tasks = 5")
    (tmp_path / "e.toml").write_text(text + "er = { algorithm = 'er' }\n")
    assert main(["stream", str(tmp_path / "e.toml")]) == 2
    assert "5 tasks of 4 classes" in capsys.readouterr().err
