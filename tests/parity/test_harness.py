"""lm-evaluation-harness through our adapter against its own model class, on the same weights."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewarm.errors import EnvironmentFault, RecipeError
from rewarm.model.load import load_base
from rewarm.recipe.records import HarnessRecipe
from tests.support.harness_tasks import NAMES, make_harness_tasks
from tests.support.tiny_models import make_tiny_base

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_harness_tasks(tmp_path_factory.mktemp("tasks"))


def spread(model: nn.Module) -> nn.Module:
    """Make a fresh model far from uniform, so that a wrong token shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model


@pytest.fixture(scope="module")
def model(base: Path) -> nn.Module:
    return spread(load_base(base)).train()


def opened(base: Path, tasks: Path, *names: str, **more: Any) -> Any:
    from transformers import AutoTokenizer

    from rewarm.evaluation.harness import open_harness

    return open_harness(
        HarnessRecipe(tasks=list(names), include_path=str(tasks), **more),
        recipe_folder=Path("/"),
        tokenizer=AutoTokenizer.from_pretrained(str(base)),
        max_length=128,
    )


def reference(base: Path, model: nn.Module, tasks: Path, *names: str, **more: Any) -> Any:
    """The harness's own evaluation of its own model class."""
    import contextlib

    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    was_training = model.training
    model.eval()
    with contextlib.chdir(tasks):
        results = simple_evaluate(
            HFLM(
                pretrained=model,
                tokenizer=AutoTokenizer.from_pretrained(str(base)),
                backend="causal",
                batch_size=3,
                max_length=128,
            ),
            tasks=list(names),
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            bootstrap_iters=1000,
            **more,
        )
    model.train(was_training)
    assert results is not None
    return results


@pytest.mark.timeout(600)
def test_every_kind_of_figure_is_the_harnesss_own(
    base: Path, model: nn.Module, tasks: Path
) -> None:
    harness = opened(base, tasks, *NAMES)
    found = {record.domain: record for record in harness.measure(model, step=4)}
    expected = reference(base, model, tasks, *NAMES)["results"]
    figures = {
        "own_choice acc": "task_score",
        "own_choice acc_norm": "task_score",
        "own_rolling word_perplexity": "task_perplexity",
        "own_rolling byte_perplexity": "task_perplexity",
        "own_rolling bits_per_byte": "bits_per_byte",
        "own_cloze perplexity": "task_perplexity",
        "own_cloze acc": "task_score",
        "own_writing exact_match": "task_score",
    }
    assert {domain: record.metric for domain, record in found.items()} == figures
    # Their names are known before a model is asked.
    assert harness.figures() == {(metric, domain) for domain, metric in figures.items()}
    for domain, record in found.items():
        task, metric = domain.split(" ")
        assert record.value == pytest.approx(expected[task][f"{metric},none"], rel=1e-5), domain
        # The items give the figure back, whatever it is.
        ratio = sum(record.item_values) / sum(record.item_weights)
        scale: dict[str, Callable[[float], float]] = {
            "task_perplexity": math.exp,
            "bits_per_byte": lambda nats: nats / math.log(2.0),
        }
        assert scale.get(record.metric, float)(ratio) == pytest.approx(record.value, rel=1e-9)
        error = expected[task].get(f"{metric}_stderr,none")
        if record.metric == "task_score":
            assert record.standard_error == pytest.approx(error, rel=1e-6), domain
    assert model.training


@pytest.mark.timeout(600)
def test_answers_of_single_requests_are_the_harnesss_own(
    base: Path, model: nn.Module, tasks: Path
) -> None:
    """Likelihoods, greediness and texts one by one: figures could agree by luck."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from rewarm.evaluation.harness_model import LiveModel
    from rewarm.evaluation.likelihood import Scorer, measuring

    tokenizer = AutoTokenizer.from_pretrained(str(base))

    def asked(kind: str, *arguments: Any) -> Instance:
        return Instance(kind, {}, arguments, 0)

    pairs = [
        asked("loglikelihood", context, rest)
        for context in ("", "The quick", "A text that is long. " * 40, "<s>begun", "spaces  ")
        for rest in (" brown fox", " a", "b", " é🙂")
    ]
    texts = [asked("loglikelihood_rolling", t) for t in ("One.", "The model trains. " * 60, "é")]
    prompts = [
        asked("generate_until", prompt, settings)
        for settings in (
            {"until": ["\n"], "max_gen_toks": 9},
            {"until": ["e", "."]} | {"max_gen_toks": 20},
        )
        for prompt in ("The quick", "def add(", "x" * 300, "A document begins")
    ]
    ours = LiveModel(Scorer(model), tokenizer, max_length=128)
    with measuring(model):
        own = [ours.loglikelihood(pairs, disable_tqdm=True), ours.loglikelihood_rolling(texts)]
        written = ours.generate_until(prompts)
    model.eval()
    theirs = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        backend="causal",
        batch_size=4,
        max_length=128,
    )
    expected = theirs.loglikelihood(pairs, disable_tqdm=True)
    rolling = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    text = theirs.generate_until(prompts, disable_tqdm=True)
    model.train()
    assert [nats for nats, _ in own[0]] == pytest.approx([n for n, _ in expected], rel=1e-5)
    assert [greedy for _, greedy in own[0]] == [greedy for _, greedy in expected]
    assert own[1] == pytest.approx(rolling, rel=1e-5)
    assert written == text
    likeliest = int(model(torch.tensor([tokenizer.encode("The quick")])).logits[0, -1].argmax())
    greedy_pair = [asked("loglikelihood", "The quick", tokenizer.decode(likeliest))]
    with measuring(model):
        ((_, is_greedy),) = ours.loglikelihood(greedy_pair, disable_tqdm=True)
    assert is_greedy
    assert theirs.loglikelihood(greedy_pair, disable_tqdm=True)[0][1]
    assert len(set(written)) > 4


def test_a_groups_questions_are_pooled_as_the_harness_weighs_them(
    base: Path, model: nn.Module, tasks: Path
) -> None:
    harness = opened(base, tasks, "own_group", max_items=11)
    record, *others = harness.measure(model, step=0)
    assert {(one.metric, one.domain) for one in (record, *others)} < harness.figures()
    assert [one.domain for one in others] == ["own_choice acc_norm", "own_cloze perplexity"]
    expected = reference(base, model, tasks, "own_group", limit=11)["groups"]["own_group"]
    assert record.domain == "own_group acc"
    assert record.value == pytest.approx(expected["acc,none"], rel=1e-9)
    assert len(record.item_values) == 22


def test_a_task_beside_its_group_has_each_figure_once(
    base: Path, model: nn.Module, tasks: Path
) -> None:
    records = opened(base, tasks, "own_group", "own_choice", max_items=5).measure(model, step=0)
    domains = [record.domain for record in records]
    assert len(domains) == len(set(domains))
    assert {"own_group acc", "own_choice acc", "own_choice acc_norm"} <= set(domains)


def test_the_same_weights_give_the_same_items_and_key_at_every_evaluation(
    base: Path, model: nn.Module, tasks: Path
) -> None:
    """Examples before the questions are drawn: they must be the same ones each time."""
    harness = opened(base, tasks, "own_writing", "own_choice", num_fewshot=2, max_items=6)
    state = torch.random.get_rng_state()
    first, second = (harness.measure(model, step=step) for step in (0, 7))
    assert torch.equal(torch.random.get_rng_state(), state)
    for before, after in zip(first, second, strict=True):
        assert before.items_key == after.items_key
        assert before.item_values == after.item_values
    (other,) = [
        record
        for record in opened(base, tasks, "own_choice", max_items=6).measure(model, step=0)
        if record.domain == "own_choice acc"
    ]
    assert other.items_key != next(r.items_key for r in first if r.domain == "own_choice acc")


def test_what_cannot_be_loaded_or_asked_is_told(
    base: Path, model: nn.Module, tasks: Path, tmp_path: Path
) -> None:
    (tmp_path / "gone.yaml").write_text(
        "task: gone\ndataset_path: json\ndataset_kwargs: {data_files: {test: gone.jsonl}}\n"
        "output_type: loglikelihood\ntest_split: test\ndoc_to_text: x\ndoc_to_target: y\n"
    )
    with pytest.raises(
        EnvironmentFault, match=r"task 'gone' .* cannot be loaded: FileNotFound"
    ) as e:
        opened(base, tmp_path, "gone")
    assert "data_files are relative to include_path" in e.value.fix
    (tmp_path / "gone.yaml").write_text("task: gone\n  dataset_path: [json\n")
    with pytest.raises(RecipeError, match="see whether the file is valid YAML"):
        opened(base, tmp_path, "gone")
    from transformers import AutoTokenizer

    from rewarm.evaluation.harness import open_harness

    short = open_harness(
        HarnessRecipe(tasks=["own_writing"], include_path=str(tasks)),
        recipe_folder=Path("/"),
        tokenizer=AutoTokenizer.from_pretrained(str(base)),
        max_length=12,
    )
    with pytest.raises(RecipeError, match="asks for 12 new tokens, and the model's longest input"):
        short.measure(model, step=0)


def test_names_are_known_without_importing_the_harness() -> None:
    from rewarm.evaluation.harness_index import harness_folder, near_names, task_names

    folder = harness_folder()
    assert folder is not None
    names = task_names(folder)
    assert {"arc_easy", "hellaswag", "lambada_openai", "mmlu", "ai2_arc", "blimp"} <= names
    assert near_names("hellaswga", names)[0] == "hellaswag"
    assert near_names("arc_esy", names)[0] == "arc_easy"


def test_local_tasks_are_scored_as_the_harness_scores_them(
    base: Path, model: nn.Module, tasks: Path
) -> None:
    """The same items as local tasks: choice by choice, word by word and pair by pair."""
    import json

    from tokenizers import Tokenizer

    from rewarm.evaluation.likelihood import evaluate
    from rewarm.evaluation.passages import Framing
    from rewarm.evaluation.suite import build_suite
    from rewarm.evaluation.tasks import (
        cloze,
        cloze_bits_per_byte,
        minimal_pairs,
        multiple_choice,
        read_cloze,
        read_pairs,
        read_task,
    )

    choices = [json.loads(line) for line in (tasks / "choice.jsonl").read_text().splitlines()]
    pairs = [{"good": item["choices"][0], "bad": item["choices"][1]} for item in choices]
    pairs = [pair for pair in pairs if pair["good"] != pair["bad"]]
    (tasks / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tasks / "pairs.yaml").write_text(
        "task: own_pairs\ndataset_path: json\ndataset_kwargs: {data_files: {test: pairs.jsonl}}\n"
        'output_type: multiple_choice\ntest_split: test\ndoc_to_text: ""\ntarget_delimiter: ""\n'
        'doc_to_choice: "{{[good, bad]}}"\ndoc_to_target: 0\nmetric_list: [{metric: acc}]\n'
    )
    names = ("own_choice", "own_cloze", "own_pairs")
    theirs = {r.domain: r for r in opened(base, tasks, *names).measure(model, step=0)}
    told: dict[str, Any] = {
        "tokenizer": Tokenizer.from_file(str(base / "tokenizer.json")),
        "framing": Framing((0,), (1,)),  # as the tokenizer begins a text: <s>
    }
    suite = build_suite(
        [
            multiple_choice(
                read_task(tasks / "choice.jsonl"), domain="choice", normalise="none", **told
            ),
            cloze(read_cloze(tasks / "cloze.jsonl"), domain="cloze", **told),
            cloze_bits_per_byte(read_cloze(tasks / "cloze.jsonl"), domain="bits", **told),
            minimal_pairs(read_pairs(tasks / "pairs.jsonl"), domain="pairs", **told),
        ],
        sequence_length=128,
    )
    ours = {record.domain: record for record in evaluate(model, suite, step=0)}
    assert ours["choice"].item_values == theirs["own_choice acc"].item_values
    assert 0 < ours["choice"].value < 1
    assert ours["cloze"].item_values == theirs["own_cloze acc"].item_values
    nats = theirs["own_cloze perplexity"].item_values
    assert ours["bits"].item_values == pytest.approx(nats, rel=1e-5)
    assert ours["pairs"].item_values == theirs["own_pairs acc"].item_values
    assert 0 < ours["pairs"].value < 1
