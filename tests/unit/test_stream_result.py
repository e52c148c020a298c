"""Tests between cells, gains and swaps of a stream, from runs written by hand."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from rewarm.cli import main
from rewarm.errors import RecipeError
from rewarm.records.stream import StreamCell, StreamFigure, StreamProbe, StreamResult, StreamRun
from rewarm.reporting.stream_page import gain_figures, matrix_figure, render_stream_page
from rewarm.reporting.stream_terminal import print_stream
from rewarm.reporting.tables import Cell
from rewarm.stages.stream_result import About, conclude_stream, contrast_facts
from rewarm.stream.experiment import StreamExperiment, read_stream
from tests.support.streams import EXPERIMENT, write_images

_ABOUT = About("share right", "4 classes in 2 tasks", 2)

# Final accuracies by seed. From scratch iCaRL is ahead, pre-trained ER is.
_FINAL = {
    ("scratch", "er"): (0.30, 0.32, 0.28),
    ("scratch", "icarl"): (0.40, 0.41, 0.42),
    ("good", "er"): (0.80, 0.83, 0.80),
    ("good", "icarl"): (0.60, 0.62, 0.58),
}


def _experiment(**changes: Any) -> StreamExperiment:
    return StreamExperiment.model_validate(
        {
            "name": "by-hand",
            "source": {"path": "x", "kind": "text"},
            "scenario": {"tasks": 2},
            "backbones": {"scratch": {"small": "bytes"}, "good": {"path": "p"}},
            "learners": {"er": {"algorithm": "er"}, "icarl": {"algorithm": "icarl"}},
            "seeds": 3,
            **changes,
        }
    )


def _metrics(value: float) -> dict[str, float | None]:
    unmeasured = dict.fromkeys(("min_acc", "wc_acc", "stability_gap"))
    return {"final": value, "forgetting": 1 - value, "bwt": value - 1, **unmeasured}


def _runs(final: Mapping[tuple[str, str], Sequence[float]]) -> list[StreamRun]:
    return [
        StreamRun(
            backbone=backbone,
            learner=learner,
            seed=seed,
            matrix=((1.0,), (value, value)),
            second_stage=None,
            looks=(),
            metrics=_metrics(value),
            elapsed_s=1.0,
        )
        for (backbone, learner), values in final.items()
        for seed, value in enumerate(values, start=1)
    ]


def _conclude(**changes: Any) -> StreamResult:
    return conclude_stream(_experiment(**changes), _ABOUT, _runs(_FINAL), [], None)


def test_without_contrasts_every_cell_is_held_against_the_control() -> None:
    result = _conclude(control="scratch/icarl")
    assert [effect.arm for effect in result.primary] == ["scratch/er", "good/er", "good/icarl"]
    p = [
        stats.ttest_rel(_FINAL[cell], _FINAL["scratch", "icarl"]).pvalue
        for cell in (("scratch", "er"), ("good", "er"), ("good", "icarl"))
    ]
    assert [effect.p for effect in result.primary] == pytest.approx(p, rel=1e-9)
    least, middle, most = sorted(p)
    wanted = {least: 3 * least, middle: max(3 * least, 2 * middle)}
    wanted[most] = max(wanted[middle], most)
    assert [e.p_holm for e in result.primary] == pytest.approx([wanted[v] for v in p], rel=1e-9)
    assert [effect.word for effect in result.primary] == ["", "", ""]
    assert result.verdict == ""
    assert {effect.metric for effect in result.secondary} == {"final", "forgetting", "bwt"}


def test_a_gain_is_held_against_a_gain_seed_by_seed() -> None:
    contrast = {
        "cell": "good/er - scratch/er",
        "against": "good/icarl - scratch/icarl",
        "expect": "higher",
    }
    result = _conclude(contrasts=[contrast])
    (effect,) = result.primary
    # (0.50, 0.51, 0.52) − (0.20, 0.21, 0.16)
    assert effect.differences == pytest.approx([0.30, 0.30, 0.36])
    assert effect.mean == pytest.approx(0.32)
    assert effect.word == "as expected"
    assert "(good/er − scratch/er) − (good/icarl − scratch/icarl)" in effect.sentence
    assert result.verdict.startswith("As expected")


def test_an_expectation_that_fails_is_said() -> None:
    contrast = {"cell": "good/icarl", "against": "good/er", "expect": "higher"}
    result = _conclude(contrasts=[contrast])
    assert result.primary[0].word == "against expectation"
    assert result.verdict.startswith("Against expectation")


def test_gains_ranks_and_learners_that_change_places() -> None:
    result = _conclude()
    gains = {gain.learner: gain for gain in result.gains}
    assert gains["er"].figure.mean == pytest.approx(0.51)
    assert gains["icarl"].figure.mean == pytest.approx(0.19)
    assert [(g.rank_scratch, g.rank) for g in gains.values()] == [(2, 1), (1, 2)]
    (swap,) = result.swaps
    assert (swap.ahead, swap.behind) == ("er", "icarl")
    assert swap.effect.differences == pytest.approx([0.20, 0.21, 0.22])
    assert swap.effect_scratch.differences == pytest.approx([-0.10, -0.09, -0.14])
    assert swap.is_resolved


def test_a_swap_that_seeds_do_not_agree_on_is_not_resolved() -> None:
    final = {**_FINAL, ("scratch", "er"): (0.30, 0.60, 0.28)}
    result = conclude_stream(_experiment(), _ABOUT, _runs(final), [], None)
    assert [swap.is_resolved for swap in result.swaps] == [False]


def test_gains_are_drawn_the_largest_first_and_judged_by_their_intervals() -> None:
    result = _conclude()
    (figure,) = gain_figures(result)
    rows = figure.table.rows
    assert [row[0] for row in rows] == [
        Cell("er", below="rank 2 in scratch, 1 here"),
        Cell("icarl", below="rank 1 in scratch, 2 here"),
    ]
    assert [row[1] for row in rows] == ["+51.0 points", "+19.0 points"]
    assert [row[3] for row in rows] == [Cell("", "good"), Cell("", "good")]
    assert 'class="good"' in figure.wide
    # Of a loss less is better, and an interval that holds 0 says nothing.
    loss = result.model_copy(update={"measure": "bits per byte"})
    assert [row[3] for row in gain_figures(loss)[0].table.rows] == [Cell("", "bad")] * 2
    open_ended = [
        gain.model_copy(update={"figure": gain.figure.model_copy(update={"low": -0.1})})
        for gain in result.gains
    ]
    (figure,) = gain_figures(result.model_copy(update={"gains": tuple(open_ended)}))
    assert [row[3] for row in figure.table.rows] == [Cell("", "open")] * 2
    assert figure.title in render_stream_page(result)


@pytest.mark.parametrize("of_scratch", [0.5, 0.75])
def test_a_tie_of_probes_is_told_as_one(of_scratch: float) -> None:
    probes = [
        StreamProbe(
            backbone=backbone,
            accuracies=(mean,),
            figure=StreamFigure(mean=mean, low=None, high=None),
            num_examples=10,
            is_best=backbone == "good",
        )
        for backbone, mean in (("good", 0.75), ("scratch", of_scratch))
    ]
    told = conclude_stream(_experiment(), _ABOUT, _runs(_FINAL), probes, None).notes
    tie = "The probe finds scratch as good as good, which comes first and is taken."
    assert (tie in told) == (of_scratch == 0.75)
    assert any(note.startswith("The probe finds good best") for note in told) == (tie not in told)


def test_page_and_terminal_tell_the_tests() -> None:
    contrast = {"cell": "good/er", "against": "good/icarl", "expect": "higher"}
    result = _conclude(contrasts=[contrast], hypothesis="ER gains most")
    page = render_stream_page(result)
    for part in ("ER gains most", "good/er − good/icarl", "as expected", "Gains from pre-training"):
        assert part in page
    for width in (60, 140):
        console = Console(width=width, record=True, file=io.StringIO())
        print_stream(result, console)
        shown = console.export_text()
        assert "as expected" in " ".join(shown.split())
        assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_name_ends_its_lines_at_hyphens(width: int) -> None:
    result = _conclude()
    name = "strong-simple-baseline"
    cells = [
        cell.model_copy(update={"backbone": "contrastive", "learner": name})
        for cell in result.cells
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    print_stream(result.model_copy(update={"cells": cells}), console)
    words = [line[13:].split("  ")[0].strip() for line in console.export_text().splitlines()]
    begins = [number for number, word in enumerate(words) if word.startswith("strong-")]
    assert len(begins) == len(cells)
    for number in begins:
        lines = words[number : number + 3]
        assert "".join(lines).startswith(name)
        assert all(line.endswith("-") for line in lines[: lines.index("baseline")])


# --- what may be written ---

_LEARNER = 'er = { algorithm = "er" }\nlwf = { algorithm = "lwf" }\n'
_CONTRAST = """
[[contrasts]]
cell = "{cell}"
against = "{against}"
expect = "{expect}"
"""


def _written(path: Path, extra: str = "", *, head: str = "", learners: str = _LEARNER) -> Path:
    path.mkdir(exist_ok=True)
    write_images(path / "a.parquet")
    (path / "e.toml").write_text(
        head + EXPERIMENT.replace("seeds = 2", "seeds = 1") + learners + extra
    )
    return path / "e.toml"


@pytest.mark.parametrize(
    ("cell", "against", "expect", "said"),
    [
        ("scratch/err", "scratch/er", "higher", "no learner is called 'err'"),
        ("vit/er", "scratch/er", "higher", "no backbone is called 'vit'"),
        ("scratch/er", "scratch/er", "higher", "a cell is held against itself"),
        ("scratch/er", " scratch/er ", "higher", "a cell is held against itself"),
        ("scratch/er - scratch/er", "scratch/lwf", "higher", "from a cell to itself is 0"),
        ("scratch", "scratch/er", "higher", "'scratch' must be BACKBONE/LEARNER"),
        ("scratch/er - scratch/lwf - scratch/er", "scratch/er", "higher", "one cell - another"),
        ("scratch/er", "scratch/lwf", "equal", "nothing is equal to the last digit"),
        ("scratch/er", "scratch/lwf", "not_lower", "say by how much it may be lower"),
        ("probed/strong-simple-baseline", "scratch/er", "higher", "give preset ="),
    ],
)
def test_contrasts_that_mean_nothing_are_refused(
    cell: str, against: str, expect: str, said: str, tmp_path: Path
) -> None:
    contrast = _CONTRAST.format(cell=cell, against=against, expect=expect)
    with pytest.raises(RecipeError, match="contrasts") as caught:
        read_stream(_written(tmp_path, contrast))
    assert said in str(caught.value)


def test_a_contrast_of_nothing_lacks_its_keys_and_no_more(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_stream(_written(tmp_path, "[[contrasts]]\n"))
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        (f"contrasts[0].{key}", "is missing") for key in ("cell", "against", "expect")
    ]


def test_a_margin_without_meaning_is_refused(tmp_path: Path) -> None:
    contrast = _CONTRAST.format(cell="scratch/er", against="scratch/lwf", expect="lower")
    with pytest.raises(RecipeError, match="no meaning with expect = 'lower'"):
        read_stream(_written(tmp_path, contrast + "within = 0.1\n"))


def test_no_worse_is_planned_and_tested_up_to_its_margin() -> None:
    # Seed by seed −0.10, −0.09, −0.14: not lower by more than 0.3, and resolved by its own test.
    contrast = {
        "cell": "scratch/er",
        "against": "scratch/icarl",
        "expect": "not_lower",
        "within": 0.3,
    }
    experiment = _experiment(contrasts=[contrast])
    told = "final: scratch/er against scratch/icarl, not lower by more than 0.3"
    assert list(contrast_facts(experiment)) == [("contrast 1", told)]
    (effect,) = _conclude(contrasts=[contrast]).primary
    greater = stats.ttest_1samp([-0.10, -0.09, -0.14], -0.3, alternative="greater").pvalue
    assert effect.p == pytest.approx(greater, rel=1e-6)
    assert effect.word == "as expected"
    assert "not lower by more than 0.300, as expected" in effect.sentence


def test_a_control_must_be_a_cell(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a gain cannot be the control"):
        read_stream(_written(tmp_path, head='control = "scratch/er - scratch/lwf"\n'))


def test_an_experiment_without_learners_needs_the_preset(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learners: there is none"):
        read_stream(_written(tmp_path, learners=""))


def test_contrasts_are_fixed_once_a_run_has_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contrast = _CONTRAST.format(cell="scratch/er", against="scratch/lwf", expect="higher")
    path = _written(tmp_path, contrast)
    assert main(["stream", str(path)]) == 0
    path.write_text(path.read_text().replace('expect = "higher"', 'expect = "lower"'))
    capsys.readouterr()
    assert main(["stream", str(path)]) == 2
    assert "contrasts" in capsys.readouterr().err
    path.write_text(path.read_text().replace('expect = "lower"', 'expect = "higher"'))
    path.write_text(path.read_text() + '[learners.more]\nalgorithm = "fine-tune"\n')
    assert main(["stream", str(path)]) == 0  # a cell that no contrast names may come


@pytest.mark.parametrize(
    ("algorithm", "fix"),
    [
        ("er", "give this backbone a lower one\n"),
        ("ewc++", "give this backbone a lower one, or learners.it.ewc, which is 1\n"),
    ],
)
def test_a_loss_that_runs_away_is_told_with_its_cell(
    algorithm: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _written(tmp_path, learners=f'it = {{ algorithm = "{algorithm}" }}\n')
    path.write_text(path.read_text().replace('small = "cnn"', 'small = "cnn"\nlr = 1e30'))
    assert main(["stream", str(path)]) == 2
    said = capsys.readouterr().err
    assert "backbones.scratch.lr: it, seed 1: the loss is nan, with lr = 1e+30" in said
    assert fix in said


def test_a_second_stage_is_drawn_beside_what_was_before_it() -> None:
    runs = [
        run.model_copy(update={"second_stage": (0.5 + run.seed / 100, 0.75)})
        if run.learner == "er"
        else run
        for run in _runs(_FINAL)
    ]
    result = conclude_stream(_experiment(), _ABOUT, runs, [], None)
    found = {str((cell.backbone, cell.learner)): cell.mean_second_stage for cell in result.cells}
    assert found["('good', 'er')"] == pytest.approx((0.52, 0.75))
    assert found["('good', 'icarl')"] == ()
    with_it, without = (
        matrix_figure(next(c for c in result.cells if c.learner == learner), result)
        for learner in ("er", "icarl")
    )
    assert "task 1 after the second stage: 0.520" in with_it
    assert "task 2 after task 2: 0.300" in with_it  # what it began from stays
    assert "second stage" not in without
    page = render_stream_page(result)
    assert "Column S2, set apart, is after the second stage." in page
    assert re.search(r"S2</t[hd]>\s*<td[^>]*>\s*0\.520", page)
    assert "S2" not in render_stream_page(_conclude())


def test_results_from_before_second_stages_were_drawn_are_read() -> None:
    cell = _conclude().cells[0]
    stored = cell.model_dump(mode="json", exclude={"mean_second_stage"})
    assert StreamCell.model_validate(stored) == cell
