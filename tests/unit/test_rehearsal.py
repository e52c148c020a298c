"""Text that a base makes up: as sampled, judged, stored, told, and made but once."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewarm.artifacts import MANIFEST_NAME
from rewarm.cli import main
from rewarm.corpus.bins import pack
from rewarm.corpus.packed import PackedView
from rewarm.corpus.place import load_facts
from rewarm.corpus.rehearsed import Rehearsal, load_rehearsal
from rewarm.corpus.shards import open_shard
from rewarm.corpus.top_k import SourceTopK, open_top_k
from rewarm.corpus.views import IGNORED_LABEL, open_view
from rewarm.model.load import load_base
from rewarm.order.shuffle import derive_key, permute
from rewarm.records.facts import CorpusFacts, RehearsalFacts
from rewarm.retention import batch_maker
from rewarm.retention import rehearsal as room
from rewarm.retention.parts import part_path, read_part
from rewarm.retention.rehearsal import rehearse
from rewarm.retention.sampling import uniforms
from rewarm.stages.job import open_job
from rewarm.stages.rehearse import _sampler, rehearsal_table, rehearse_job
from rewarm.stages.survey import survey
from tests.support.rehearsals import (
    SETTINGS,
    contents,
    make_rehearsal_folder,
    recipe_text,
    rehearsal_in,
)

BEGIN, END, VOCAB = 0, 1, 320


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose text is sampled and prepared, with the base's distribution beside it."""
    folder = make_rehearsal_folder(tmp_path_factory.mktemp("made"), top_k_logits=3)
    rehearse_job(open_job(folder / "recipe.toml"))
    assert main(["prepare", str(folder / "recipe.toml")]) == 0
    return folder


def sampled_again(folder: Path, **settings: Any) -> tuple[Rehearsal, RehearsalFacts]:
    (folder / "recipe.toml").write_text(recipe_text(settings))
    job = open_job(folder / "recipe.toml")
    return rehearsal_in(folder), rehearse_job(job)["made"]


def documents_of(rehearsal: Rehearsal) -> list[list[int]]:
    shard = open_shard(rehearsal.folder / "shard-00000")
    starts = shard.document_starts.tolist()
    return [shard.tokens(first, last).tolist() for first, last in itertools.pairwise(starts)]


def places_of(rehearsal: Rehearsal) -> list[tuple[int, int]]:
    """Return batch and sample of each document, as its id says."""
    lines = (rehearsal.folder / "shard-00000.ids").read_text().splitlines()
    found = [re.fullmatch(r"batch (\d+), sample (\d+)", json.loads(line)) for line in lines]
    return [(int(match[1]), int(match[2])) for match in found if match]


def write_by_hand(folder: Path, batch: int, row: int, seed: int, prompt: list[int]) -> list[int]:
    """Return what the base writes, one whole forward pass a token, chosen by plain numpy."""
    model = load_base(folder / "base").eval()
    random = uniforms(seed, batch, (40, 16))[:, row]
    ids = list(prompt)
    while len(ids) < 40 and ids[-1:] != [END]:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
        weights = np.exp(logits - logits.max())
        cumulative = np.cumsum(weights / weights.sum())
        ids.append(int(np.searchsorted(cumulative, random[len(ids)], side="right")))
    return ids


def test_the_ids_are_stored_as_the_base_wrote_them(made: Path) -> None:
    """Against a loop without cache, batch or compaction; and no text of them would give them."""
    rehearsal = rehearsal_in(made)
    documents, places = documents_of(rehearsal), places_of(rehearsal)
    assert len(documents) == len(places)
    for index in (0, 1, 5, len(documents) - 1):
        batch, row = places[index]
        assert documents[index] == write_by_hand(made, batch, row, 1, [BEGIN])
    from rewarm.corpus.tokenize import open_encoder

    encoder = open_encoder(made / "base", rehearsal.tokenizer_recipe, vocab_size=VOCAB)
    texts = encoder.tokenizer.decode_batch(documents)
    again = [ids.tolist() for ids in encoder.encode(texts)]
    assert sum(one == other for one, other in zip(again, documents, strict=True)) < len(documents)


def test_there_are_as_many_tokens_as_asked_for(made: Path) -> None:
    rehearsal = rehearsal_in(made)
    facts = load_rehearsal(rehearsal)
    assert facts is not None
    lengths = [len(document) for document in documents_of(rehearsal)]
    assert sum(lengths) == facts.num_tokens
    assert sum(lengths[:-1]) < SETTINGS["tokens"] <= sum(lengths)
    assert facts.num_documents == len(lengths)
    assert facts.num_documents + sum(facts.dropped.values()) + facts.num_surplus == (
        facts.num_samples
    )
    assert facts.num_samples % 16 == 0
    assert facts.dropped["special_token"] > 0
    assert facts.dropped["too_short"] > 0
    documents = documents_of(rehearsal)
    assert facts.num_ended == sum(document[-1] == END for document in documents)
    for document in documents:
        assert document[0] == BEGIN
        assert BEGIN not in document[1:]
        assert END not in document[:-1]
        assert len(document) - 1 - (document[-1] == END) >= SETTINGS["min_tokens"]
    assert not (rehearsal.folder / "parts").exists()


def test_the_perplexity_is_the_bases_own(made: Path) -> None:
    """Against the mean loss that transformers gives for the same documents."""
    facts = load_rehearsal(rehearsal_in(made))
    assert facts is not None
    model = load_base(made / "base").eval()
    nats, count = 0.0, 0
    for document in documents_of(rehearsal_in(made)):
        ids = torch.tensor([document])
        with torch.no_grad():
            nats += float(model(ids, labels=ids, use_cache=False).loss) * (len(document) - 1)
        count += len(document) - 1
    assert facts.nats_per_token == pytest.approx(nats / count, rel=1e-5)


def test_the_manifest_says_where_it_comes_from(made: Path) -> None:
    rehearsal = rehearsal_in(made)
    manifest = json.loads((rehearsal.folder / MANIFEST_NAME).read_text())
    assert manifest["key"] == rehearsal.key
    assert manifest["settings"]["seed"] == 1
    assert manifest["base"] == str(made / "base")
    assert {"torch", "transformers", "tokenizers"} <= manifest["provenance"]["packages"].keys()
    names = {"shard-00000.bin", "shard-00000.idx", "shard-00000.ids", "rehearsed.json"}
    assert names <= manifest["files"].keys()
    assert {f"shard-00000.top_k.{name}.npy" for name in ("ids", "logp")} <= manifest["files"].keys()


# The base's distribution


def prepared(folder: Path) -> CorpusFacts:
    facts = load_facts(rehearsal_in(folder).text(folder, is_made=True), folder / "prepared")
    assert facts is not None
    return facts


def test_the_distribution_is_aligned_with_the_labels(made: Path) -> None:
    """Every label's row against a forward pass over its document."""
    facts = prepared(made)
    view, rows = open_view(facts), open_top_k(facts)
    assert rows is not None
    model = load_base(made / "base").eval()
    expected: list[tuple[list[int], list[float]] | None] = []
    for index in range(view.num_documents):
        document = view.document(index)
        with torch.no_grad():
            logits = model(torch.from_numpy(document)[None], use_cache=False).logits[0]
        values, ids = torch.log_softmax(logits, -1).topk(3)
        expected.append(None)  # nothing stands before a document's first token
        expected += list(zip(ids.tolist(), values.tolist(), strict=True))[: len(document) - 1]
    length = 16
    windows = np.array([0, 3, 1, (view.num_tokens - 1) // length - 1])
    found = rows.gather(view, windows, length)
    tokens = view.gather(windows, length)
    assert found.ids.shape == (4, length, 3)
    for number, window in enumerate(windows.tolist()):
        for place in range(length):
            wanted = expected[window * length + place + 1]
            values = found.log_probs[number, place]
            if wanted is None:
                assert tokens[number, place + 1] == BEGIN
                assert (values == -np.inf).all()
            else:
                np.testing.assert_allclose(values, wanted[1], rtol=2e-3, atol=1e-3)
                assert set(found.ids[number, place]) == set(wanted[0])


def test_the_distribution_is_aligned_with_the_labels_of_packed_windows(made: Path) -> None:
    """Each label's row is the one that contiguous windows give it; padding has none."""
    facts = prepared(made)
    view, rows = open_view(facts), open_top_k(facts)
    assert rows is not None
    bins = pack(view.offsets, 16)
    packed = PackedView(view, bins)
    # Windows of one token: row w is what was said of the view's token w + 1.
    single = rows.gather(view, np.arange(view.num_tokens - 1), 1)
    windows = np.arange(packed.num_windows)[::-1]
    found = SourceTopK(rows, packed).gather(windows, 16)
    _, labels = packed.sequences(windows, 16)
    checked = 0
    for index, window in enumerate(windows.tolist()):
        at = 0
        for piece in range(bins.starts[window], bins.starts[window + 1]):
            first, count = int(bins.firsts[piece]), int(bins.counts[piece])
            here, there = slice(at, at + count), slice(first, first + count)
            assert (found.ids[index, here] == single.ids[there, 0]).all()
            assert (found.log_probs[index, here] == single.log_probs[there, 0]).all()
            at += count
        checked += at
        assert (labels[index, at:] == IGNORED_LABEL).all()
        assert (found.log_probs[index, at:] == -np.inf).all()
    assert checked == view.num_tokens - 1 < 16 * len(windows), "some windows have padding"


def test_a_distribution_that_does_not_fit_is_told(made: Path, tmp_path: Path) -> None:
    facts = prepared(made)
    path = Path(facts.folder) / "shard-00000.top_k.logp.npy"
    target = path.resolve()
    whole = target.read_bytes()
    rows = open_top_k(facts)
    assert rows is not None
    try:
        target.write_bytes(whole[:-2])
        with pytest.raises(Exception, match="its size is not what its header says"):
            open_top_k(facts)
        with pytest.raises(Exception, match="it was cut while it was in use"):
            rows.gather(open_view(facts), np.array([0]), 16)
        np.save(target, np.zeros((3, 3), dtype=np.float16))
        with pytest.raises(Exception, match="3 rows do not fit"):
            open_top_k(facts)
        target.write_bytes(b"no array")
        with pytest.raises(Exception, match="it cannot be read"):
            open_top_k(facts)
    finally:
        target.write_bytes(whole)
    other = load_facts(survey(open_job(made / "recipe.toml")).texts[0], made / "prepared")
    assert other is not None
    assert open_top_k(other) is None


# Once, and again


def test_a_second_time_nothing_is_sampled(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr("rewarm.stages.rehearse.load_base", refuse)
    before = contents(rehearsal_in(made).folder)
    assert main(["rehearse", str(made / "recipe.toml")]) == 0
    told = capsys.readouterr().out
    assert "Sampled from the base" in told
    assert "special_token" in told
    assert "rehearse made: sampled already, nothing to do" in told
    assert contents(rehearsal_in(made).folder) == before


def test_what_was_damaged_is_made_again_to_the_byte(tmp_path: Path) -> None:
    folder = make_rehearsal_folder(tmp_path)
    rehearsal, facts = sampled_again(folder)
    whole = contents(rehearsal.folder)
    path = rehearsal.folder / "shard-00000.bin"
    raw = bytearray(path.read_bytes())
    raw[5] ^= 1
    path.write_bytes(raw)
    assert load_rehearsal(rehearsal) is None
    again = rehearse_job(open_job(folder / "recipe.toml"))["made"]
    assert contents(rehearsal.folder) == whole
    volatile = {"elapsed_s": 0.0}
    assert again.model_copy(update=volatile) == facts.model_copy(update=volatile)


def test_a_part_is_only_made_where_it_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_rehearsal_folder(tmp_path)
    rehearsal, _ = sampled_again(folder)
    whole = contents(rehearsal.folder)

    # As after a kill between the last part and the shard.
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    (rehearsal.folder / MANIFEST_NAME).unlink()
    job = open_job(folder / "recipe.toml")
    with monkeypatch.context() as patch:
        patch.setattr(room, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            rehearse_job(job)
    first, second = part_path(rehearsal.folder, 0), part_path(rehearsal.folder, 1)
    raw = bytearray(second.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    second.write_bytes(raw)
    assert read_part(first) is not None
    assert read_part(second) is None
    made: list[int] = []
    making = batch_maker.BatchMaker.make

    def watched(self: Any, batch: int, watch: Any) -> Any:
        made.append(batch)
        return making(self, batch, watch)

    monkeypatch.setattr(batch_maker.BatchMaker, "make", watched)
    rehearse_job(open_job(folder / "recipe.toml"))
    assert made == [1]
    assert contents(rehearsal.folder) == whole


def test_another_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_rehearsal_folder(tmp_path)
    rehearsal = rehearsal_in(folder)
    sampler = _sampler(open_job(folder / "recipe.toml"), rehearsal)
    making = batch_maker.BatchMaker.make

    def killed(self: Any, batch: int, watch: Any) -> Any:
        if batch == 2:
            raise KeyboardInterrupt
        return making(self, batch, watch)

    monkeypatch.setattr(batch_maker.BatchMaker, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        rehearse(rehearsal, sampler, say=print)
    monkeypatch.setattr(batch_maker.BatchMaker, "make", making)
    told: list[str] = []
    elsewhere = type(sampler)(sampler.load_model, sampler.load_prefixes, "abacus")
    facts = rehearse(rehearsal, elsewhere, say=told.append)
    assert told[0] == "goes on after 2 batches"
    assert "now on abacus: sums round otherwise" in told[1]
    assert facts.placements[1] == "abacus"
    assert facts.placements[0].startswith("cpu, float32, 1 threads, torch ")


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_rehearsal_folder(tmp_path, tokens=300)
    rehearsal = rehearsal_in(folder)
    monkeypatch.setattr(room, "_TELL_EVERY_S", 0.0)
    told: list[Any] = []
    job = open_job(folder / "recipe.toml")
    rehearse(rehearsal, _sampler(job, rehearsal), say=print, progress=told.append)
    sampled = [progress.num_sampled_tokens for progress in told]
    assert sampled == sorted(sampled)
    assert told[-1].num_tokens == told[-1].wanted_tokens == 300
    assert 0 < told[-1].dropped_share < 1


# What decides the text, and what does not


def test_the_key_is_of_what_decides_the_text(tmp_path: Path) -> None:
    folder = make_rehearsal_folder(tmp_path)
    (folder / "lines.txt").write_text("the model\n")

    def key(text: str = recipe_text()) -> str:
        (folder / "recipe.toml").write_text(text)
        return rehearsal_in(folder).key

    first = key()
    others = [
        key(recipe_text(**change))
        for change in (
            {"seed": 2},
            {"temperature": 0.9},
            {"top_p": 0.9},
            {"batch_samples": 8},
            {"max_tokens_per_sample": 41},
            {"min_tokens": 6},
            {"tokens": 1501},
            {"prefixes": "lines.txt"},
            {"prefixes": "new"},
            {"top_k_logits": 1},
        )
    ]
    assert len({first, *others}) == 1 + len(others)
    assert key(recipe_text().replace('role = "replay"', 'role = "general"')) == first
    assert key(recipe_text().replace("num_threads = 1", "num_threads = 2")) == first
    assert key(recipe_text().replace("held_out = 0.1\nrehearse", "rehearse")) == first
    lines = key(recipe_text(prefixes="lines.txt"))
    (folder / "lines.txt").write_text("the model \n")
    assert key(recipe_text(prefixes="lines.txt")) != lines
    weights = folder / "base" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert key() != first


def test_what_is_made_again_is_the_same_text_to_a_plan(tmp_path: Path) -> None:
    """Token shards go by time and size; these go by what made them."""
    folder = make_rehearsal_folder(tmp_path)
    rehearsal, _ = sampled_again(folder)
    before = rehearsal.text(folder, is_made=True).key()
    for path in rehearsal.shard_files:
        os.utime(path, (1, 1))
    assert rehearsal.text(folder, is_made=True).key() == before


def test_seeds_and_settings_change_the_text(tmp_path: Path) -> None:
    folder = make_rehearsal_folder(tmp_path)
    texts = [
        documents_of(sampled_again(folder, **change)[0])
        for change in ({}, {"seed": 2}, {"temperature": 0.5}, {"top_k": 3})
    ]
    for index, text in enumerate(texts):
        assert text not in texts[:index]
    used = {token for document in texts[3] for token in document}
    assert len(used) < len({token for document in texts[0] for token in document})


# Prefixes


def expected_prefixes(num_prefixes: int, batch: int) -> list[int]:
    numbers = range(16 * batch, 16 * batch + 16)
    return [
        int(permute(np.array([n % num_prefixes]), num_prefixes,
                    derive_key(1, "prefixes", n // num_prefixes))[0])
        for n in numbers
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["txt", "jsonl"])
def test_samples_begin_with_the_lines_of_a_file(tmp_path: Path, ending: str) -> None:
    folder = make_rehearsal_folder(tmp_path)
    lines = [f"The {word} of a longer prefix" for word in ("dog", "fox", "new model", "日本")]
    as_json = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    content = as_json if ending == "jsonl" else "\n\n".join(lines)
    (folder / f"lines.{ending}").write_text(content, encoding="utf-8")
    settings = {"prefixes": f"lines.{ending}", "prefix_tokens": 4}
    rehearsal, facts = sampled_again(folder, **settings)
    tokenizer = tokenizer_of(folder)
    prefixes = [tokenizer.encode(line, add_special_tokens=False).ids[:4] for line in lines]
    assert facts.num_documents > 20
    seen = set()
    for document, (batch, row) in zip(documents_of(rehearsal), places_of(rehearsal), strict=True):
        number = expected_prefixes(4, batch)[row]
        seen.add(number)
        assert document[:5] == [BEGIN, *prefixes[number]]
    assert seen == {0, 1, 2, 3}
    batch, row = places_of(rehearsal)[0]
    prompt = documents_of(rehearsal)[0][:5]
    assert documents_of(rehearsal)[0] == write_by_hand(folder, batch, row, 1, prompt)


def tokenizer_of(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))


def test_samples_begin_like_training_documents_and_never_like_held_out_ones(
    tmp_path: Path,
) -> None:
    folder = make_rehearsal_folder(tmp_path)
    rehearsal, _ = sampled_again(folder, prefixes="new", prefix_tokens=6)
    facts = load_facts(survey(open_job(folder / "recipe.toml")).texts[0], folder / "prepared")
    assert facts is not None
    assert facts.name == "new"
    beginnings, held_out = (
        {tuple(view.document(index)[:7].tolist()) for index in range(view.num_documents)}
        for view in (open_view(facts), open_view(facts, held_out=True))
    )
    assert held_out - beginnings
    found = {tuple(document[:7]) for document in documents_of(rehearsal)}
    assert len(found) > 20
    assert found <= beginnings


def test_every_prefix_comes_once_before_any_comes_again() -> None:
    for num_prefixes in (5, 16, 37):
        every = [index for batch in range(5) for index in expected_prefixes(num_prefixes, batch)]
        for start in range(0, len(every) - num_prefixes + 1, num_prefixes):
            assert sorted(every[start : start + num_prefixes]) == list(range(num_prefixes))


# Bases whose documents begin or end with nothing


@pytest.mark.parametrize(("begin", "end"), [([], ["</s>"]), (["<s>"], [])])
def test_frames_of_one_side(tmp_path: Path, begin: list[str], end: list[str]) -> None:
    folder = make_rehearsal_folder(tmp_path)
    frame = f"document_begin = {json.dumps(begin)}, document_end = {json.dumps(end)}"
    text = recipe_text().replace("[training]", f"tokenizer = {{ {frame} }}\n[training]", 1)
    (folder / "recipe.toml").write_text(text)
    rehearse_job(open_job(folder / "recipe.toml"))
    rehearsal = rehearsal_in(folder)
    documents = documents_of(rehearsal)
    assert len({len(document) for document in documents}) > 1, "some are ended by the base"
    for document, (batch, row) in zip(documents[:4], places_of(rehearsal), strict=False):
        if begin:  # where the next document would begin, this one is over
            assert document[0] == BEGIN
            assert not {BEGIN, END} & set(document[1:])
        else:  # the end of one before it is its context, and no part of it
            assert BEGIN not in document
            assert END not in document[:-1]
            assert [END, *document] == write_by_hand(folder, batch, row, 1, [END, document[0]]) or (
                document[-1] != END
            )
    assert main(["prepare", str(folder / "recipe.toml")]) == 0


# What is refused, all at once


@pytest.mark.parametrize("role", ["new", "qa"])
def test_what_the_base_makes_up_is_old_text(
    tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(make_rehearsal_folder(tmp_path) / "recipe.toml")
    assert main(["rehearse", recipe, "-o", f'sources.made.role="{role}"']) == 2
    told = capsys.readouterr().err
    assert (
        f"sources.made: what the base makes up it knows already: its role is replay, not {role}"
        in told
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"max_tokens_per_sample": 129},
            "rehearse.max_tokens_per_sample: 129 is beyond the base's 128 positions",
        ),
        (
            {"prefixes": "nowhere.txt"},
            "rehearse.prefixes: 'nowhere.txt' is neither bos, nor a source with text, nor a file",
        ),
        (
            {"prefixes": "new", "prefix_tokens": 30, "min_tokens": 10},
            "rehearse.min_tokens: a prefix of 30 and 10 sampled tokens do not fit into samples of "
            "at most 40",
        ),
        ({"top_k_logits": 321}, "321 is more than the base's vocabulary of 320"),
    ],
)
def test_a_mistake_is_told_by_plan_and_rehearse(
    tmp_path: Path, settings: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_rehearsal_folder(tmp_path, **settings)
    for verb in ("plan", "rehearse", "prepare"):
        assert main([verb, str(folder / "recipe.toml")]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.txt", b"\n\n  \n", "it holds no text that samples could begin with"),
        ("p.txt", b"\xff\xfe", "p.txt:1: it is not UTF-8"),
        ("p.jsonl", b'{"texts": "a"}\n', "1 of its lines hold no prefix, e.g. p.jsonl:1"),
    ],
)
def test_a_file_of_prefixes_that_is_none(
    tmp_path: Path, name: str, content: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_rehearsal_folder(tmp_path, prefixes=name)
    (folder / name).write_bytes(content)
    assert main(["rehearse", str(folder / "recipe.toml")]) == 2
    assert told in capsys.readouterr().err


def test_where_nearly_all_is_dropped_it_says_why_and_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_rehearsal_folder(tmp_path, temperature=0.01, batch_samples=256)
    assert main(["rehearse", str(folder / "recipe.toml")]) == 2
    told = capsys.readouterr().err
    assert re.search(r"of 512 samples \d are kept \(.*special_token \d+\)", told)
    assert "loosen the bounds" in told


def test_a_recipe_without_such_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_rehearsal_folder(tmp_path)
    text = recipe_text().partition("[sources.made]")[0].replace(", made = 0.25", "")
    (folder / "recipe.toml").write_text(text)
    assert main(["rehearse", str(folder / "recipe.toml")]) == 2
    assert "none is made up by the base" in capsys.readouterr().err


@pytest.mark.parametrize("from_place", [0, 13])
def test_a_base_that_is_not_finite_in_bf16(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    from_place: int,
) -> None:
    """At once, or only after longer texts than its cache is checked with."""
    folder = make_rehearsal_folder(tmp_path, precision="bf16")

    def broken(*arguments: Any, **more: Any) -> Any:
        model = load_base(*arguments, **more)
        assert next(model.parameters()).dtype == torch.bfloat16
        forward = model.forward

        def overflowing(*arguments: Any, past_key_values: Any = None, **more: Any) -> Any:
            output = forward(*arguments, past_key_values=past_key_values, **more)
            num_tokens = 1 if past_key_values is None else past_key_values.get_seq_length()
            if num_tokens > from_place:
                output.logits[:] = torch.nan
            return output

        model.forward = overflowing
        return model

    monkeypatch.setattr("rewarm.stages.rehearse.load_base", broken)
    assert main(["rehearse", str(folder / "recipe.toml")]) == 2
    assert "its predictions are not finite in bf" in capsys.readouterr().err


# The whole road


def test_run_samples_before_it_prepares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_rehearsal_folder(tmp_path, tokens=3000)
    recipe = str(folder / "recipe.toml")
    assert main(["plan", recipe]) == 0
    plan = " ".join(capsys.readouterr().out.split())
    assert "source 'made': it is not sampled yet (`rewarm rehearse`)" in plan
    for verb in ("prepare", "train"):
        assert main([verb, recipe]) == 2
        told = capsys.readouterr().err
        assert "sources.made: its text is not sampled yet" in told
        assert "run `rewarm rehearse` with this recipe" in told
    assert main(["run", recipe, "--yes"]) == 0
    told = capsys.readouterr().out
    assert "sampled already" not in told
    assert told.index("Sampled from the base") < told.index("Data ledger")
    assert (folder / "runs" / "r" / "export" / "model.safetensors").exists()
    evals = (folder / "runs" / "r" / "metrics" / "evals.jsonl").read_text()
    assert '"domain":"made"' in evals
    assert main(["trace", recipe, "--step", "0", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    documents = [row["document"] for row in rows if row["source"] == "made"]
    assert documents
    assert all(re.fullmatch(r"batch \d+, sample \d+", document) for document in documents)


def test_the_table_has_a_column_for_each_source(made: Path) -> None:
    facts = load_rehearsal(rehearsal_in(made))
    assert facts is not None
    table = rehearsal_table({"one": facts, "other": facts.model_copy(update={"dropped": {}})})
    assert [column.header for column in table.columns] == ["", "one", "other"]
