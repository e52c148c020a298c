"""The verdict on made-up runs: words by their rules, Holm over the family, notes, the page."""

from __future__ import annotations

import io
import typing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rewarm.comparison.documents import document_interval
from rewarm.comparison.metrics import against_base, kind_of, metric_problem, values_of
from rewarm.comparison.paired import smallest_detectable
from rewarm.records.comparison import ComparisonResult
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.records.facts import LOWER_IS_BETTER, EvalRecord, Metric
from rewarm.reporting.comparison_page import render_comparison_page, write_comparison_page
from rewarm.reporting.comparison_terminal import comparison_verdict
from tests.support.fake_comparison import EQUAL, HYPOTHESIS, LOWER, fake_comparison, made_up
from tests.support.fake_runs import fake_choices, fake_losses
from tests.support.html_page import Page


def test_two_primaries_by_hand() -> None:
    result = made_up(
        {
            "none": {"forgetting": [0.50, 0.52, 0.48], "adaptation": [0.60, 0.61, 0.59]},
            # differences −0.30, −0.31, −0.32 and +0.01, −0.02, −0.02
            "replay": {"forgetting": [0.20, 0.21, 0.16], "adaptation": [0.61, 0.59, 0.57]},
        },
        [LOWER, EQUAL],
    )
    forgetting, adaptation = result.primary
    # sd 0.01, SE 0.0057735, t = −0.31/0.0057735 = −53.69; 4.3027 SE = 0.02484.
    assert forgetting.mean == pytest.approx(-0.31)
    assert (forgetting.low, forgetting.high) == pytest.approx((-0.33484, -0.28516), abs=1e-5)
    assert forgetting.p == pytest.approx(3.467e-4, rel=1e-3)  # scipy.stats.t.sf(53.694, 2) · 2
    # 80 % power with three seeds: 5.7 SE; Holm's strictest step is 2.5 % of two tests.
    assert forgetting.detectable == pytest.approx(5.65 * 0.0057735, rel=0.01)
    assert forgetting.detectable_holm > forgetting.detectable  # type: ignore[operator]
    # Mean −0.01, sd 0.017321, SE 0.01: t = 0.09/0.01 = 9 to the nearer edge, p = 0.00606.
    assert adaptation.p == pytest.approx(0.00606, rel=2e-3)
    # Holm of (0.000347, 0.00606): doubled, and as it is.
    assert forgetting.p_holm == pytest.approx(2 * forgetting.p)  # type: ignore[operator]
    assert adaptation.p_holm == pytest.approx(adaptation.p)
    assert (forgetting.word, adaptation.word) == ("as expected", "as expected")
    assert result.verdict == "As expected: all 2 primary tests came out as was written (Holm at 5%)"
    # SE 0.01, and equality is two one-sided tests: 4.607 SE for one pair of them at 5 %.
    assert adaptation.detectable == pytest.approx(0.04607, abs=1e-5)
    assert adaptation.detectable_holm == pytest.approx(
        smallest_detectable(0.0173205, 3, level=0.025, num_ends=2), rel=1e-5
    )
    # What the sentence says could be found is at the level of its verdict, which two tests share.
    assert "find a margin of 0.063, were there no difference, with" in adaptation.sentence
    assert "−0.310 bits per byte" in forgetting.sentence
    assert forgetting.detectable_holm == pytest.approx(0.04625, rel=0.01)
    assert forgetting.sentence.endswith(
        "3 seeds of this spread would find 0.046 with 80 % power at Holm's strictest step"
    )


def test_what_is_the_same_in_each_of_three_seeds_is_not_resolved() -> None:
    """Shares of few examples agree by chance; the sentence says what was tested then."""
    result = made_up(
        {
            "none": {"forgetting": [0.50, 0.52, 0.48], "adaptation": [0.60, 0.61, 0.59]},
            "replay": {"forgetting": [0.40, 0.42, 0.38], "adaptation": [0.60, 0.61, 0.59]},
        },
        [LOWER, EQUAL],
    )
    forgetting, adaptation = result.primary
    assert len(set(forgetting.differences)) > 1  # by rounding
    assert (forgetting.sd, forgetting.low, forgetting.high) == (0.0, None, None)
    assert (forgetting.p, forgetting.p_holm) == (0.25, 0.25)
    assert (forgetting.detectable, forgetting.detectable_holm) == (None, None)
    assert (adaptation.p, adaptation.p_holm) == (0.125, 0.25)
    assert (forgetting.word, adaptation.word) == ("not resolved", "not resolved")
    assert "(the same in each of 3 seeds: no spread for a t test" in forgetting.sentence
    assert "would find" not in forgetting.sentence


@pytest.mark.parametrize(
    ("differences", "expect", "word"),
    [
        ([-0.3, -0.31, -0.32], "lower", "as expected"),
        ([-0.3, -0.31, -0.32], "higher", "against expectation"),
        ([0.3, 0.31, 0.32], "lower", "against expectation"),
        ([-0.3, 0.31, -0.32], "lower", "not resolved"),
        ([0.0, 0.0, 0.0], "lower", "not resolved"),
        ([0.0, 0.0, 0.0], "equal", "not resolved"),  # three of one sign: p = 0.125
        ([0.0] * 5, "equal", "as expected"),
        ([0.01, -0.01, 0.02], "equal", "as expected"),
        ([0.3, 0.31, 0.32], "equal", "against expectation"),
        ([-0.3, -0.31, -0.32], "equal", "against expectation"),
        ([0.1, -0.2, 0.1], "equal", "not resolved"),
        ([0.01, -0.01, 0.02], "not_higher", "as expected"),
        ([0.03, 0.04, 0.05], "not_higher", "as expected"),  # higher, but by less than 0.1
        ([-0.3, -0.31, -0.32], "not_higher", "as expected"),
        ([0.3, 0.31, 0.32], "not_higher", "against expectation"),
        ([0.1, -0.2, 0.1], "not_higher", "not resolved"),
        ([0.01, -0.01, -0.02], "not_lower", "as expected"),
        ([0.3, 0.31, 0.32], "not_lower", "as expected"),
        ([-0.3, -0.31, -0.32], "not_lower", "against expectation"),
        ([-0.1, 0.2, -0.1], "not_lower", "not resolved"),
        ([-0.3], "lower", "one seed"),
        ([-0.3], "not_higher", "one seed"),
    ],
)
def test_words(differences: list[float], expect: str, word: str) -> None:
    zero = [0.0] * len(differences)
    primary = {"metric": "forgetting", "expect": expect}
    if expect not in ("lower", "higher"):
        primary["within"] = 0.1  # type: ignore[assignment]
    result = made_up({"a": {"forgetting": zero}, "b": {"forgetting": differences}}, [primary])
    assert result.primary[0].word == word


def test_no_worse_by_hand() -> None:
    """One margin of a metric: for what is not higher, not lower, and not for what is lower."""
    primary = {"metric": "mean_loss", "expect": "not_higher", "within": 0.05}
    values = {
        "union": {"mean_loss": [2.00, 2.10, 2.05]},
        "replay": {"mean_loss": [2.01, 2.12, 2.08]},
        "naive": {"mean_loss": [2.50, 2.61, 2.52]},
        "half": {"mean_loss": [2.20, 2.32, 2.21]},
    }
    result = made_up(
        values,
        [primary],
        contrasts=[
            ("replay", "union", {}),
            ("naive", "union", {}),
            ("naive", "replay", {"mean_loss": "not_lower"}),
            ("half", "naive", {"mean_loss": "lower"}),
        ],
    )
    replay, naive, against, lower = result.primary
    # 0.01, 0.02, 0.03 against 0.05: 1/2 − √27/(2 √29), see the statistics' tests; Holm of four.
    assert replay.p == pytest.approx(0.0175494, abs=1e-7)
    assert replay.p_holm == pytest.approx(2 * 0.0175494, abs=1e-6)
    assert "one-sided p = 0.018, after Holm 0.035): not higher by more than 0.050, as expected" in (
        replay.sentence
    )
    # One end: 3.979 SE of 0.0057735; at 1.25 % of four tests 8.01, a side's at 2.5 % two-sided.
    assert replay.detectable == pytest.approx(3.979 * 0.0057735, rel=1e-3)
    assert "3 seeds of this spread would find a margin of 0.046, were there" in replay.sentence
    assert replay.word == "as expected"
    # Mean 0.4933, SE 0.0120: at 5 % of four tests ± 8.86 SE, and that lies wholly above 0.05.
    assert naive.word == "against expectation"
    assert "higher, expected was not higher by more than 0.050" in naive.sentence
    assert against.word == "as expected"
    assert "not lower by more than 0.050, as expected" in against.sentence
    # A contrast that expects a side is tested without the margin of the others.
    # −0.30, −0.29, −0.31: t = −0.3 √3/0.01, two-sided 1 − √2700/√2702 = 0.00037.
    assert lower.p == pytest.approx(0.00037, rel=1e-2)
    assert lower.word == "as expected"
    assert "one-sided" not in lower.sentence
    assert "lower, as expected" in lower.sentence


def test_the_power_of_a_single_test_is_at_its_own_level() -> None:
    values = {"a": {"forgetting": [0.0, 0.0, 0.0]}, "b": {"forgetting": [-0.3, -0.31, -0.32]}}
    (effect,) = made_up(values, [LOWER]).primary
    assert effect.sentence.endswith("3 seeds of this spread would find 0.033 with 80 % power")


def test_the_terminal_s_table_says_of_power_what_its_sentences_say() -> None:
    """A verdict after Holm beside what could be found without it would contradict itself."""
    values = {
        "none": {"forgetting": [0.50, 0.52, 0.48]},
        "replay": {"forgetting": [0.20, 0.21, 0.16]},
        "more": {"forgetting": [0.10, 0.15, 0.05]},
    }
    result = made_up(values, [LOWER])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(comparison_verdict(result))
    words = console.export_text()
    (first, _) = result.primary
    assert (f"{first.detectable:.3f}", f"{first.detectable_holm:.3f}") == ("0.033", "0.046")
    assert "0.046" in words.split("Primary: paired differences")[1].split("Intervals:")[0]
    assert "0.033" not in words


def test_a_margin_s_tests_are_adjusted_with_the_others() -> None:
    """Alone p = 0.0175 is called; as the least of four tests it is not."""
    primary = {"metric": "forgetting", "expect": "not_higher", "within": 0.05}
    zero = {"forgetting": [0.0, 0.0, 0.0]}
    claimed = {"forgetting": [0.01, 0.02, 0.03]}
    assert made_up({"a": zero, "b": claimed}, [primary]).primary[0].word == "as expected"
    others = {f"o{k}": {"forgetting": [0.1, -0.1, 0.05]} for k in range(3)}
    among = made_up({"a": zero, "b": claimed, **others}, [primary]).primary[0]
    assert among.p_holm == pytest.approx(4 * 0.0175494, abs=1e-6)
    assert among.word == "not resolved"
    assert "not resolved, expected was not higher by more than 0.050" in among.sentence
    # 0.10, 0.16, 0.22: 0.16 ± 4.30 · 0.0346 ends at 0.011, ± 8.86 · 0.0346 at less than −0.1. So
    # beyond 0.005 for one test alone, and for one of four not.
    primary["within"], beyond = 0.005, {"forgetting": [0.10, 0.16, 0.22]}
    alone = made_up({"a": zero, "b": beyond}, [primary]).primary[0]
    assert alone.word == "against expectation"
    among = made_up({"a": zero, "b": beyond, **others}, [primary]).primary[0]
    assert among.word == "not resolved"


def test_a_tiny_p_is_written_as_less_than_what_is_shown() -> None:
    tiny = [-0.300, -0.301, -0.302, -0.299, -0.298]  # t = −424
    result = made_up({"a": {"forgetting": [0.0] * 5}, "b": {"forgetting": tiny}}, [LOWER])
    (effect,) = result.primary
    assert effect.p is not None
    assert effect.p < 1e-4
    assert "p < 0.0001, after Holm < 0.0001)" in effect.sentence


def test_many_tests_share_the_level() -> None:
    """What one test would call is not called among eight: Holm adjusts over all named."""
    differences = [-0.10, -0.16, -0.22]  # t = −4.62, p = 0.0438
    zero = {"forgetting": [0.0, 0.0, 0.0]}
    alone = made_up({"a": zero, "b": {"forgetting": differences}}, [LOWER])
    assert alone.primary[0].word == "as expected"
    others = {f"o{k}": {"forgetting": [0.1, -0.1, 0.05]} for k in range(7)}
    among = made_up({"a": zero, "b": {"forgetting": differences}, **others}, [LOWER])
    assert among.primary[0].p == alone.primary[0].p
    assert among.primary[0].p_holm == pytest.approx(8 * (alone.primary[0].p or 0))
    assert among.primary[0].word == "not resolved"
    assert among.verdict.startswith("Not resolved: none of 8 primary tests")


def test_what_failed_stays_in_the_family() -> None:
    values = {
        "a": {"forgetting": [0.0, 0.0, 0.0]},
        "b": {"forgetting": [-0.10, -0.16, -0.22]},
        "c": {"forgetting": [0.0, 0.0, 0.0]},
    }
    result = made_up(values, [LOWER], failed=[("c", 1), ("c", 2), ("c", 3)])
    b, c = result.primary
    assert (c.word, c.mean, c.p_holm) == ("not measured", None, None)
    assert b.p_holm == pytest.approx(2 * (b.p or 0))
    assert any("Failed, and left out of every pair: c (seed 1)" in note for note in result.notes)
    assert any(note.startswith("No run of c is done: area under the rate") for note in result.notes)


def test_pairs_are_of_one_seed() -> None:
    """A seed that is hard for both does not count; a failed run takes its partner out."""
    values = {"a": {"forgetting": [0.1, 5.0, 9.0, 2.0]}, "b": {"forgetting": [0.0, 4.9, 8.9, 1.9]}}
    result = made_up(values, [LOWER], failed=[("a", 3)])
    assert result.primary[0].seeds == (1, 2, 4)
    assert result.primary[0].differences == pytest.approx((-0.1, -0.1, -0.1))


def test_contrasts_and_their_own_expectations() -> None:
    values = {
        "a": {"forgetting": [0.0, 0.01, 0.0]},
        "b": {"forgetting": [0.5, 0.52, 0.51]},
        "c": {"forgetting": [0.2, 0.21, 0.22]},
    }
    result = made_up(
        values,
        [LOWER],
        contrasts=[("b", "a", {"forgetting": "higher"}), ("c", "b", {})],
    )
    assert [(e.arm, e.against, e.expect, e.word) for e in result.primary] == [
        ("b", "a", "higher", "as expected"),
        ("c", "b", "lower", "as expected"),
    ]


def test_exploratory_contrasts_are_told_and_take_no_part_of_the_level() -> None:
    values = {
        "none": {"forgetting": [0.50, 0.52, 0.48], "held_out.old": [1.0, 1.1, 1.2]},
        "replay": {"forgetting": [0.20, 0.21, 0.16], "held_out.old": [0.7, 0.8, 0.8]},
        "other": {"forgetting": [0.40, 0.43, 0.37], "held_out.old": [0.9, 1.0, 1.1]},
    }
    pairs: list[tuple[str, str, dict[str, str]]] = [("replay", "none", {})]
    explored = [("other", "none"), ("other", "replay")]
    alone = made_up({name: values[name] for name in ("none", "replay")}, [LOWER])
    result = made_up(values, [LOWER], contrasts=pairs, explored=explored)
    # One test, as if there were no third arm: its p is not multiplied.
    assert result.primary == alone.primary
    assert result.primary[0].p_holm == result.primary[0].p
    assert [(e.arm, e.against, e.metric) for e in result.secondary] == [
        ("other", "none", "forgetting"),
        ("other", "none", "held_out.old"),
        ("other", "replay", "forgetting"),
        ("other", "replay", "held_out.old"),
        ("replay", "none", "held_out.old"),
    ]
    told = result.secondary[0]
    assert told.mean == pytest.approx((0.40 - 0.50 + 0.43 - 0.52 + 0.37 - 0.48) / 3)
    assert (told.word, told.expect, told.p_holm) == ("", None, None)


def test_the_noise_floor_stands_beside_and_is_no_test() -> None:
    values = {
        "a": {"forgetting": [0.0, 0.0, 0.0], "held_out.old": [1.0, 1.0, 1.0]},
        "b": {"forgetting": [-0.3, -0.31, -0.32], "held_out.old": [0.9, 0.9, 0.8]},
        "noise-floor": {"forgetting": [0.02, -0.04, 0.01], "held_out.old": [1.0, 1.1, 1.0]},
    }
    result = made_up(values, [LOWER])
    assert len(result.primary) == 1
    assert result.primary[0].p_holm == result.primary[0].p
    assert {effect.metric for effect in result.noise} == {"forgetting", "held_out.old"}
    assert "The control's copy differs by up to 0.040" in result.primary[0].sentence
    assert [effect.metric for effect in result.secondary] == ["held_out.old"]
    assert result.secondary[0].p_holm is None
    # Against itself the control must not differ: where it does, that is said.
    values["noise-floor"] = {"forgetting": [0.30, 0.31, 0.29], "held_out.old": [1.0, 1.1, 1.0]}
    assert any("more than its own spread" in note for note in made_up(values, [LOWER]).notes)


def losses(step: int, domain: str, role: Any, first: float, change: float) -> EvalRecord:
    return fake_losses(step, domain, role, "bits_per_byte", first, change, 40, len(domain))


def test_metrics_of_records_by_hand() -> None:
    records = [
        losses(0, "old", "general", 1.5, 0),
        losses(0, "older", "replay", 1.7, 0),
        losses(0, "new", "new", 2.0, 0),
        losses(2, "old", "general", 1.5, 0.4),
        losses(8, "old", "general", 1.5, 0.1),
        losses(8, "older", "replay", 1.7, 0.3),
        losses(8, "new", "new", 2.0, -0.5),
        fake_choices(0, "new", "new", 0.3, 200, 1),
        fake_choices(8, "new", "new", 0.5, 200, 1),
    ]
    at = {(r.step, r.domain, str(r.metric)): r.value for r in records}
    bits = "bits_per_byte"
    old = at[8, "old", bits] - at[0, "old", bits]
    older = at[8, "older", bits] - at[0, "older", bits]
    values = values_of(records, from_base=True)
    assert values["forgetting"] == pytest.approx((old + older) / 2)
    assert values["adaptation"] == pytest.approx(at[0, "new", bits] - at[8, "new", bits])
    ends = (at[8, "old", bits] + at[8, "older", bits]) / 2, at[8, "new", bits]
    assert values["mean_loss"] == pytest.approx(sum(ends) / 2)
    assert values["continuation.new"] == at[8, "new", "matched_continuation"]
    depth = at[2, "old", bits] - at[0, "old", bits]
    assert values["stability_gap.depth"] == pytest.approx((depth + older) / 2)
    assert values["stability_gap.transient"] == pytest.approx((depth - old) / 2)
    # Trapezoids of old: 2 · d/2 + 6 · (d + f)/2; of older from 0 to 8: 8 · f/2.
    area = (depth + 3 * (depth + old) + 4 * older) / 2
    assert values["stability_gap.area"] == pytest.approx(area)
    # old is at its worst at 2, older at 8; neither comes back to within 0.01 of the base.
    assert values["stability_gap.steps_to_peak"] == pytest.approx((2 + 8) / 2)
    assert values["stability_gap.recovered"] == 0
    back = [*records, losses(16, "old", "general", 1.5, -0.2)]
    assert values_of(back, from_base=True)["stability_gap.recovered"] == 0.5

    counted = values_of(records, from_base=True, common={"old", "new"})
    assert counted["forgetting"] == pytest.approx(old)
    assert counted["stability_gap.depth"] == pytest.approx(depth)
    assert counted["held_out.older"] == values["held_out.older"], "it is told all the same"


@pytest.mark.parametrize("metric", typing.get_args(Metric))
def test_every_kind_of_record_has_a_name_and_a_direction(metric: Metric) -> None:
    record = EvalRecord(
        step=8,
        domain="one acc",
        role="task",
        metric=metric,
        value=0.25,
        standard_error=None,
        item_values=(0.25,) * 40,
        item_weights=(1,) * 40,
        items_key="k",
        seconds=0.0,
    )
    values = values_of([record], from_base=True)
    assert list(values.values()) == [0.25], "a task is no text: no mean loss, no forgetting"
    (name,) = values
    assert metric_problem(name) is None
    assert (kind_of(name).better == "lower") == (metric in LOWER_IS_BETTER)
    found = document_interval(name, [record], [record])
    assert (found is None) == (metric == "task_perplexity")


def test_one_base_for_all() -> None:
    """A run that began elsewhere is counted from the control's base."""
    base = [losses(0, "old", "general", 1.5, 0)]
    own = [losses(0, "old", "general", 8.0, 0), losses(8, "old", "general", 1.5, 0.25)]
    assert values_of(own, from_base=True)["forgetting"] < -5
    rebased = against_base(own, base)
    assert [record.step for record in rebased] == [0, 8]
    values = values_of(rebased, from_base=False)
    assert values["forgetting"] == pytest.approx(own[1].value - base[0].value)
    assert "stability_gap.depth" not in values


def test_documents_of_one_seed() -> None:
    one = [losses(8, "old", "general", 1.5, 0.4), losses(8, "new", "new", 2.0, -0.5)]
    other = [losses(8, "old", "general", 1.5, 0.1), losses(8, "new", "new", 2.0, -0.2)]
    found = document_interval("forgetting", one, other)
    assert found is not None
    assert found.estimate == pytest.approx(one[0].value - other[0].value)
    assert found.low < found.estimate < found.high
    # More learned is a positive difference of adaptation.
    learned = document_interval("adaptation", one, other)
    assert learned is not None
    assert learned.estimate == pytest.approx(other[1].value - one[1].value)
    assert learned.low < learned.estimate < learned.high
    made_up = losses(8, "made-up", "replay", 1.0, 0.2)
    both = document_interval("forgetting", [*one, made_up], [*other, made_up], common={"old"})
    assert both == found
    assert document_interval("stability_gap.depth", one, other) is None
    assert document_interval("held_out.nothing", one, other) is None
    moved = other[0].model_copy(update={"items_key": "others"})
    assert document_interval("held_out.old", one, [moved]) is None


@pytest.fixture
def told() -> ComparisonResult:
    return fake_comparison()


def test_the_page(told: ComparisonResult, tmp_path: Path) -> None:
    page = write_comparison_page(told, ComparisonFolder(tmp_path))
    text = page.read_text(encoding="utf-8")
    read = Page(text)
    assert not [v for _, name, v in read.attributes if name in ("src", "href") and "//" in v]
    assert "Replay lowers forgetting &amp; costs &lt;nothing&gt;." in text
    assert "ab" * 6 in text
    assert "AFTER runs had begun" in text
    for shown in ("as expected", "−0.300", "−0.310", "−0.320", "noise-floor", "&lt;it&gt; broke"):
        assert shown in text
    # Every seed's point is drawn: small marks in the trade-off, strokes in the differences.
    assert text.count('class="s1 pale"') == 2  # wide and narrow
    assert "seed 3" in text


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ("not_higher", "not higher by more than 0.05"),
        ("not_lower", "not lower by more than 0.05"),
    ],
)
def test_a_margin_on_page_and_terminal(expect: str, words: str) -> None:
    primary = {"metric": "mean_loss", "expect": expect, "within": 0.05}
    values = {"a": {"mean_loss": [2.0, 2.1, 2.0]}, "b": {"mean_loss": [2.01, 2.1, 1.99]}}
    result = made_up(values, [primary])
    assert ComparisonResult.model_validate_json(result.model_dump_json()) == result
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(comparison_verdict(result))
    told = " ".join(console.export_text().split())
    assert f"mean_loss {words} " in told  # where the primaries are listed
    assert f"{words}0, as expected" in told  # and in the sentence, to its metric's decimals
    page = Page(render_comparison_page(result))
    assert page.rows("primary metric") == [["mean_loss", words]]
    assert f"{words}0, as expected" in "".join(page.text.values())


def test_a_page_without_anything(tmp_path: Path) -> None:
    values = {"a": {"forgetting": [0.0, 0.0]}, "b": {"forgetting": [0.0, 0.0]}}
    failed = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    result = made_up(values, [LOWER], failed=failed)
    text = render_comparison_page(result)
    assert "not measured" in text
    assert 'id="front"' not in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal(told: ComparisonResult, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(comparison_verdict(told))
    words = " ".join(console.export_text().split())
    assert HYPOTHESIS in words
    for shown in ("equal within ±0.1", "−0.300", "−0.335", "2 of 3, failed", "±0.020"):
        assert shown in words
