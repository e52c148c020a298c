"""Data sets of the hub: which files a subset and a split are, and how they are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewarm.corpus.inputs import resolve_inputs
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.errors import CorpusError
from rewarm.recipe.sources import SourceRecipe
from tests.support.fake_hub import COMMIT, fake_hub

REPOSITORY = Path(__file__).resolve().parents[2]


def source(hub: dict[str, Any], **fields: Any) -> SourceRecipe:
    return SourceRecipe.model_validate({"hub": hub, "role": "new", **fields})


def lay_out(folder: Path, names: list[str], card: str = "") -> Path:
    """Write empty files of these names, and a card with this head."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    if card:
        (folder / "README.md").write_text(f"---\n{card}---\n# A data set\n")
    return folder


def chosen(folder: Path, **hub: Any) -> list[str]:
    fields = {"format": hub.pop("format")} if "format" in hub else {}
    recipe = source({"id": str(folder), **hub}, **fields)
    return [
        Path(str(file)).relative_to(folder).as_posix()
        for file in resolve_inputs("s", recipe, folder.parent)
    ]


CARD = """\
license: mit
configs:
- config_name: en
  data_files:
  - split: train
    path: data/en/train-*.parquet
  - split: test
    path:
    - data/en/test.parquet
    - data/en/more/**
- config_name: de
  data_dir: data/de
  default: true
- config_name: flat
  data_files: loose/*.jsonl
"""


def test_what_the_card_says(tmp_path: Path) -> None:
    folder = lay_out(
        tmp_path / "set",
        [
            *("data/en/train-00000-of-00002.parquet", "data/en/train-00001-of-00002.parquet"),
            *("data/en/test.parquet", "data/en/more/x/y.parquet", "data/de/train.jsonl"),
            *("data/de/valid.jsonl", "loose/a.jsonl", "loose/b.jsonl", "loose/sub/c.jsonl"),
        ],
        CARD,
    )
    assert chosen(folder, subset="en") == [
        "data/en/train-00000-of-00002.parquet",
        "data/en/train-00001-of-00002.parquet",
    ]
    assert chosen(folder, subset="en", split="test") == [
        "data/en/more/x/y.parquet",
        "data/en/test.parquet",
    ]
    assert chosen(folder) == ["data/de/train.jsonl"]
    assert chosen(folder, split="validation") == ["data/de/valid.jsonl"]
    assert chosen(folder, subset="flat") == ["loose/a.jsonl", "loose/b.jsonl"]
    with pytest.raises(CorpusError, match=r"sources\.s\.hub\.subset: .* no subset 'fr'") as caught:
        chosen(folder, subset="fr")
    assert "name one of en, de, flat" in str(caught.value)
    with pytest.raises(CorpusError, match=r"hub\.split: .* no split 'dev'\n.*it has test, train"):
        chosen(folder, subset="en", split="dev")


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["a.jsonl", "b.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
        (["train.jsonl", "test.jsonl"], "train", ["train.jsonl"]),
        (["my_train_file_1.csv", "dev.csv"], "validation", ["dev.csv"]),
        (["data/training/a.parquet", "data/eval/b.parquet"], "train", ["data/training/a.parquet"]),
        (["data/training/test.parquet"], "train", ["data/training/test.parquet"]),
        (
            ["data/train-00000-of-00001.parquet", "data/extra-00000-of-00001.parquet"],
            "extra",
            ["data/extra-00000-of-00001.parquet"],
        ),
        (["constraint.jsonl", "trainer.jsonl"], "train", ["constraint.jsonl", "trainer.jsonl"]),
        (["train.jsonl", "notes.txt", "x.bin"], "train", ["train.jsonl"]),
        (["one.txt", "two.txt"], "train", ["one.txt", "two.txt"]),
        (["x/custom/a.jsonl", "x/train/b.jsonl"], "custom", ["x/custom/a.jsonl"]),
    ],
)
def test_what_the_names_say(
    tmp_path: Path, names: list[str], split: str, expected: list[str]
) -> None:
    assert chosen(lay_out(tmp_path / "set", names), split=split) == expected


def test_a_folder_is_a_subset_where_no_card_declares_one(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "set", ["en/train.jsonl", "de/train.jsonl", "de/test.jsonl"])
    assert chosen(folder, subset="de") == ["de/train.jsonl"]
    with pytest.raises(CorpusError, match=r"no subset 'fr', declared or as a folder\n.*de, en"):
        chosen(folder, subset="fr")


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    script = lay_out(tmp_path / "script", ["script.py", "dataset_infos.json"])
    with pytest.raises(CorpusError, match="a script of its own, and code of strangers") as caught:
        chosen(script)
    assert 'revision = "refs/convert/parquet"' in str(caught.value)
    mixed = lay_out(tmp_path / "mixed", ["train.jsonl", "train.parquet"])
    with pytest.raises(CorpusError, match="several formats: jsonl, parquet"):
        chosen(mixed)
    assert chosen(mixed, format="parquet") == ["train.parquet"]
    lines = lay_out(tmp_path / "lines", ["train.json"])
    with pytest.raises(CorpusError, match="holds no file that can be read as"):
        chosen(lines)
    assert chosen(lines, format="jsonl") == ["train.json"]
    broken = lay_out(tmp_path / "broken", ["train.jsonl"], "configs: [: {\n")
    with pytest.raises(CorpusError, match="the head of the card cannot be read"):
        chosen(broken)
    with pytest.raises(CorpusError, match=r"there is no folder .*nowhere"):
        resolve_inputs("s", source({"id": "./nowhere"}), tmp_path)


def test_the_hub_s_own_conversion_keeps_subsets_in_folders(tmp_path: Path) -> None:
    converted = {"revision": "refs/convert/parquet"}
    folder = lay_out(tmp_path / "set", ["en/train/0000.parquet", "de/train/0000.parquet"])
    with pytest.raises(CorpusError, match=r"several subsets\n.*name one of de, en"):
        chosen(folder, **converted)
    assert chosen(folder, subset="de", **converted) == ["de/train/0000.parquet"]
    one = lay_out(tmp_path / "one", ["default/train/0000.parquet", "default/test/0000.parquet"])
    assert chosen(one, **converted) == ["default/train/0000.parquet"]


def test_a_local_copy_is_read(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "set", ["data/x.txt"])
    table = pa.table({"text": ["one", "two", ""], "n": [1, 2, 3]})
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    recipe = source({"id": "./set"})
    (file,) = resolve_inputs("s", recipe, tmp_path)
    rejections = Rejections()
    found = [document.text for document, _ in read_documents(file, recipe, rejections)]
    assert (found, rejections.counts) == (["one", "two"], {"empty": 1})


_READ = """
import json, sys
from pathlib import Path
from rewarm.corpus import files
from rewarm.corpus.inputs import resolve_inputs
from rewarm.corpus.records import Rejections
from rewarm.corpus.sources import read_documents
from rewarm.errors import RewarmError
from rewarm.recipe.sources import SourceRecipe

files.WAITS_S = (0.0,)
told = []
for fields in json.loads(sys.argv[1]):
    recipe = SourceRecipe.model_validate({"role": "new", **fields})
    try:
        inputs = resolve_inputs("s", recipe, Path("/nowhere"))
        texts = [d.text for file in inputs for d, _ in read_documents(file, recipe, Rejections())]
        told.append([[str(file) for file in inputs], texts, [file.identity for file in inputs]])
    except RewarmError as error:
        told.append([type(error).__name__, str(error)])
print(json.dumps(told))
"""


def read_from(endpoint: str, *sources: dict[str, Any]) -> list[Any]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", _READ, json.dumps(sources)],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told: list[Any] = json.loads(done.stdout)
    return told


def test_through_the_hub_s_own_client(tmp_path: Path) -> None:
    """The client of the hub against a hub on localhost: pinned to the commit, read by ranges."""
    rows = [{"text": f"text {number}"} for number in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=100)
    raw = b"".join(json.dumps(row).encode() + b"\n" for row in rows[:7])
    files = {
        "README.md": b"---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n"
        b"    path: data/*.parquet\n  - split: test\n    path: t.jsonl\n---\n",
        "data/part 1.parquet": (tmp_path / "a.parquet").read_bytes(),
        "t.jsonl": raw,
    }
    hub = {"id": "org/set"}
    with fake_hub("org/set", files) as (endpoint, asked):
        train, test, by_path, revision, split, absent = read_from(
            endpoint,
            {"hub": hub},
            {"hub": {**hub, "split": "test"}},
            {"path": f"hf://datasets/org/set@{COMMIT}/*.jsonl"},
            {"hub": {**hub, "revision": "v9"}},
            {"hub": {**hub, "split": "dev"}},
            {"hub": {"id": "org/other"}},
        )
    assert train[0] == [f"hf://datasets/org/set@{COMMIT}/data/part 1.parquet"]
    assert train[1] == [row["text"] for row in rows]
    assert train[2] == ["hf://datasets/org/set/data/part 1.parquet"]
    assert test[1] == by_path[1] == [row["text"] for row in rows[:7]]
    assert revision == [
        "CorpusError",
        "sources.s.hub.revision: org/set has no revision 'v9'\n    → name a branch, tag or commit",
    ]
    assert split[0] == "CorpusError"
    assert "has no split 'dev'" in split[1]
    assert absent[0] == "CorpusError"
    assert "nor a data set 'org/other' on the hub was found" in absent[1]
    assert any(path.endswith("/revision/main") for path in asked)


def test_a_hub_that_cannot_be_reached_is_the_environment_s_fault() -> None:
    ((kind, told),) = read_from("http://127.0.0.1:9", {"hub": {"id": "org/set"}})
    assert kind == "EnvironmentFault"
    assert "the hub's data set org/set cannot be read" in told
