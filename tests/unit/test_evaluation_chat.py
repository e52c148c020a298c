"""The chat format's retention: what is scored, of which turns, and what is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer

from rewarm.errors import CorpusError, PlanError
from rewarm.evaluation.chat import (
    CHAT_DOMAIN,
    Conversation,
    chat_bits_per_byte,
    read_conversations,
)
from rewarm.evaluation.chat_turns import BUILT_IN_CONVERSATIONS
from rewarm.evaluation.likelihood import evaluate
from rewarm.evaluation.statistics import least_items
from rewarm.evaluation.suite import build_suite
from rewarm.model.chat_template import chat_renderer
from rewarm.model.load import load_base
from rewarm.planning.model_facts import read_model_facts
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from tests.support.chat import CHAT_TEMPLATE, give_chat_template
from tests.support.fake_facts import make_corpus_facts, make_model_facts
from tests.support.held_out import byte_tokenizer


def talk(*texts: str) -> Conversation:
    """The user begins, and the two take turns."""
    return tuple(
        {"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)
    )


def tokenizer_with_ends() -> Tokenizer:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return tokenizer


def plain_render(messages: Conversation, begin_answer: bool) -> str:
    text = "".join(f"{m['role'][0]}:{m['content']}<end>\n" for m in messages)
    return text + "a:" * begin_answer


def test_the_answer_and_the_end_of_its_turn_are_scored_and_nothing_else() -> None:
    tokenizer = tokenizer_with_ends()
    measure, warnings = chat_bits_per_byte(
        [talk("Hi?", "Ja, né!")], render=plain_render, tokenizer=tokenizer, max_items=9
    )
    assert measure is not None
    (passage,) = measure.passages
    scored = tokenizer.decode(
        passage.tokens[passage.num_context :].tolist(), skip_special_tokens=False
    )
    before = tokenizer.decode(
        passage.tokens[: passage.num_context].tolist(), skip_special_tokens=False
    )
    assert scored == "Ja, né!<end>"
    assert before == "u:Hi?<end>\na:"
    assert measure.weights == (len("Ja, né!".encode()),)  # the end has nats, but no bytes
    assert (measure.domain, measure.role) == (CHAT_DOMAIN, "general")
    assert warnings == (
        f"chat format: 1 conversations; a verdict needs {least_items()}: give evaluation.chat more",
    )


def test_a_token_that_is_not_special_ends_no_turn() -> None:
    def thinking(messages: Conversation, begin_answer: bool) -> str:
        return plain_render(messages, begin_answer).replace("a:x", "a:<think>x")

    measure, _ = chat_bits_per_byte(
        [talk("q", "x")], render=thinking, tokenizer=tokenizer_with_ends(), max_items=9
    )
    assert measure is not None
    assert measure.passages[0].num_scored == 3
    assert measure.weights == (len("<think>x"),)


def test_the_answers_of_a_conversation_are_one_item() -> None:
    measure, _ = chat_bits_per_byte(
        [talk("a?", "aa", "b?", "bbb"), talk("c?", "c")],
        render=plain_render,
        tokenizer=tokenizer_with_ends(),
        max_items=9,
    )
    assert measure is not None
    assert len(measure.passages) == 3
    by_bytes = dict(zip(measure.weights, range(2), strict=True))
    nats = np.array([float(passage.num_scored) for passage in measure.passages])
    values = measure.item_values(nats)
    assert values[by_bytes[5]] == 3 + 4  # two answers with their ends
    assert values[by_bytes[1]] == 2


def test_a_cap_takes_whole_conversations() -> None:
    many = [talk(f"{k}?", "x" * (k + 1)) for k in range(20)]
    measure, _ = chat_bits_per_byte(
        many, render=plain_render, tokenizer=tokenizer_with_ends(), max_items=7
    )
    assert measure is not None
    assert len(measure.weights) == 7


def test_what_the_template_refuses_or_rewrites_is_told_and_left_out() -> None:
    def choosy(messages: Conversation, begin_answer: bool) -> str:
        if messages[0]["role"] == "system":
            raise ValueError("no system messages")
        if "rewrite" in messages[0]["content"] and len(messages) > 1:
            return "something else"
        return plain_render(messages, begin_answer)

    conversations = [
        ({"role": "system", "content": "Be brief."}, *talk("q", "a")),
        talk("rewrite me", "a"),
        talk("q", "a"),
    ]
    measure, warnings = chat_bits_per_byte(
        conversations, render=choosy, tokenizer=tokenizer_with_ends(), max_items=9
    )
    assert measure is not None
    assert len(measure.weights) == 1
    assert "2 answers are not scored" in warnings[0]
    nothing, warnings = chat_bits_per_byte(
        conversations[:2], render=choosy, tokenizer=tokenizer_with_ends(), max_items=9
    )
    assert nothing is None
    assert "no answers to score" in warnings[-1]


def test_the_figure_is_the_models_own_likelihood(tiny_base: Path, tmp_path: Path) -> None:
    """Against transformers' tokens and log-probabilities, added up by hand."""
    from transformers import AutoTokenizer

    base = give_chat_template(Path(shutil.copytree(tiny_base, tmp_path / "base")))
    conversations = [talk("The dog?", "A fox."), talk("Two?", "Naïve.", "Why?", "So that 東.")] * 4
    built = chat_bits_per_byte(
        conversations,
        render=chat_renderer(base),
        tokenizer=Tokenizer.from_file(str(base / "tokenizer.json")),
        max_items=100,
    )
    model = load_base(base)
    (record,) = evaluate(model, build_suite([built], sequence_length=128), step=0)

    library = AutoTokenizer.from_pretrained(base)
    nats = num_bytes = 0.0
    for conversation in conversations:
        for turn in range(1, len(conversation), 2):
            ids = library.apply_chat_template(
                list(conversation[: turn + 1]), tokenize=True, return_dict=False
            )
            given = library.apply_chat_template(
                list(conversation[:turn]), add_generation_prompt=True, tokenize=False
            )
            start = len(library(given, add_special_tokens=False)["input_ids"])
            stop = len(ids) - [*reversed(ids)].index(library.eos_token_id)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0].double()
            for place in range(start, stop):
                nats -= float(logits[place - 1].log_softmax(-1)[ids[place]])
            num_bytes += len(conversation[turn]["content"].encode())
    assert record.metric == "chat_bits_per_byte"
    assert sum(record.item_weights) == num_bytes
    assert record.value == pytest.approx(nats / (np.log(2) * num_bytes), rel=1e-5)


def test_the_date_that_a_template_writes_is_the_same_every_day(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    plain = chat_renderer(give_chat_template(base))(talk("q"), False)
    give_chat_template(base, "{{ strftime_now('%Y-%m-%d, %d %B') }}" + CHAT_TEMPLATE)
    assert chat_renderer(base)(talk("q"), False) == f"2025-01-01, 01 January{plain}"


def test_a_template_that_raises_is_a_value_error(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    give_chat_template(base, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValueError, match="roles must alternate"):
        chat_renderer(base)(talk("q"), False)
    give_chat_template(base, "{% for")
    with pytest.raises(ValueError, match="refuses the messages"):
        chat_renderer(base)(talk("q"), False)


def test_the_built_in_turns_are_enough_for_a_verdict() -> None:
    assert len(BUILT_IN_CONVERSATIONS) >= 3 * least_items()
    assert len(set(map(str, BUILT_IN_CONVERSATIONS))) == len(BUILT_IN_CONVERSATIONS)
    for conversation in BUILT_IN_CONVERSATIONS:
        assert [m["role"] for m in conversation] == ["user", "assistant"] * (len(conversation) // 2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "messages is not a list"),
        ('{"messages": []}', "messages is not a list"),
        ('{"messages": ["hi"]}', r"messages\[0\] has no role"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', r"messages\[0\] has no role"),
        ('{"messages": [{"role": "user", "content": 3}]}', r"content of messages\[0\]"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no message is the assistant's"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "no message is the assistant's"),
    ],
)
def test_malformed_messages_are_named_by_file_and_line(
    tmp_path: Path, line: str, message: str
) -> None:
    good = json.dumps({"messages": list(talk("q", "a"))})
    path = tmp_path / "chat.jsonl"
    path.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(CorpusError, match=message) as caught:
        read_conversations(path)
    assert caught.value.problems[0].where == f"{path}:3"
    path.write_text(f"{good}\n")
    assert read_conversations(path) == [talk("q", "a")]


# What a plan says


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "list"])
def test_a_base_with_a_chat_template_is_known(tiny_base: Path, tmp_path: Path, where: str) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    assert not read_model_facts(base).has_chat_template
    if where == "chat_template.jinja":
        (base / where).write_text(CHAT_TEMPLATE)
    else:
        several = [{"name": "default", "template": CHAT_TEMPLATE}]
        config = json.loads((base / "tokenizer_config.json").read_text())
        config["chat_template"] = several if where == "list" else CHAT_TEMPLATE
        (base / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_model_facts(base).has_chat_template
    assert "s: q" in chat_renderer(base)(talk("q"), False)


RECIPE = """
name = "chat"
base = { path = "base", pretraining = { peak_lr = 1e-3, final_lr = 1e-4 } }
budget = { tokens = 20_000 }
batch = { tokens = 2_048, sequence_length = 128 }
sources.new = { path = "x", role = "new" }
phases = [{ name = "all", weights = { new = 1.0 } }]
"""


def test_the_plan_warns_of_a_chat_template_with_reason_and_remedy() -> None:
    corpora = {"new": make_corpus_facts("new")}
    tuned = make_model_facts().model_copy(update={"has_chat_template": True})
    plan = resolve(parse_recipe(RECIPE), tuned, corpora, base_folder="base")
    (warning,) = [line for line in plan.warnings if "chat template" in line]
    assert "wears such tuning off" in warning
    assert "rewarm merge --method chat-vector" in warning
    plain = resolve(parse_recipe(RECIPE), make_model_facts(), corpora, base_folder="base")
    assert not any("chat" in line for line in plain.warnings)


def test_messages_for_a_base_without_a_template_are_a_mistake() -> None:
    recipe = parse_recipe(RECIPE + 'evaluation.chat = "chat.jsonl"\n')
    with pytest.raises(PlanError, match=r"evaluation\.chat: the base has no chat template"):
        resolve(recipe, make_model_facts(), {"new": make_corpus_facts("new")}, base_folder="base")
