"""The stability gap drawn and told: places, numbers and words worked out by hand."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rewarm.artifacts import write_json
from rewarm.evaluation.curves import domain_curves
from rewarm.records.against import AgainstOthers
from rewarm.records.comparison import Membership
from rewarm.records.curves import DomainCurve
from rewarm.records.facts import EvalRecord, Metric
from rewarm.records.run_folder import RunFolder
from rewarm.reporting.arm_curves import ArmCurves, arm_curves
from rewarm.reporting.gap_figures import Gap, gaps_of
from rewarm.reporting.report import render_run_report
from rewarm.reporting.run_view import load_run_view
from tests.support.fake_runs import eval_record, make_fake_run
from tests.support.html_page import Page

SVG = "{http://www.w3.org/2000/svg}"
BYTES = (900, 1_100, 2_000)
COMES_BACK = {0: 1.0, 1: 1.2, 2: 1.5, 4: 1.1, 8: 1.005, 16: 1.002}
STAYS = {0: 1.0, 1: 1.2, 2: 1.5, 4: 1.1, 8: 1.005, 16: 1.3}


def records(curve: Mapping[int, float], domain: str = "english") -> list[EvalRecord]:
    """Return evaluations in which every document has these bits per byte."""
    return [
        eval_record(step, domain, "general", "bits_per_byte", nats(bits), BYTES)
        for step, bits in curve.items()
    ]


def nats(bits: float) -> list[float]:
    return [bits * math.log(2) * size for size in BYTES]


def run_with(folder: Path, curve: Mapping[int, float]) -> RunFolder:
    run = make_fake_run(folder, num_steps=16, evaluated=False)
    run.append_evals(records(curve))
    return run


def only_gap(run: RunFolder) -> Gap:
    (gap,) = gaps_of(load_run_view(run))
    return gap


def drawn(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(
        str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )


def told_in(markup: str) -> list[str]:
    return [e.text or "" for e in drawn(markup).iter(SVG + "text") if e.get("class") == "direct"]


def test_depth_and_recovery_are_told_as_worked_out_by_hand(tmp_path: Path) -> None:
    run = run_with(tmp_path, COMES_BACK)
    assert only_gap(run).sentence == (
        "It rose by 0.500 ± 0.000 at most, after 2 updates, was back within 0.01 for good after 8 "
        "updates, and stands at +0.002 at the end."
    )
    (row,) = Page(render_run_report(run)).rows("domain", "depth")
    # Trapezoids: 0.1 + 0.35 + 2·0.3 + 4·0.0525 + 8·0.0035.
    area = 0.1 + 0.35 + 0.6 + 0.21 + 0.028
    assert row == ["english|general, text", "0.500", "2", "0.498", "update 8", f"{area:.3f}",
                   "+0.002"]  # fmt: skip


def test_the_marks_stand_where_the_curve_is(tmp_path: Path) -> None:
    for markup in (only_gap(run_with(tmp_path, COMES_BACK)).figure.wide,):
        root = drawn(markup)
        left, top, width, height = (float(part) for part in root.attrib["data-plot"].split())
        rings = [e for e in root.iter(SVG + "circle") if e.get("class") == "ring"]
        columns = [float(ring.attrib["cx"]) for ring in rings]
        end = math.log1p(16)
        assert columns == pytest.approx(
            [left + width * math.log1p(step) / end for step in (2, 8)], abs=0.01
        )
        # All that is shown: 0 to 0.5 and the strip of 0.01, with 17 % of that free at both ends.
        low, high = -0.01 - 0.17 * 0.51, 0.5 + 0.17 * 0.51
        rows = [float(ring.attrib["cy"]) for ring in rings]
        assert rows == pytest.approx(
            [top + height * (high - change) / (high - low) for change in (0.5, 0.005)], abs=0.01
        )
        assert told_in(markup) == ["depth +0.500", "recovered, update 8"]


def test_what_did_not_come_back_is_not_marked_as_if_it_had(tmp_path: Path) -> None:
    run = run_with(tmp_path, STAYS)
    gap = only_gap(run)
    assert told_in(gap.figure.wide) == ["depth +0.500"]
    assert gap.sentence.endswith("was not back within 0.01, and stands at +0.300 at the end.")
    assert Page(render_run_report(run)).rows("domain", "depth")[0][4] == "not"


def test_a_run_that_goes_on_has_not_failed_to_recover(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=16, steps_taken=4, evaluated=False)
    run.append_evals(records({0: 1.0, 1: 1.2, 2: 1.5, 4: 1.1}))
    assert only_gap(run).sentence.endswith(
        "not back within 0.01 so far, and stands at +0.100 so far."
    )
    assert Page(render_run_report(run)).rows("domain", "depth")[0][4] == "not yet"


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ({0: 1.0, 2: 0.99, 16: 0.9}, "It never rose above the base's."),
        (
            {0: 1.0, 2: 1.004, 16: 1.0},
            "It rose by 0.004 ± 0.000 at most, after 2 updates: never by more than 0.01. "
            "It stands at 0.000 at the end.",
        ),
    ],
)
def test_where_there_is_no_gap_none_is_marked(
    tmp_path: Path, curve: Mapping[int, float], sentence: str
) -> None:
    gap = only_gap(run_with(tmp_path, curve))
    assert gap.sentence == sentence
    assert told_in(gap.figure.wide) == []


def test_noise_is_told_as_noise(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=16, evaluated=False)
    for step, change in ((0, (0.0, 0.0, 0.0)), (2, (0.9, -0.8, 0.1)), (16, (0.0, 0.0, 0.0))):
        values = [(1 + c) * math.log(2) * size for c, size in zip(change, BYTES, strict=True)]
        run.append_evals([eval_record(step, "english", "general", "bits_per_byte", values, BYTES)])
    assert "(no more than evaluation noise)" in only_gap(run).sentence


# The control beside it


CONTROL = {0: 1.0, 1: 1.1, 2: 1.2, 4: 1.05, 8: 1.0, 16: 1.0, 32: 0.9}


def member(curves: Sequence[DomainCurve]) -> Membership:
    return Membership(
        name="replay <i>",
        hypothesis="Replay lowers forgetting.",
        arm="replay",
        description="a quarter of old text",
        kind="arm",
        seed=3,
        control="none",
        page="../../../report.html",
        control_curves=tuple(curves),
    )


def seen_by_pointer(gap: Gap) -> dict[str, list[str]]:
    """Return what the pointer reads, by the heading of the column."""
    return {
        heading: [label for _, _, label in items]
        for _, heading, items in json.loads(str(gap.figure.hover))["columns"]
    }


def test_the_comparison_s_control_stands_beside_the_run(tmp_path: Path) -> None:
    run = run_with(tmp_path, COMES_BACK)
    write_json(run.membership, member(domain_curves(records(CONTROL))).model_dump(mode="json"))
    read = seen_by_pointer(only_gap(run))
    assert read["after update 2"] == ["none, control +0.2000", "this run +0.5000"]
    # What the control did later is not this run's matter.
    assert list(read)[-1] == "after update 16"
    assert "none is the control of the comparison, with seed 3" in render_run_report(run)


def test_the_control_of_an_evaluation_stands_beside_the_run(tmp_path: Path) -> None:
    run = run_with(tmp_path, COMES_BACK)
    other = AgainstOthers(control="runs/ctl", control_curves=domain_curves(records(CONTROL)))
    write_json(run.against, other.model_dump(mode="json"))
    assert seen_by_pointer(only_gap(run))["after update 1"] == [
        "control +0.1000",
        "this run +0.2000",
    ]
    assert "the control is runs/ctl" in render_run_report(run)


def test_a_curve_leaves_out_other_items_and_what_has_no_beginning() -> None:
    others = [record.model_copy(update={"items_key": "other"}) for record in records({4: 3.0})]
    later = records({4: 1.0, 8: 1.1}, "late")
    (curve,) = domain_curves([*records({0: 1.0, 2: 1.25}), *others, *later])
    assert (curve.domain, curve.steps, curve.changes) == ("english", (0, 2), (0.0, 0.25))
    assert curve.noise == (0.0, 0.0)


# The run's part in a comparison


def test_a_report_leads_to_its_comparison(tmp_path: Path) -> None:
    run = run_with(tmp_path, COMES_BACK)
    write_json(run.membership, member(()).model_dump(mode="json"))
    html = render_run_report(run)
    assert '<a href="../../../report.html">replay &lt;i&gt;</a>' in html
    assert "replay, held against none, with seed 3: a quarter of old text" in html
    assert "Not concluded yet" in html
    # Shown by a server the file's place says nothing; the experiment's page there does.
    assert "report.html" not in render_run_report(run, live=True)
    assert '<a href="/">replay' in render_run_report(run, live=True, up="/")


def test_no_record_makes_a_link_that_acts(tmp_path: Path) -> None:
    run = run_with(tmp_path, COMES_BACK)
    evil = member(()).model_copy(update={"page": 'javascript:alert(1)//" onclick="x'})
    write_json(run.membership, evil.model_dump(mode="json"))
    page = Page(render_run_report(run))
    hrefs = [value for _, name, value in page.attributes if name == "href"]
    assert "javascript%3Aalert%281%29//%22%20onclick%3D%22x" in hrefs
    assert not [value for value in hrefs if re.match(r"\s*javascript:", value)]


# Arms beside each other


def curve(
    changes: Mapping[int, float], metric: Metric = "bits_per_byte"
) -> tuple[DomainCurve, ...]:
    return (
        DomainCurve(
            domain="english",
            role="general",
            metric=metric,
            steps=tuple(changes),
            changes=tuple(changes.values()),
            noise=(None,) * len(changes),
        ),
    )


def test_an_arm_s_curve_is_the_mean_of_its_seeds() -> None:
    two = ArmCurves(
        "two", (curve({0: 0.0, 1: 0.2, 4: 0.4}), curve({0: 0.0, 1: 0.4, 2: 9.0, 4: 0.2}))
    )
    one = ArmCurves("one", (curve({0: 0.0, 1: 0.1, 4: 0.1}),))
    (figure,) = arm_curves([two, one]).gaps
    assert figure.table.rows == (
        ("0", "0.0000", "0.0000"),
        ("1", "+0.3000", "+0.1000"),
        ("4", "+0.3000", "+0.1000"),
    )
    faint = [e for e in drawn(figure.wide).iter(SVG + "path") if e.get("class") == "faint"]
    assert len(faint) == 2


def test_runs_that_go_on_do_not_move_the_mean_of_those_that_ended() -> None:
    ended = ArmCurves("a", (curve({0: 0.0, 1: 0.2, 4: 0.4}),), (curve({0: 0.0, 1: 0.9}),))
    begun = ArmCurves("b", (), (curve({0: 0.0, 1: 0.5}), curve({0: 0.0, 1: 0.1, 2: 0.3, 4: 0.2})))
    (figure,) = arm_curves([ended, begun]).gaps
    assert figure.table.rows[1] == ("1", "+0.2000", "+0.1000")
    assert figure.table.rows[-1] == ("4", "+0.4000", "+0.2000")


def test_accuracies_are_no_gap_of_text() -> None:
    shown = arm_curves([ArmCurves("a", (curve({0: 0, 1: 0.1, 2: 0}, "matched_continuation"),))])
    assert shown.gaps == []
    assert [block.heading for block in shown.blocks] == ["Matched continuation"]
