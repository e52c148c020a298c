"""The tokenizer's fingerprint stands in every manifest; another one is told with both values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewarm.artifacts import MANIFEST_NAME
from rewarm.cli import main
from rewarm.corpus.bins import open_bins
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.tokenize import template_fingerprint, tokenizer_fingerprint
from rewarm.corpus.top_k import IDS, TopKWriter, check_top_k
from rewarm.errors import CorpusError
from rewarm.planning.plan import Plan, load_plan
from tests.support.chat import give_chat_template
from tests.support.road import SENTENCE
from tests.support.tiny_models import make_tiny_base

RECIPE = """
name = "r"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
sources.old = { path = "old.jsonl", role = "replay", keep = { lowest = "perplexity", share = 0.5, \
reference = "book" } }
sources.book = { path = "book.jsonl", role = "quality" }
sources.talk = { path = "talk.jsonl", role = "new", format = "chat" }
batch = { tokens = 64, sequence_length = 32, packing = "best-fit" }
budget.tokens = 128
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with everything that depends on a tokenizer."""
    folder = tmp_path_factory.mktemp("run")
    give_chat_template(make_tiny_base(folder / "base"))
    for name, ending in (("old", ""), ("book", " in a book")):
        rows = [{"text": f"{SENTENCE} {number}{ending}"} for number in range(150)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    turns = [
        {"prompt": f"how many {number}", "completion": f"as many as {number}"}
        for number in range(60)
    ]
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turns))
    (folder / "r.toml").write_text(RECIPE)
    assert main(["run", str(folder / "r.toml"), "--yes"]) == 0
    return folder


def copied(trained: Path, place: Path) -> Path:
    shutil.copytree(trained, place, symlinks=True)
    return place


def plan_of(folder: Path) -> Plan:
    return load_plan(folder / "runs" / "r" / "plan.json")


def change(manifest: Path, **values: Any) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), **values}))


def test_every_manifest_names_the_tokenizer(trained: Path) -> None:
    wanted = tokenizer_fingerprint(trained / "base")
    manifests = sorted((trained / "prepared").rglob(MANIFEST_NAME))
    kinds = {path.parent.name.split("-")[0] for path in manifests}
    assert kinds == {"old", "book", "talk", "bins", "perplexity"}
    for path in manifests:
        assert json.loads(path.read_bytes())["tokenizer_fingerprint"] == wanted, path
    chats = next((trained / "prepared").glob(f"talk-*/{MANIFEST_NAME}"))
    found = json.loads(chats.read_bytes())["template_fingerprint"]
    assert found == template_fingerprint(trained / "base")
    run = trained / "runs" / "r"
    mark = json.loads((run / "export" / "rewarm.json").read_bytes())
    assert mark["tokenizer_fingerprint"] == wanted
    states = list((run / "checkpoints").rglob("state.json"))
    assert states
    for path in states:  # under the checkpoint's own manifest
        assert json.loads(path.read_bytes())["science"]["tokenizer"] == wanted
        listed = json.loads((path.parent / MANIFEST_NAME).read_bytes())["files"]
        assert path.name in listed


@pytest.mark.parametrize("kind", ["old-*", "old-*/scores/*"])
def test_text_and_scores_of_another_tokenizer_are_refused(
    trained: Path, tmp_path: Path, kind: str
) -> None:
    facts = plan_of(trained).conduct.corpora["old"]
    assert facts.selection is not None
    place = copied(Path(facts.folder), tmp_path / Path(facts.folder).name)
    scores = place / "scores" / Path(facts.selection.scores).name
    selection = facts.selection.model_copy(update={"scores": str(scores)})
    facts = facts.model_copy(update={"folder": str(place), "selection": selection})
    verify_prepared(facts)
    change((scores if "scores" in kind else place) / MANIFEST_NAME, tokenizer_fingerprint="ab" * 32)
    with pytest.raises(CorpusError) as told:
        verify_prepared(facts)
    assert "abababababab" in str(told.value)
    assert facts.tokenizer_fingerprint[:12] in str(told.value)


def test_bins_of_another_tokenizer_are_refused(trained: Path, tmp_path: Path) -> None:
    plan = plan_of(trained)
    facts = plan.conduct.corpora["book"]
    place = copied(Path(facts.folder), tmp_path / "book")
    facts = facts.model_copy(update={"folder": str(place)})
    planned = plan.conduct.packing["book"].fingerprint
    open_bins(facts, 32, planned)
    change(place / "bins-32" / MANIFEST_NAME, tokenizer_fingerprint="ab" * 32)
    with pytest.raises(CorpusError) as told:
        open_bins(facts, 32, planned)
    assert "abababababab" in str(told.value)
    assert facts.tokenizer_fingerprint[:12] in str(told.value)


def test_a_base_whose_tokenizer_changed_is_not_measured_or_gone_on_with(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(trained, tmp_path / "run")
    before = plan_of(place).science.tokenizer
    run = place / "runs" / "r"
    plan = json.loads((run / "plan.json").read_bytes())
    plan["conduct"]["base_folder"] = str(place / "base")
    (run / "plan.json").write_text(json.dumps(plan))
    tokenizer = place / "base" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    after = tokenizer_fingerprint(place / "base")
    for verb in ("train", "evaluate", "export"):
        arguments = [verb, str(run)] + (["--output", str(place / "x")] if verb == "export" else [])
        assert main(arguments) == 2, verb
        told = capsys.readouterr().err
        assert before[:12] in told, verb
        assert after[:12] in told, verb


def test_a_checkpoint_of_another_tokenizer_is_another_plan_s(trained: Path) -> None:
    from rewarm.errors import RunFolderError
    from rewarm.training.saved import check_plan, read_saved_state

    science = plan_of(trained).science
    state = next((trained / "runs" / "r" / "checkpoints").rglob("state.json"))
    other = science.model_copy(update={"tokenizer": "ab" * 32})
    with pytest.raises(RunFolderError, match="tokenizer: ") as told:
        check_plan(read_saved_state(state.parent), other, where=trained)
    assert science.tokenizer[:8] in str(told.value)
    assert "abababab" in str(told.value)


def test_another_model_is_measured_where_its_ids_are_the_plan_s(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(trained / "runs" / "r")
    saved_again = copied(trained / "base", tmp_path / "again")
    path = saved_again / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    assert main(["evaluate", run, "--model", str(saved_again)]) == 0
    other = make_tiny_base(tmp_path / "other", vocab_size=300)
    capsys.readouterr()
    assert main(["evaluate", run, "--model", str(other)]) == 2
    told = capsys.readouterr().err
    for folder in (trained / "base", other):
        assert tokenizer_fingerprint(folder)[:12] in told
    assert "has 300 rows" in told
    assert "320" in told


def test_stored_distributions_name_no_id_beyond_the_rows(tmp_path: Path) -> None:
    from rewarm.corpus.shards import dtype_for, write_shard

    prefix = tmp_path / "s"
    check_top_k(prefix, 100)  # there are none
    write_shard(prefix, [np.arange(3)], dtype_for(100))
    with TopKWriter(prefix, 3, 2, 100) as writer:
        writer.add(np.array([[1, 2], [3, 99], [5, 6]]), np.zeros((3, 2)))
    check_top_k(prefix, 100)
    with pytest.raises(CorpusError, match="id 99, but the model's vocabulary has 99 entries"):
        check_top_k(prefix, 99)
    assert Path(f"{prefix}{IDS}").exists()
