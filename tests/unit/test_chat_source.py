"""Conversations as text to train on: written by the base's template, loss on answers alone."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from rewarm.batches.loader import IGNORED_LABEL, BatchLoader
from rewarm.cli import main
from rewarm.corpus import place
from rewarm.corpus.bins import pack
from rewarm.corpus.chat import ChatEncoder
from rewarm.corpus.conversations import read_messages
from rewarm.corpus.documents import Encoded, Refused
from rewarm.corpus.estimate import estimate_source
from rewarm.corpus.inputs import resolve_inputs
from rewarm.corpus.label_mask import LABEL_COUNTS, LABEL_MASK
from rewarm.corpus.packed import PackedView
from rewarm.corpus.place import SourceText, load_facts
from rewarm.corpus.prepare import HELD_OUT_CHATS, prepare_source
from rewarm.corpus.records import Document, document_of
from rewarm.corpus.scores import EachAlone, Scoring, load_selected, score_source
from rewarm.corpus.sealed import verify_prepared
from rewarm.corpus.shards import open_shard
from rewarm.corpus.tokenize import open_encoder
from rewarm.corpus.views import TRAIN, open_view
from rewarm.errors import BaseModelError, CorpusError
from rewarm.model.chat_template import chat_renderer
from rewarm.planning.plan import load_plan
from rewarm.recipe.base import TokenizerRecipe
from rewarm.recipe.keep import KeepRecipe
from rewarm.recipe.sources import SourceRecipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.run_folder import RunFolder
from rewarm.stages.train import open_views
from tests.support.chat import CHAT_TEMPLATE, give_chat_template
from tests.support.python import Python
from tests.support.road import make_reader_folder

REPOSITORY = Path(__file__).resolve().parents[2]
# A line feed behind a block would be trimmed: written out, each turn ends with one.
LINES = CHAT_TEMPLATE.replace("\n{% endfor %}", "{{ '\\n' }}{% endfor %}")
MARKED = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}s: "
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistants: {% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.role == 'assistant' and not loop.last %}(said){% else %}{{ m.content }}{% endif %}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return give_chat_template(Path(shutil.copytree(tiny_base, tmp_path / "base")), LINES)


def talk(*turns: str, system: str | None = None) -> tuple[dict[str, str], ...]:
    said = [
        {"role": ("user", "assistant")[number % 2], "content": turn}
        for number, turn in enumerate(turns)
    ]
    return (*([{"role": "system", "content": system}] if system else []), *said)


def encoded(base: Path, *messages: Mapping[str, str]) -> Encoded | Refused:
    encoder = open_encoder(base, TokenizerRecipe(), vocab_size=320)
    chats = ChatEncoder(encoder, chat_renderer(base))
    document = Document("x", "", messages=tuple(dict(message) for message in messages))
    (one,) = chats.encode([document])
    return one


def spelled(base: Path, ids: Sequence[int]) -> str:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))


def learned(base: Path, one: Encoded | Refused) -> str:
    """Return the text of the tokens that are trained on."""
    assert isinstance(one, Encoded)
    assert one.counted is not None
    return spelled(base, one.tokens[one.counted].tolist())


def test_answers_with_their_end_are_learned_and_nothing_else_is(base: Path) -> None:
    """By hand: of two turns both answers, each with the token that ends it, without line feeds."""
    one = encoded(base, *talk("Wer?", "Größe 東京", "And 2?", "Two.", system="Be short."))
    assert isinstance(one, Encoded)
    assert one.document.text == (
        "<s>systems: Be short.\nusers: Wer?\nassistants: Größe 東京</s>\n"
        "users: And 2?\nassistants: Two.</s>\n"
    )
    assert spelled(base, one.tokens.tolist()) == one.document.text
    assert learned(base, one).replace(" ", "") == "Größe東京</s>Two.</s>"
    assert one.tokens[0] == 0
    assert one.tokens.tolist().count(1) == 2


@pytest.mark.parametrize("answer", ["", " ", "s", "/s", ">", "</", "ss"])
def test_an_answer_ends_with_its_token_whatever_it_spells(base: Path, answer: str) -> None:
    """Nothing at all, and what the token that ends it is spelt with: never the line feed after."""
    one = encoded(base, *talk("a?", answer, "b?", answer))
    assert learned(base, one).replace(" ", "") == 2 * f"{answer.strip()}</s>"


def test_marks_of_a_template_are_followed_as_the_library_does(base: Path) -> None:
    """The same tokens count as in transformers' own mask, token by token."""
    from transformers import AutoTokenizer

    give_chat_template(base, MARKED)
    messages = talk("Wer bist du?", " Größe  ", "And 2?", "Two 🙂.", system="Be short.")
    tokenizer = AutoTokenizer.from_pretrained(base)
    expected = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    one = encoded(base, *messages)
    assert isinstance(one, Encoded)
    assert one.counted is not None
    assert one.tokens.tolist() == expected["input_ids"]
    assert one.counted.astype(int).tolist() == expected["assistant_masks"]
    assert 0 < one.counted.sum() < len(one.tokens)


def test_marked_and_unmarked_spellings_of_one_template_agree(base: Path) -> None:
    messages = talk("Why?", "Because.", "And?", "So.")
    unmarked = encoded(base, *messages)
    give_chat_template(base, MARKED)
    marked = encoded(base, *messages)
    assert isinstance(unmarked, Encoded)
    assert isinstance(marked, Encoded)
    assert np.array_equal(unmarked.tokens, marked.tokens)
    assert unmarked.counted is not None
    assert marked.counted is not None
    # The blank before an answer belongs to the prompt of one and to a token of both.
    assert np.array_equal(unmarked.counted, marked.counted)


def test_a_template_that_rewrites_what_was_said_is_refused(base: Path) -> None:
    give_chat_template(base, FORGETFUL)
    two = encoded(base, *talk("a?", "b", "c?", "d"))
    assert isinstance(two, Refused)
    assert two.reason == "not_a_prefix"
    assert learned(base, encoded(base, *talk("a?", "b"))).strip() == "b</s>"


def test_a_prompt_that_is_no_beginning_is_refused(base: Path) -> None:
    give_chat_template(base, LINES.replace("assistants: {% endif %}", "helper: {% endif %}"))
    one = encoded(base, *talk("a?", "b"))
    assert isinstance(one, Refused)
    assert one.reason == "not_a_prefix"


@pytest.mark.parametrize("turns", [("Say </s> now", "no"), ("hi", "<s> of mine")])
def test_a_special_token_in_what_was_said_is_rejected(base: Path, turns: tuple[str, str]) -> None:
    """Written into the template's text it would be the token: a user could end a turn."""
    one = encoded(base, *talk(*turns))
    assert isinstance(one, Refused)
    assert one.reason == "special_token"


def test_what_a_template_refuses_is_counted(base: Path) -> None:
    give_chat_template(base, "{{ raise_exception('no system here') }}")
    one = encoded(base, *talk("a?", "b"))
    assert isinstance(one, Refused)
    assert one.reason == "template_refuses"


GOOD = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": GOOD},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversation": [{"role": "User", "content": "q"}, {"role": "model", "content": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"prompt": GOOD[:1], "completion": GOOD[1:]},
        {"messages": json.dumps(GOOD)},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, GOOD[1]]},
        {"messages": None, "conversations": GOOD},
        {"messages": [{**GOOD[0], "from": None, "value": None}, GOOD[1]], "tools": []},
    ],
)
def test_the_usual_shapes(record: dict[str, Any]) -> None:
    assert read_messages(record, None) == tuple(GOOD)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "missing_field"),
        ({"prompt": "q"}, "missing_field"),
        ({"messages": "hello"}, "malformed_json"),
        ({"messages": {"role": "user"}}, "not_a_list"),
        ({"messages": ["hi"]}, "not_a_message"),
        ({"messages": [{"role": "user"}]}, "not_a_message"),
        ({"messages": [{"role": "user", "content": 3}, GOOD[1]]}, "not_a_string"),
        ({"messages": [{"role": "narrator", "content": "x"}, GOOD[1]]}, "unknown_role"),
        ({"messages": [{"role": 7, "content": "x"}, GOOD[1]]}, "unknown_role"),
        ({"messages": GOOD[:1]}, "no_answer"),
        ({"messages": GOOD[1:]}, "no_answer"),
        ({"messages": []}, "no_answer"),
        ({"messages": [GOOD[0], {"role": "assistant", "tool_calls": [{}]}]}, "needs_tools"),
        ({"messages": GOOD, "tools": [{"name": "x"}]}, "needs_tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, GOOD[1]]},
            "not_only_text",
        ),
        ({"prompt": [GOOD[0]], "completion": 3}, "not_a_list"),
    ],
)
def test_other_shapes_have_a_reason(record: dict[str, Any], reason: str) -> None:
    assert read_messages(record, None) == reason


def test_a_field_of_one_s_own() -> None:
    assert read_messages({"turns": GOOD, "messages": "x"}, "turns") == tuple(GOOD)
    assert read_messages({"messages": GOOD}, "turns") == "missing_field"


def recipe(path: str = "chats.jsonl", **fields: Any) -> SourceRecipe:
    fields = {"role": "new", "format": "chat", "held_out": 0.3, **fields}
    return SourceRecipe.model_validate({"path": path, **fields})


def text_of(folder: Path, base: Path, source: SourceRecipe) -> SourceText:
    inputs = resolve_inputs("s", source, folder)
    return SourceText("s", source, inputs, folder, base, TokenizerRecipe())


def prepare(folder: Path, base: Path, source: SourceRecipe) -> CorpusFacts:
    return prepare_source(
        text_of(folder, base, source),
        prepared_root=folder / "prepared",
        vocab_size=320,
        open_chat=chat_renderer,
    )


def write_chats(path: Path, num: int = 40, more: Sequence[dict[str, Any]] = ()) -> None:
    rows: list[dict[str, Any]] = [
        {
            "messages": talk(f"What is {n}?", f"It is {n} 🙂.", "More?", f"Number {n * n}."),
            "lang": ("de", "en", "")[n % 3],
        }
        for n in range(num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))


def test_masks_stand_beside_the_tokens_and_are_read_with_them(tmp_path: Path, base: Path) -> None:
    write_chats(tmp_path / "chats.jsonl")
    facts = prepare(tmp_path, base, recipe())
    view = open_view(facts)
    length = 16
    windows = np.arange(facts.num_windows(length))[::-1].copy()
    labels = view.sequences(windows, length).labels
    counted = labels != IGNORED_LABEL
    assert np.array_equal(labels[counted], view.gather(windows, length)[:, 1:][counted])
    # Independent of windows and masks: what stands between "assistants:" and the end of a turn.
    order = np.argsort(windows)
    found = spelled(base, labels[order][counted[order]].tolist()).replace(" ", "")
    kept = [json.loads(line) for line in (tmp_path / "chats.jsonl").read_text().splitlines()]
    held_out = (Path(facts.folder) / HELD_OUT_CHATS).read_text().splitlines()
    assert len(held_out) == facts.held_out_documents > 0
    away = [json.loads(line)["messages"] for line in held_out]
    said = [
        message["content"].replace(" ", "") + "</s>"
        for row in kept
        if row["messages"] not in away
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    assert "".join(said).startswith(found)
    assert len(found) > 0.9 * len("".join(said))
    assert facts.num_label_tokens is not None
    assert counted.sum() <= facts.num_label_tokens < facts.num_tokens
    assert not facts.all_framed
    estimate = estimate_source(
        text_of(tmp_path, base, recipe()), vocab_size=320, open_chat=chat_renderer
    )
    assert estimate.num_label_tokens is not None
    assert abs(estimate.num_label_tokens / facts.num_label_tokens - 1) < 0.2


def test_packed_conversations_keep_their_masks(tmp_path: Path, base: Path) -> None:
    """Packed or not, the same tokens of answers are labels; packed windows leave out no tail."""
    write_chats(tmp_path / "chats.jsonl")
    facts = prepare(tmp_path, base, recipe())
    view = open_view(facts)
    packed = PackedView(view, pack(view.offsets, 16))
    found = packed.sequences(np.arange(packed.num_windows), 16).labels
    every = view.sequences(np.arange(view.num_tokens - 1), 1).labels  # each label once
    assert facts.num_label_tokens == int((found != IGNORED_LABEL).sum())
    assert sorted(found[found != IGNORED_LABEL]) == sorted(every[every != IGNORED_LABEL])


def test_another_template_is_another_preparation(tmp_path: Path, base: Path) -> None:
    write_chats(tmp_path / "chats.jsonl")
    facts = prepare(tmp_path, base, recipe())
    assert load_facts(text_of(tmp_path, base, recipe()), tmp_path / "prepared") == facts
    give_chat_template(base, LINES.replace("s: ", "> "))
    assert load_facts(text_of(tmp_path, base, recipe()), tmp_path / "prepared") is None


def test_a_mask_that_is_gone_or_changed_is_never_all_labels(tmp_path: Path, base: Path) -> None:
    """Without its mask a conversation's prompts would be trained on, and nobody would see."""
    write_chats(tmp_path / "chats.jsonl")
    facts = prepare(tmp_path, base, recipe())
    (mask,) = Path(facts.folder).glob(f"shard-*{LABEL_MASK}")
    content = mask.read_bytes()
    mask.write_bytes(content[:-1])
    with pytest.raises(CorpusError, match="do not fit"):
        open_view(facts)
    with pytest.raises(CorpusError, match=r"labels\.bin: it changed since prepare"):
        verify_prepared(facts)
    mask.unlink()
    with pytest.raises(CorpusError, match="1 of its masks of labels are gone"):
        open_view(facts)
    again = prepare(tmp_path, base, recipe())
    assert again == facts
    assert mask.read_bytes() == content


def test_bad_conversations_are_counted_and_can_be_looked_at(tmp_path: Path, base: Path) -> None:
    bad = {"messages": [{"role": "user", "content": "only a question"}]}
    write_chats(tmp_path / "chats.jsonl", 300, [bad, {"messages": talk("</s>", "x")}])
    facts = prepare(tmp_path, base, recipe(language_field="lang", licence="CC0"))
    assert facts.rejected == {"no_answer": 1, "special_token": 1}
    rejects = (Path(facts.folder) / "rejects.jsonl").read_text().splitlines()
    found = {row["reason"]: row for row in map(json.loads, rejects)}
    assert found["no_answer"]["where"] == "chats.jsonl:301"
    assert "only a question" in found["no_answer"]["excerpt"]
    assert found["special_token"]["excerpt"].startswith("</s>")
    assert facts.languages.keys() == {"de", "en", "not said"}
    assert sum(facts.languages.values()) == facts.num_documents


def test_a_base_without_a_template_is_told(tmp_path: Path, tiny_base: Path) -> None:
    write_chats(tmp_path / "chats.jsonl")
    with pytest.raises(
        BaseModelError, match=r"sources\.s\.format: conversations cannot be written"
    ):
        prepare(tmp_path, tiny_base, recipe())


RECIPE = """
name = "chats"
base = { path = "my-model", pretraining = { peak_lr = 1e-2, final_lr = 1e-3 } }
budget = { tokens = 1024 }
batch = { tokens = 128, sequence_length = 32 }
training = { num_threads = 1, precision = "float32" }
evaluation = { max_bytes_per_domain = 4000 }
sources.talk = { path = "chats.jsonl", format = "chat", role = "new", held_out = 0.2 }
sources.old = { path = "my-old-text", role = "replay", held_out = 0.1 }

[[phases]]
name = "all"
weights = { talk = 0.5, old = 0.5 }
"""


def test_from_command_to_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan`, `prepare`, `train`: half of the batches are conversations, whose prompts carry no
    loss; how many labels count is exact; held-out answers are measured by themselves."""
    folder = make_reader_folder(tmp_path)
    write_chats(folder / "chats.jsonl", 200)
    recipe_file = folder / "chats.toml"
    recipe_file.write_text(RECIPE)
    assert main(["plan", str(recipe_file)]) == 2
    told = capsys.readouterr().err
    assert "sources.talk.format: the base has no chat template" in told
    assert told.count("sources.talk") == 1
    give_chat_template(folder / "my-model", LINES)
    for command in ("plan", "prepare", "train"):
        assert main([command, str(recipe_file)]) == 0, capsys.readouterr().err
        if command == "prepare":
            assert "% of its tokens are answers" in capsys.readouterr().out
    run = RunFolder(folder / "runs" / "chats")
    plan = load_plan(run.plan)
    views = open_views(plan)
    batches = BatchLoader(
        plan.science.order(), views, sequence_length=32, vocab_size=plan.conduct.model.vocab_size
    )
    for record in run.steps():
        batch = batches.batch(record.step)
        masked = int((batch.labels == IGNORED_LABEL).sum())
        assert record.num_valid_tokens == batch.labels.numel() - masked
        assert masked > 0
    measured = {(one.domain, one.metric) for one in run.evals()}
    assert ("talk", "chat_bits_per_byte") in measured
    assert ("talk", "bits_per_byte") in measured


def contents(folder: Path) -> dict[str, bytes]:
    """Return what determines training: shards, masks, views, tags; not times and versions."""
    endings = (".bin", ".idx", ".npy", ".ids", ".jsonl")
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name.endswith(endings)}


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from rewarm.corpus import encoding, place
from tests.unit.test_chat_source import prepare, recipe

write = encoding.write_shard
def slow(prefix, documents, dtype):
    def delayed():
        for document in documents:
            time.sleep(0.02)
            yield document
    write(prefix, delayed(), dtype)
encoding.write_shard = slow
place._SHARD_INPUT_BYTES = 1
print("ready", flush=True)
prepare(Path({folder!r}), Path({base!r}), recipe("*.jsonl", language_field="lang"))
"""


def test_kills_change_no_byte_of_tokens_masks_and_tags(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SHARD_INPUT_BYTES", 1)
    source = recipe("*.jsonl", language_field="lang")
    for name in ("a", "b", "c"):
        write_chats(tmp_path / f"{name}.jsonl", 40)
    child = CHILD.format(repository=str(REPOSITORY), folder=str(tmp_path), base=str(base))
    for delay_s in (0.1, 0.9):
        process = Python(["-c", child], cwd=tmp_path)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        process.stdout.close()
    killed = contents(Path(prepare(tmp_path, base, source).folder))
    shutil.rmtree(tmp_path / "prepared")
    assert contents(Path(prepare(tmp_path, base, source).folder)) == killed
    assert {"shard-00002.labels.bin", "shard-00002.tags.jsonl", HELD_OUT_CHATS} <= killed.keys()


class ByPlace:
    """Scores documents by where they stand: the first are the lowest."""

    tokens_per_piece = 2**20

    def scores(self, first: int, last: int, /) -> np.ndarray:
        return np.arange(first, last, dtype=np.float64)


def test_of_what_is_kept_the_answers_are_counted(tmp_path: Path, base: Path) -> None:
    """A selection's labels are those of its own documents, counted in the mask itself."""
    write_chats(tmp_path / "chats.jsonl", 40)
    facts = prepare(tmp_path, base, recipe())
    keep = KeepRecipe.model_validate({"lowest": "base-loss", "share": 0.3})
    scoring = Scoring(facts, keep, None, "weights", 320, 64)
    kept = score_source(scoring, lambda view: EachAlone(ByPlace()), progress=lambda told: None)
    (shard,) = Path(facts.folder).glob("shard-*.idx")
    starts = open_shard(shard.with_suffix("")).document_starts
    mask = np.fromfile(f"{shard.with_suffix('')}{LABEL_MASK}", dtype=np.uint8)
    train = np.load(Path(facts.folder) / TRAIN)[: kept.num_documents]
    expected = sum(int(mask[starts[n] : starts[n + 1]].sum()) for n in train)
    assert 0 < kept.num_documents < facts.num_documents
    assert kept.num_label_tokens == expected < (facts.num_label_tokens or 0)
    np.save(f"{shard.with_suffix('')}{LABEL_COUNTS}", np.arange(3))
    with pytest.raises(CorpusError, match="counts of labels disagree"):
        load_selected(scoring)
    Path(f"{shard.with_suffix('')}{LABEL_COUNTS}").write_bytes(b"")
    with pytest.raises(CorpusError, match="cannot be read"):
        load_selected(scoring)


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(
    ("said", "reason"), [("a\0b", "nul"), ("a\ufeffb", "bom"), ("a\ud800", "lone_surrogate")]
)
def test_what_no_text_may_hold_no_message_may(turn: int, said: str, reason: str) -> None:
    messages = [dict(message) for message in talk("why?", "because")]
    assert not isinstance(document_of({"messages": messages}, recipe(), "here"), str)
    messages[turn]["content"] = said
    assert document_of({"messages": messages}, recipe(), "here") == reason
