"""The plan's numbers against arithmetic by hand, and every problem told at once."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from rewarm.artifacts import read_json, write_json
from rewarm.errors import PlanError
from rewarm.planning.plan import PLAN_FORMAT, Plan, load_plan, save_plan, science_diff
from rewarm.planning.resolve import resolve
from rewarm.recipe.load import parse_recipe
from rewarm.records.facts import CorpusFacts
from rewarm.records.packing import PackingFacts, Windows
from rewarm.units import format_bytes
from tests.support.fake_facts import make_corpus_facts, make_model_facts

RECIPE = """
name = "x"
[base]
path = "base"
[base.pretraining]
peak_lr = 1e-3
final_lr = 1e-4
[sources.old]
path = "a.jsonl"
role = "general"
[sources.new]
path = "b.jsonl"
role = "new"
[sources.qa]
path = "qa.jsonl"
role = "qa"
[[phases]]
name = "general"
weights = { old = 1, new = 3 }
until = { lr_below = "start/5" }
[[phases]]
name = "qa"
weights = { old = 0.2, new = 0.7, qa = 0.1 }
[budget]
tokens = "1M"
[batch]
tokens = 1_280
sequence_length = 128
"""

CORPORA = {
    "old": make_corpus_facts("old", "general"),
    "new": make_corpus_facts("new"),
    "qa": make_corpus_facts("qa", "qa"),
}


def plan_of(
    *overrides: str, text: str = RECIPE, corpora: Mapping[str, CorpusFacts] = CORPORA
) -> Plan:
    recipe = parse_recipe(text, overrides=overrides)
    return resolve(recipe, make_model_facts(), corpora, base_folder="base")


def packing_of(name: str, *, num_windows: int) -> PackingFacts:
    return PackingFacts(
        sequence_length=128,
        num_documents=1000,
        num_long=3,
        num_tokens=1_000_000,
        contiguous=Windows(num_windows=7812, num_text_tokens=7812 * 128, num_cut=900),
        best_fit=Windows(num_windows=num_windows, num_text_tokens=999_999, num_cut=3),
        fingerprint=f"bins of {name}",
    )


def test_best_fit_windows_are_the_bins_of_each_source() -> None:
    recipe = parse_recipe(RECIPE, overrides=["batch.packing=best-fit"])
    # 999,999 tokens in 7,900 windows of 128 leave 1.1 %; in 8,300 they leave 5.9 %.
    packings = {
        "old": packing_of("old", num_windows=7900),
        "new": packing_of("new", num_windows=8300),
        "qa": packing_of("qa", num_windows=7900),
    }
    plan = resolve(recipe, make_model_facts(), CORPORA, base_folder="base", packings=packings)
    assert [(source.num_windows, source.bins) for source in plan.science.sources] == [
        (7900, "bins of old"),
        (8300, "bins of new"),
        (7900, "bins of qa"),
    ]
    told = [warning for warning in plan.warnings if "padding" in warning]
    assert len(told) == 1
    assert "source 'new': 5.9% of its best-fit sequences is padding" in told[0]
    other = resolve(
        recipe,
        make_model_facts(),
        CORPORA,
        base_folder="base",
        packings={**packings, "qa": packings["qa"].model_copy(update={"fingerprint": "other"})},
    )
    assert other.fingerprint != plan.fingerprint


def problems_of(
    *overrides: str, text: str = RECIPE, corpora: Mapping[str, CorpusFacts] = CORPORA
) -> list[str]:
    with pytest.raises(PlanError) as caught:
        plan_of(*overrides, text=text, corpora=corpora)
    return [str(problem) for problem in caught.value.problems]


def test_the_numbers_of_reuse_by_hand() -> None:
    science = plan_of().science
    assert science.num_steps == 781  # floor(1,000,000 / 1,280)
    assert science.sequences_per_step == 10
    # 0.7113 of 781 steps is 555.5: the first step below a fifth of the start is 556.
    assert [phase.start_step for phase in science.phases] == [0, 556]
    assert science.lr(555) >= 1e-4 / 5 > science.lr(556)
    assert science.lr(0) == 1e-4
    assert science.schedule[-1].end_lr == pytest.approx(1e-6)
    general, qa = science.phases
    # Sequences of a phase are dealt by weight to within one sample of each source.
    assert sum(general.samples) == 5560
    assert general.samples == (1390, 4170, 0)
    assert sum(qa.samples) == 2250
    assert qa.samples[2] == pytest.approx(225, abs=1)


def test_the_budget_is_never_exceeded() -> None:
    for tokens in (1_280, 1_281, 99_999, 1_000_000):
        science = (
            plan_of(f"budget.tokens={tokens}", "phases.0.until={fraction=0.5}").science
            if (tokens > 2_560)
            else plan_of(f"budget.tokens={tokens}", text=one_phase()).science
        )
        assert tokens - 1_280 < science.num_tokens <= tokens


def one_phase() -> str:
    head, _, rest = RECIPE.partition("[[phases]]")
    budget = rest[rest.index("[budget]") :]
    return head + '[[phases]]\nname = "all"\nweights = { new = 1 }\n' + budget


def test_every_choice_has_its_reason_and_source() -> None:
    plan = plan_of()
    reasons = {reason.field: reason for reason in plan.reasons}
    assert "2407.07263" in reasons["schedule.peak_lr"].source
    assert "steps 556 to 780" in reasons["phases.qa"].value
    assert reasons["steps"].value == "781"
    assert reasons["documents"].value == "<s> … </s>"
    assert "320 tokens are left over" in reasons["steps"].reason
    assert {"schedule.area", "schedule.warmup", "schedule.final_lr"} <= reasons.keys()


def test_compute_and_memory_by_hand() -> None:
    estimates = {estimate.name: estimate.value for estimate in plan_of().estimates}
    # Body 900,000 + tied head 1000·100; attention 12·4·4·25·128/2 = 307,200 per token.
    per_token = 6 * (900_000 + 100_000) + 307_200
    assert estimates["training compute"] == pytest.approx(per_token * 781 * 1280)
    assert estimates["weights, gradients and moments"] == 16_000_000


def test_peak_memory_by_hand() -> None:
    """Of a Llama: 4 layers of width 100, 4 heads of 25, middle 300, vocabulary 1,000, tied.

    A micro-batch holds all ten sequences of 128. A block keeps per token: two norms, of each what
    went in and what it divided (4 · 100); what projections and feed-forward part read (2 · 100);
    queries, keys, values and the result of attention, once more where documents are put together
    again (5 · 100); gate, activation, up and product (4 · 300). Around the blocks: embedding, last
    norm (3 · 100) and three integers of 8 bytes. The allocator leaves 1.1 of what is kept between
    it, and 20 in a hundred of what passes: of logits of 5 MB, not of those that are mapped.
    """
    plan = plan_of('training.precision="float32"')
    peak = next(estimate for estimate in plan.estimates if estimate.name == "peak memory")
    tokens = 10 * 128
    kept = tokens * (4 * 4 * (400 + 200 + 500 + 1200) + 4 * 300 + 3 * 8)
    logits = 3 * 4 * tokens * 1000
    fragmentation = int(1.1 * kept + 0.2 * logits)
    assert peak.value == 12 * 1_000_000 + kept + logits + fragmentation
    assert f"{format_bytes(fragmentation)} fragmentation" in peak.formula
    assert peak.formula.endswith(
        "10 sequences at a time in float32 on a CPU; beside the process's own (--probe measures it)"
    )


def test_peak_memory_counts_what_a_divergence_takes() -> None:
    """Beside the plain loss's logits, their log-softmax and gradient: the teacher's logits, four
    arrays of the divergence, and the base's own million weights.
    """
    plain, taught = (
        next(
            e for e in plan_of('training.precision="float32"', *more).estimates if "peak" in e.name
        )
        for more in ([], ["retention.distill.on=new"])
    )
    logits = 10 * 128 * 4 * 1000
    more = (4 + 4 - 3) * logits
    added = more + 0.2 * more + 4 * 1_000_000
    assert taught.value - plain.value == pytest.approx(added, abs=1)
    assert f"{format_bytes(4 * 1_000_000)} retention" in taught.formula


def test_peak_memory_counts_no_activations_of_layers_that_never_train() -> None:
    """Of four layers the lower two keep nothing of a block's 2,300 values of a token."""
    matrices = {f"self_attn.{name}_proj": (100, 100) for name in "qkvo"}
    matrices |= {
        "mlp.gate_proj": (300, 100),
        "mlp.up_proj": (300, 100),
        "mlp.down_proj": (100, 300),
    }
    norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), (100,))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (1000, 100)}
    for layer in range(4):
        for name, shape in (matrices | norms).items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    facts = make_model_facts().model_copy(update={"tensor_shapes": shapes})

    def formula_of(*overrides: str) -> str:
        recipe = parse_recipe(RECIPE, overrides=['training.precision="float32"', *overrides])
        plan = resolve(recipe, facts, CORPORA, base_folder="base")
        return next(e.formula for e in plan.estimates if e.name == "peak memory")

    tokens = 10 * 128
    around = tokens * (4 * 300 + 3 * 8)
    kept = {num_layers: tokens * num_layers * 4 * 2300 + around for num_layers in (2, 4)}
    told = "{} kept for the backward pass"
    assert told.format(format_bytes(kept[4])) in formula_of()
    assert told.format(format_bytes(kept[4])) in formula_of("parameters.freeze=['layers.0-1']")
    upper = "parameters.train=['layers.upper-half']"
    assert told.format(format_bytes(kept[2])) in formula_of(upper)


def test_evaluation_is_counted_at_every_evaluation() -> None:
    plan = plan_of("evaluation.every_steps=100", "evaluation.stride_fraction=0.5")
    steps = [0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 300, 400, 500, 600, 700, 781]
    assert list(plan.conduct.evaluation_steps) == steps
    # Each held-out text is scored whole up to the cap, and with half of a window's stride twice.
    one = 2 * sum(
        round(min(1.0, 262_144 / corpus.held_out_bytes) * corpus.held_out_tokens)
        for corpus in CORPORA.values()
    )
    found = {estimate.name: estimate.value for estimate in plan.estimates}
    per_token = 6 * (900_000 + 100_000) + 307_200
    assert found["evaluation compute"] == pytest.approx(per_token / 3 * one * len(steps), rel=1e-3)
    assert found["time"] > 0


def test_the_price_of_the_time() -> None:
    estimates = {
        estimate.name: estimate.value
        for estimate in plan_of(
            "hardware.price_per_gpu_hour=2.5",
            "hardware.flops_per_second=1e12",
            "hardware.num_devices=4",
        ).estimates
    }
    assert estimates["cost"] == pytest.approx(estimates["time"] / 3600 * 4 * 2.5)


def test_an_unknown_final_rate_is_assumed_aloud() -> None:
    for change in ("final_lr = 0", ""):
        plan = plan_of(text=RECIPE.replace("final_lr = 1e-4", change))
        assert plan.science.lr(0) == pytest.approx(1e-4)
        assert any("ASSUMPTION" in warning for warning in plan.warnings)
        assert any("(ASSUMED)" in reason.value for reason in plan.reasons)
    assert not plan_of().warnings


def test_no_rate_known_is_a_problem_with_its_remedy() -> None:
    text = RECIPE.replace("final_lr = 1e-4", "").replace("peak_lr = 1e-3", "")
    (told,) = problems_of(text=text)
    assert "needs the base's final learning rate, and the recipe gives none above 0" in told
    assert "`rewarm tune --lr --around 3e-5` measures which" in told
    (told,) = problems_of("base.pretraining={final_lr=0}", text=text)
    assert "the recipe gives none above 0" in told
    assert "peak × 0.1 is assumed" in told


def test_a_threshold_never_reached_names_the_minimum() -> None:
    (told,) = problems_of('phases.0.until={lr_below="start/200"}')
    assert "phases[0].until.lr_below: the rate never falls below start/200 = 5e-07" in told
    assert "its minimum there is 1e-06" in told
    # A warm-up begins lower than the decay ends: that minimum is no help.
    warmed = (
        "schedule.peak_lr=pretraining.peak",
        "schedule.warmup_fraction=0.1",
        "schedule.final_lr=peak/2",
        'phases.0.until={lr_below="peak/3"}',
    )
    (told,) = problems_of(*warmed)
    assert "its minimum there is 0.0005" in told


def test_warm_up_steps_are_rounded_up_but_not_for_a_rounding_error() -> None:
    for fraction, budget, steps in (("0.07", 128_000, 7), ("0.071", 128_000, 8)):
        plan = plan_of(
            f"schedule.warmup_fraction={fraction}", f"budget.tokens={budget}", text=one_phase()
        )
        assert plan.science.num_steps == 100
        assert plan.science.schedule[0].end_step == steps


def test_a_matched_area_is_explained_with_the_rates_that_come_of_it() -> None:
    plan = plan_of("schedule.match_area=0.4")
    reasons = {reason.field: reason for reason in plan.reasons}
    assert float(reasons["schedule.peak_lr"].value) == pytest.approx(plan.science.lr(0), rel=1e-3)
    last = plan.science.schedule[-1].end_lr
    assert float(reasons["schedule.final_lr"].value) == pytest.approx(last, rel=1e-3)
    assert "multiplied to match the area" in reasons["schedule.peak_lr"].reason
    assert "the paper" not in reasons["schedule.warmup"].reason


def test_phases_end_where_they_are_told() -> None:
    by_tokens = plan_of("phases.0.until={tokens=100_000}").science
    assert by_tokens.phases[1].start_step == 79  # ceil(100,000 / 1,280)
    by_fraction = plan_of("phases.0.until={fraction=0.9}").science
    assert by_fraction.phases[1].start_step == 703
    (told,) = problems_of("phases.0.until={fraction=0.0001}")
    assert "would end at step 0, but it begins at step 0 of 781: it has no steps" in told
    (told,) = problems_of("phases.0.until={tokens='3M'}")
    assert "would end at step 2344, but it begins at step 0 of 781" in told


def test_too_many_epochs_are_told_with_numbers() -> None:
    corpora = {**CORPORA, "new": make_corpus_facts("new", num_tokens=100_000)}
    (told,) = problems_of(corpora=corpora)
    assert (
        "sources.new: the phases ask 735k tokens of its 100k: 7.36 epochs, above its cap of 4"
        in told
    )
    assert "bring its share of the blends, or budget.tokens, down to 0.543 of what it is" in told
    # What it says helps, either way: 0.543 of 3/4 and of 0.7 are 0.407 and 0.380.
    shares = "phases.0.weights={old=0.593, new=0.407}", "phases.1.weights={old=0.62, new=0.38}"
    assert plan_of(*shares, corpora=corpora).science.num_steps == 781
    assert plan_of("budget.tokens=543k", corpora=corpora).science.num_steps == 424
    raised = plan_of(
        "sources.new.max_epochs=8", "sources.new.max_epochs_reason=small", corpora=corpora
    )
    assert raised.science.num_steps == 781
    (told,) = problems_of(
        "sources.new.max_epochs=7.35", "sources.new.max_epochs_reason=small", corpora=corpora
    )
    assert "7.36 epochs, above its cap of 7.35" in told


def test_much_qa_is_warned_of() -> None:
    corpora = {**CORPORA, "qa": make_corpus_facts("qa", "qa", num_tokens=8_000)}
    plan = plan_of(corpora=corpora)
    assert any("epochs of QA data" in warning for warning in plan.warnings)


def test_a_run_without_old_text_is_warned_of() -> None:
    assert any("expect forgetting" in warning for warning in plan_of(text=one_phase()).warnings)


def test_a_source_without_weight_is_evaluated_only() -> None:
    plan = plan_of(text=one_phase())
    assert [source.name for source in plan.science.sources] == ["new"]
    assert set(plan.conduct.corpora) == {"old", "new", "qa"}


def test_a_number_is_never_adjusted() -> None:
    assert (
        "1290 tokens are not a whole number of sequences of 128\n    → use 1408 or 1280"
        in (problems_of("batch.tokens=1290")[0])
    )
    assert "1024 is beyond the base's 512 positions" in problems_of("batch.sequence_length=1024")[0]
    assert "do not pay for one step" in problems_of("budget.tokens=100")[0]
    assert "100,000,000 steps" in problems_of("budget.tokens=128B")[0]
    assert "3 does not divide the step's 10" in problems_of("training.micro_batch_sequences=3")[0]
    assert "the warm-up takes all" in problems_of("schedule.warmup_fraction=0.9999")[0]
    assert "is above the peak" in problems_of("schedule.final_lr=1")[0]


def test_a_source_that_fills_no_window_is_told() -> None:
    corpora = {**CORPORA, "qa": make_corpus_facts("qa", "qa", num_tokens=128)}
    assert (
        "its 128 training tokens do not fill one window of 128 + 1"
        in (problems_of(corpora=corpora)[0])
    )


def test_another_tokenizer_is_refused() -> None:
    corpora = {**CORPORA, "new": make_corpus_facts("new", tokenizer="u" * 64)}
    assert "prepared with another tokenizer than the base's" in problems_of(corpora=corpora)[0]


def test_an_area_is_matched() -> None:
    plan = plan_of("schedule.match_area=0.5")
    area = sum(plan.science.lr(step) for step in range(plan.science.num_steps))
    assert area == pytest.approx(0.5)
    # The shape is kept, so a threshold relative to the start is met at the same step.
    assert plan.science.phases[1].start_step == 556


def test_science_alone_is_fingerprinted() -> None:
    plan = plan_of()
    assert plan.fingerprint == plan_of("evaluation.every_steps=7", "checkpoints.keep=9").fingerprint
    for change in ("seed=2", "budget.tokens=2M", "optimizer.eps=1e-6", "phases.1.weights.qa=0.2"):
        assert plan_of(change).fingerprint != plan.fingerprint
    assert science_diff(plan.science, plan_of("seed=2").science) == ["seed: 1 → 2"]


def test_estimates_are_not_measured_facts() -> None:
    assert plan_of().measured
    corpora = {**CORPORA, "qa": make_corpus_facts("qa", "qa", measured=False)}
    assert not plan_of(corpora=corpora).measured


def test_a_plan_of_another_version_is_no_plan_that_was_edited(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan_of(), path)
    value = read_json(path, what="the plan", error=PlanError)
    value["science"]["format"] = PLAN_FORMAT - 1
    value["science"]["no_longer_known"] = 1
    write_json(path, value)
    with pytest.raises(PlanError, match=rf"it was written in format {PLAN_FORMAT - 1}, by another"):
        load_plan(path)


def test_a_plan_is_read_back_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = plan_of()
    save_plan(plan, path)
    assert load_plan(path) == plan
    value = read_json(path, what="the plan", error=PlanError)
    value["science"]["seed"] = 99
    write_json(path, value)
    with pytest.raises(PlanError, match="its fingerprint does not match its contents"):
        load_plan(path)
    del value["science"]["seed"]
    write_json(path, value)
    with pytest.raises(PlanError, match=r"science\.seed: Field required"):
        load_plan(path)
    path.write_text('{"x": NaN}')
    with pytest.raises(PlanError, match="NaN is not a JSON number"):
        load_plan(path)
