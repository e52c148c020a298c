"""The page of the streams' results is what the results say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "reproduction"))

import stream_suite  # noqa: E402
import stream_table  # noqa: E402
from kept import read_results  # noqa: E402

from rewarm.records.stream import StreamResult  # noqa: E402
from rewarm.stream.experiment import read_stream  # noqa: E402


def test_the_page_is_what_the_committed_results_give() -> None:
    page = stream_table.PAGE.read_text(encoding="utf-8")
    results = read_results(stream_table.RESULTS, stream_suite.EVERY, StreamResult)
    assert stream_table.page_with(page, results, stream_table.RESULTS) == page
    for result in results:
        for name, svg in stream_table.figures_of(result):
            assert (stream_table.RESULTS / name).read_text(encoding="utf-8") == svg


@pytest.mark.parametrize("name", stream_suite.EVERY)
def test_the_page_tells_each_test_and_each_cell_of_a_result(name: str) -> None:
    """Read as JSON, and rounded here: the page's own road is not gone by."""
    value = json.loads((stream_table.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    page = stream_table.PAGE.read_text(encoding="utf-8")
    section = page.split(f"### {name}\n")[1].split("\n### ")[0].replace("\N{MINUS SIGN}", "-")
    scale = 100 if value["measure"] == "share right" else 1
    digits = 1 if scale == 100 else 3
    rows = [row for row in section.splitlines() if row.startswith("| ")]
    for effect in value["primary"]:
        name_of = f"{effect['arm']} - {effect['against']}".replace("\N{MINUS SIGN}", "-")
        found = [row for row in rows if row.startswith(f"| {name_of} |")]
        mean = f"{scale * effect['mean']:+.{digits}f}"
        assert any(mean in row and f"**{effect['word']}**" in row for row in found), effect
    result = StreamResult.model_validate(value)
    for effect in result.primary:  # by the road that tests of other backbones take
        if effect.metric == "final":
            differences = stream_table.differences_of(result, effect.arm, effect.against)
            assert differences == pytest.approx(effect.differences, abs=1e-12)
    for cell in value["cells"]:
        start = f"| {cell['backbone']} | {cell['learner']} | {cell['figures']['final']['mean']:.3f}"
        assert any(row.startswith(start) for row in rows), start


@pytest.mark.parametrize("name", stream_suite.EVERY)
def test_what_is_kept_is_what_its_runs_say_by_the_code_of_now(name: str) -> None:
    (result,) = read_results(stream_table.RESULTS, (name,), StreamResult)
    experiment = read_stream(stream_table.HERE / "streams" / f"{name}.toml").experiment
    found = stream_table.judged_again(result, experiment)
    for own, kept in zip(found.primary, result.primary, strict=True):
        assert (own.word, own.expect) == (kept.word, kept.expect)
        assert own.p_holm == pytest.approx(kept.p_holm, rel=1e-9)
        assert (own.detectable is None) == (kept.sd == 0.0)
    assert (found.verdict, found.notes) == (result.verdict, result.notes)
    told = [(swap.ahead, swap.behind, swap.is_resolved) for swap in found.swaps]
    assert told == [(swap.ahead, swap.behind, swap.is_resolved) for swap in result.swaps]


@pytest.mark.parametrize("name", ["omniglot-online", "omniglot-offline", "omniglot-rates"])
@pytest.mark.parametrize(("own", "other"), [("scr", "icarl"), ("scr", "er"), ("ewc", "fine-tune")])
def test_the_page_tells_pairs_of_learners_that_no_test_names(
    name: str, own: str, other: str
) -> None:
    """From JSON, by hand: the mean of three seeds and each of them, on every backbone."""
    value = json.loads((stream_table.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    page = stream_table.PAGE.read_text(encoding="utf-8").replace("\N{MINUS SIGN}", "-")
    section = page.split(f"### {name}\n")[1].split("\n### ")[0]
    final = {(r["backbone"], r["learner"], r["seed"]): r["metrics"]["final"] for r in value["runs"]}
    for backbone in ("scratch", "supervised", "contrastive"):
        by_seed = [
            100 * (final[backbone, own, seed] - final[backbone, other, seed]) for seed in (1, 2, 3)
        ]
        told = [f"{points:+.1f}" for points in (sum(by_seed) / 3, *by_seed)]
        mean, *each = ["0.0" if text in ("+0.0", "-0.0") else text for text in told]
        row = f"| {backbone}/{own} - {backbone}/{other} | {mean} |"
        (found,) = [line for line in section.splitlines() if line.startswith(row)]
        assert found.endswith(f"| {', '.join(each)} |")


def test_tests_of_other_figures_are_not_told_as_final_ones_of_other_backbones() -> None:
    results = read_results(stream_table.RESULTS, ("omniglot-rates",), StreamResult)
    (result,) = results
    told = stream_table.of_other_backbones(result)
    assert told is not None
    first, *others = result.primary
    of_forgetting = first.model_copy(update={"metric": "forgetting"})
    fewer = result.model_copy(update={"primary": (of_forgetting, *others)})
    found = stream_table.of_other_backbones(fewer)
    assert found is not None
    assert found.rows == told.rows[1:]
