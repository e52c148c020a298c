"""The table of released bases: whole, in line with second documents, never above a recipe."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from rewarm.cli import main
from rewarm.errors import PlanError
from rewarm.planning.base_facts import Shape
from rewarm.planning.known_bases import KNOWN_BASES, recognise, shape_in_config
from rewarm.planning.plan import Plan
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import load_recipe, parse_recipe
from tests.support.fake_facts import make_corpus_facts, make_model_facts
from tests.support.road import make_reader_folder

BY_NAME = {base.name: base for base in KNOWN_BASES}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DOCUMENT = re.compile(r"arXiv \d{4}\.\d{5}|github\.com/|huggingface\.co/")
FACTS = (
    "schedule",
    "peak_lr",
    "final_lr",
    "tokens",
    "batch_tokens",
    "sequence_length",
    "betas",
    "weight_decay",
)


# The table


def test_names_and_hub_ids_are_each_there_once() -> None:
    assert len(BY_NAME) == len(KNOWN_BASES)
    ids = [hub_id.lower() for base in KNOWN_BASES for hub_id in base.hub_ids]
    assert len(set(ids)) == len(ids)
    assert all(HUB_ID.fullmatch(hub_id) for hub_id in ids)


def test_the_families_that_people_ask_for_are_there() -> None:
    assert {base.family for base in KNOWN_BASES} == {
        *("Pythia", "OLMo 1", "OLMo 2", "OLMo 3", "SmolLM 1", "SmolLM 2", "SmolLM 3"),
        *("Llama 1", "Llama 2", "Llama 3", "Llama 3.1", "Llama 3.2"),
        *("Qwen 2", "Qwen 2.5", "Qwen 3", "Gemma 1", "Gemma 2", "Gemma 3"),
    }


@pytest.mark.parametrize("base", KNOWN_BASES, ids=lambda base: base.name)
def test_every_fact_names_its_document(base: Any) -> None:
    for key in FACTS:
        fact = getattr(base, key)
        if fact is not None:
            assert DOCUMENT.search(fact.source), key
    assert base.data.hub_ids
    assert all(HUB_ID.fullmatch(hub_id) for hub_id in base.data.hub_ids)
    assert base.data.is_proxy == base.data.source.startswith("our choice: ")


@pytest.mark.parametrize("base", KNOWN_BASES, ids=lambda base: base.name)
def test_numbers_are_possible(base: Any) -> None:
    if base.peak_lr is not None:
        assert 5e-5 <= base.peak_lr.value <= 5e-3
    if base.final_lr is not None:
        assert 0 <= base.final_lr.value <= base.peak_lr.value / 10 * 1.001
    if base.tokens is not None:
        assert 1e11 < base.tokens.value < 1e14
    if base.betas is not None:
        assert all(0.8 < beta < 1 for beta in base.betas.value)
    for fact in (base.batch_tokens, base.sequence_length):
        assert fact is None or 1024 <= fact.value < 1e8


@pytest.mark.parametrize(
    ("name", "second_stage_starts_at", "after_tokens", "of_tokens"),
    [
        # Rates and steps of the configurations of the second stage, github.com/allenai/OLMo.
        ("OLMo 2 1B", 7.4487e-5, 4.0e12, 5e12),
        ("OLMo 2 7B", 6.1499e-5, 928_646 * 1024 * 4096, 5e12),
        ("OLMo 2 13B", 9e-5, 596_057 * 2048 * 4096, 5e12),
    ],
)
def test_the_peak_leads_to_the_rate_at_which_the_second_stage_begins(
    name: str, second_stage_starts_at: float, after_tokens: float, of_tokens: float
) -> None:
    """Peaks are the paper's; the rates they must lead to stand in other files."""
    peak = BY_NAME[name].peak_lr
    assert peak is not None
    floor = peak.value / 10
    progress = min(1.0, after_tokens / of_tokens)
    rate = floor + (peak.value - floor) * (1 + math.cos(math.pi * progress)) / 2
    assert rate == pytest.approx(second_stage_starts_at, rel=0.01)


@pytest.mark.parametrize(
    "base", [base for base in KNOWN_BASES if base.shape], ids=lambda base: base.name
)
def test_a_shape_is_about_as_large_as_its_name_says(base: Any) -> None:
    """12 layers · hidden² and the embedding, against the number in the name."""
    named = re.search(r"([\d.]+)([MB])\b", base.name)
    assert named is not None
    size = float(named[1]) * {"M": 1e6, "B": 1e9}[named[2]]
    shape = base.shape
    body = 12 * shape.num_layers * shape.hidden_size**2
    vocabulary = (shape.vocab_size or 100_000) * shape.hidden_size
    # Names count the embedding or not, once or twice; blocks are up to half wider than 12 hidden².
    assert 0.6 * size < body * 1.5 + 2 * vocabulary
    assert body * 0.7 < 1.1 * size


# Recognising


def test_a_hub_id_is_recognised_however_it_is_written() -> None:
    found = recognise((None, "eleutherai/PYTHIA-410m"), None)
    assert found is not None
    assert found.by_name
    assert found.name == "Pythia 410M"


def test_an_instruct_version_is_not_taken_for_its_base() -> None:
    assert recognise(("meta-llama/Llama-3.1-8B-Instruct",), None) is None


def test_a_shape_stands_for_all_that_share_it_and_what_they_have_in_common() -> None:
    found = recognise(("my/copy",), Shape("gpt_neox", 1024, 24, 50304, 2048))
    assert found is not None
    assert not found.by_name
    assert found.name == "Pythia 410M or Pythia 410M deduped"
    peak = found.fact("peak_lr")
    assert peak is not None
    assert peak.value == 3e-4
    assert len(found.replay_data()) == 2


def test_positions_tell_releases_of_one_size_apart_where_they_are_still_the_bases() -> None:
    def named(positions: int) -> str:
        found = recognise((), Shape("llama", 4096, 32, 128256, positions))
        assert found is not None
        return found.name

    assert named(8192) == "Llama 3 8B"
    assert named(131072) == "Llama 3.1 8B"
    assert named(16384) == "Llama 3 8B or Llama 3.1 8B"


def test_facts_in_which_they_differ_are_nobodys() -> None:
    found = recognise((), Shape("qwen2", 896, 24, 151936, 4096))
    assert found is not None
    assert found.name == "Qwen2 0.5B or Qwen2.5 0.5B"
    assert found.fact("tokens") is None
    length = found.fact("sequence_length")
    assert length is not None
    assert length.value == 4096


def test_a_vocabulary_that_grew_is_another_shape() -> None:
    assert recognise((), Shape("gpt_neox", 1024, 24, 50305, 2048)) is None


@pytest.mark.parametrize(
    "config", [{}, {"model_type": "llama"}, {"model_type": 3, "hidden_size": "x"}]
)
def test_a_config_that_gives_no_shape_is_nobodys(config: dict[str, Any]) -> None:
    assert shape_in_config(config) is None


# In a plan


def planned(
    *,
    base: str = 'path = "org/model"\nhub_id = "EleutherAI/pythia-410m"',
    pretraining: str = "",
    schedule: str = "",
    role: str = "new",
    **model: Any,
) -> Plan:
    recipe = parse_recipe(
        f"""
        name = "test"
        budget = {{ tokens = "10M" }}
        batch = {{ tokens = 65536 }}
        [base]
        {base}
        [base.pretraining]
        {pretraining}
        [schedule]
        {schedule}
        [sources.text]
        path = "x"
        role = "{role}"
        max_epochs = 100
        max_epochs_reason = "a test"
        [[phases]]
        name = "one"
        weights = {{ text = 1.0 }}
        """
    )
    facts = make_model_facts(max_positions=4096).model_copy(update=model)
    corpora = {"text": make_corpus_facts("text", recipe.sources["text"].role)}
    return resolve(recipe, facts, corpora, base_folder="base")


def reasons(plan: Plan) -> dict[str, tuple[str, str]]:
    return {reason.field: (reason.value, reason.source) for reason in plan.reasons}


def test_what_the_recipe_leaves_out_is_taken_with_its_source() -> None:
    plan = planned()
    source = "github.com/EleutherAI/pythia, models/410M/pythia-410m.yml"
    told = reasons(plan)
    assert told["base"][0] == "Pythia 410M"
    assert told["base.pretraining.peak_lr"] == ("0.0003", source)
    assert told["base.pretraining.final_lr"] == ("3e-05", source)
    assert plan.science.lr(0) == 3e-5
    assert plan.science.sequence_length == 2048
    assert plan.conduct.base_pretraining.tokens == 299_892_736_000
    assert not any("shape" in warning for warning in plan.warnings)


def test_a_recipe_that_says_all_is_left_alone() -> None:
    said = (
        'peak_lr = 3e-4\nfinal_lr = 3e-5\ntokens = "300B"\nschedule = "mine"\n'
        "batch_tokens = 2097152\nsequence_length = 2048"
    )
    plan = planned(pretraining=said)
    assert not any(field.startswith("base.pretraining") for field in reasons(plan))
    assert plan.conduct.base_pretraining.schedule == "mine"
    assert len(plan.warnings) == 2  # that nothing is replayed, and what could be


def test_where_they_disagree_the_recipe_stands_and_both_are_told() -> None:
    plan = planned(pretraining="peak_lr = 1e-3\nsequence_length = 1024")
    peak = next(warning for warning in plan.warnings if "base.pretraining.peak_lr" in warning)
    assert "the recipe says 0.001, which is used" in peak
    assert "Pythia 410M was trained with 0.0003 (github.com/EleutherAI/pythia" in peak
    length = next(w for w in plan.warnings if "base.pretraining.sequence_length" in w)
    assert "the recipe says 1024" in length
    assert plan.science.sequence_length == 1024
    # The other rate is not taken from a pretraining that this is not.
    assert plan.conduct.base_pretraining.final_lr is None
    assert plan.science.lr(0) == pytest.approx(1e-4)


def test_a_final_rate_of_nothing_is_told_and_replaced_aloud() -> None:
    plan = planned(base='path = "x"\nhub_id = "allenai/OLMo-2-1124-7B"')
    assert plan.conduct.base_pretraining.final_lr == 0
    assert any("the base's final learning rate is 0" in warning for warning in plan.warnings)
    assert plan.science.lr(0) == pytest.approx(3e-5)


def test_an_earlier_checkpoint_did_not_end_at_the_last_ones_rate() -> None:
    named = 'path = "x"\nhub_id = "EleutherAI/pythia-410m"\nrevision = '
    plan = planned(base=named + '"step1000"')
    assert plan.conduct.base_pretraining.final_lr is None
    assert plan.conduct.base_pretraining.tokens is None
    assert plan.conduct.base_pretraining.peak_lr == 3e-4
    assert any("base.revision = 'step1000'" in warning for warning in plan.warnings)
    pinned = planned(base=named + '"9879c9b5f8bea9051dcb0e68dff21493d67e9d4f"')
    assert pinned.conduct.base_pretraining.final_lr == 3e-5


def test_a_base_recognised_by_its_shape_says_that_it_may_be_another() -> None:
    shape: dict[str, Any] = {
        "model_type": "gpt_neox",
        "hidden_size": 1024,
        "num_layers": 24,
        "vocab_size": 50304,
        "max_positions": 2048,
    }
    plan = planned(base='path = "somewhere"', **shape)
    assert plan.conduct.base_pretraining.final_lr == 3e-5
    assert any("has the shape of Pythia 410M or" in warning for warning in plan.warnings)
    named = planned(base='path = "somewhere"\nhub_id = "me/my-410m"', **shape)
    assert any("'me/my-410m' is not in the table" in warning for warning in named.warnings)


def test_a_length_beyond_the_checkpoints_positions_is_not_taken() -> None:
    assert planned(max_positions=512).science.sequence_length == 512


def test_rates_that_nobody_published_are_not_to_be_looked_for() -> None:
    qwen = 'path = "x"\nhub_id = "Qwen/Qwen2.5-7B"'
    with pytest.raises(PlanError, match=r"no document was found .* Qwen2\.5 7B"):
        planned(base=qwen)
    assert planned(base=qwen, schedule="peak_lr = 2e-5").science.lr(0) == 2e-5


def test_data_to_replay_are_named_where_nothing_is_replayed() -> None:
    hints = [warning for warning in planned().warnings if "role 'replay'" in warning]
    assert len(hints) == 1
    assert "is open (EleutherAI/pile-standard-pythia-preshuffled)" in hints[0]
    assert not any("role 'replay'" in warning for warning in planned(role="replay").warnings)
    llama = planned(base='path = "x"\nhub_id = "meta-llama/Llama-2-7b-hf"')
    hint = next(warning for warning in llama.warnings if "role 'replay'" in warning)
    assert "is not published" in hint
    assert "a proxy, our choice" in hint


def test_an_unknown_base_is_as_before() -> None:
    with pytest.raises(PlanError, match="needs the base's final learning rate"):
        planned(base='path = "org/model"')
    plan = planned(base='path = "org/model"', pretraining="final_lr = 1e-4")
    assert "base" not in reasons(plan)


# At the command line


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reader_folder(tmp_path_factory.mktemp("known"))


def test_plan_shows_what_it_took_from_where(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reader)
    (reader / "known.toml").write_text(
        'name = "known"\nbudget = { tokens = "20k" }\nbatch = { tokens = 128 }\n'
        'base = { path = "my-model", hub_id = "EleutherAI/pythia-410m" }\n'
        'sources.new = { path = "my-text", role = "new", held_out = 0.06 }\n'
        'phases = [{ name = "new", weights = { new = 1.0 } }]\n'
    )
    assert main(["plan", "known.toml", "-o", "batch.tokens=128"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Pythia 410M" in told
    assert "models/410M/pythia-410m.yml" in told
    assert "pile-standard-pythia-preshuffled" in told


def test_init_fills_in_what_is_known_of_the_base(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reader)
    (reader / "pythia").mkdir()
    config = {
        "model_type": "gpt_neox",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    }
    (reader / "pythia" / "config.json").write_text(json.dumps(config))
    flags = ["--base", "pythia", "--text", "my-text", "--budget", "10M"]
    assert main(["init", "pythia.toml", *flags]) == 0
    assert "cannot be planned yet" in capsys.readouterr().out  # it has no weights
    text = (reader / "pythia.toml").read_text()
    recipe = load_recipe(reader / "pythia.toml")
    assert recipe.base.pretraining.peak_lr == 3e-4
    assert recipe.base.pretraining.final_lr == 3e-5
    assert recipe.batch.sequence_length == 2048
    assert "has the shape of Pythia 410M or Pythia 410M deduped" in text
    assert "final_lr = 3e-05  # github.com/EleutherAI/pythia, models/410M/" in text
    assert "EleutherAI/the_pile_deduplicated" in text

    assert main(["init", "own.toml", *flags, "--peak-lr", "1e-3"]) == 0
    own = load_recipe(reader / "own.toml").base.pretraining
    assert (own.peak_lr, own.final_lr) == (1e-3, None)
