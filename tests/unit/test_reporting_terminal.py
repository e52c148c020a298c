"""What stands on a terminal: within 80 columns, plain where it must be, and true."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console, RenderableType

from rewarm.evaluation.forgetting import domain_verdicts
from rewarm.planning.plan import Plan
from rewarm.planning.schedule import PieceSpec, Schedule, chain, lr_curve
from rewarm.reporting import numbers
from rewarm.reporting.arms import load_arm
from rewarm.reporting.blend_terminal import blend_table
from rewarm.reporting.plan_terminal import draw_schedule, plan_summary
from rewarm.reporting.terminal import arms_table, verdict_table
from rewarm.units import format_count
from tests.support.fake_runs import Arm, eval_record, fake_plan, fake_recipe, make_fake_run


def lines_of(renderable: RenderableType, *, width: int = 80, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(file=file, width=width, force_terminal=False)
    console.print(renderable)
    file.seek(0)
    lines = [line.rstrip() for line in file.read().splitlines()]
    assert all(len(line) <= width for line in lines)
    return lines


def plan_for(arm: Arm | None = None, *, num_steps: int = 390, hostile: bool = False) -> Plan:
    recipe = fake_recipe(1, arm or Arm(), num_steps, hostile=hostile)
    return fake_plan(recipe, hostile=hostile)


def test_the_schedule_is_drawn_with_its_phases() -> None:
    lines = lines_of(draw_schedule(plan_for()))
    assert lines[0].startswith("1e-4 ⠉")
    assert lines[5].startswith("   0 ")
    assert lines[5].endswith("⣀")
    second = lines[6].index("│qa blend")
    assert lines[6][5:].startswith("│general blend")
    assert lines[7].split() == ["0", "278", "390", "steps"]
    # Its edge stands where its first step stands between the steps.
    assert second - 5 == int(278 / 390 * 74)
    assert all(line[second] == "┊" for line in lines[:3])


def test_a_constant_rate_is_a_line_at_the_top() -> None:
    plan = plan_for()
    piece = plan.science.schedule[0].model_copy(update={"shape": "constant"})
    science = plan.science.model_copy(update={"schedule": (piece,)})
    lines = lines_of(draw_schedule(plan.model_copy(update={"science": science})))
    assert set(lines[0][5:]) == {chr(0x2800 + 0x09)}
    assert not any(0x2800 <= ord(c) < 0x2900 for line in lines[1:6] for c in line)


def test_a_linear_decay_passes_the_middle() -> None:
    plan = plan_for()
    piece = plan.science.schedule[0].model_copy(update={"shape": "linear", "end_lr": 0.0})
    science = plan.science.model_copy(update={"schedule": (piece,)})
    lines = lines_of(draw_schedule(plan.model_copy(update={"science": science})))
    columns = [
        {index for index, c in enumerate(line) if 0x2800 < ord(c) < 0x2900} for line in lines[:6]
    ]
    # Six rows share 74 columns evenly, from the upper left to the lower right.
    assert [min(found) - 5 for found in columns] == pytest.approx(
        [0, 12.3, 24.7, 37, 49.3, 61.7], abs=2.1
    )
    assert max(columns[5]) == 78


def test_a_jump_is_drawn_without_a_gap() -> None:
    lines = lines_of(draw_schedule(plan_for(Arm(peak="pretraining.peak", warmup=0.01))))
    # Four steps of warm-up fall into the first two cells: every row but the lowest is crossed.
    assert all(any(0x2800 < ord(cell) < 0x2900 for cell in line[5:7]) for line in lines[:5])


def with_schedule(schedule: Schedule) -> Plan:
    """Return a plan of one phase with this schedule."""
    plan = plan_for()
    end = schedule[-1].end_step
    phase = plan.science.phases[0].model_copy(update={"end_step": end})
    science = plan.science.model_copy(
        update={"schedule": schedule, "phases": (phase,), "num_steps": end}
    )
    return plan.model_copy(update={"science": science})


def dots_of(plan: Plan, *, width: int = 80) -> NDArray[np.bool_]:
    """Return the dots of a drawing, [rows, columns] of dots from the top left, labels left out."""
    lines = lines_of(draw_schedule(plan), width=width)[:6]
    gutter = lines[0].index(" ") + 1
    # Bits of a cell by row and column, as Unicode has them.
    bits = [[0, 3], [1, 4], [2, 5], [6, 7]]
    dots = np.zeros((24, 2 * min(width - gutter - 1, 100)), dtype=bool)
    for row, line in enumerate(lines):
        for column, cell in enumerate(line[gutter:]):
            if 0x2800 <= ord(cell) < 0x2900:
                for y, x in itertools.product(range(4), range(2)):
                    is_set = (ord(cell) - 0x2800) >> bits[y][x] & 1
                    dots[4 * row + y, 2 * column + x] = bool(is_set)
    return dots


SHAPES = ("constant", "linear", "cosine", "1-sqrt", "inverse-sqrt", "exponential")
PIECES = st.lists(
    st.builds(
        PieceSpec,
        st.sampled_from(SHAPES),
        st.integers(1, 400),
        st.floats(1e-6, 1e-3),
        st.floats(1e-6, 1e-3),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(PIECES, st.sampled_from([20, 60, 80, 120]))
def test_no_rate_of_any_step_is_lost_in_the_drawing(specs: list[PieceSpec], width: int) -> None:
    schedule = chain(specs)
    dots = dots_of(with_schedule(schedule), width=width)
    curve = lr_curve(schedule)
    rows = np.round((1 - curve / curve.max()) * 23).astype(int)
    # A step has all columns from its own first to the next step's; many share one.
    columns = np.minimum(np.arange(len(curve)) * dots.shape[1] // len(curve), dots.shape[1] - 1)
    near = [np.clip(columns + shift, 0, dots.shape[1] - 1) for shift in (0, 1)]
    assert np.all(dots[rows, near[0]] | dots[rows, near[1]])
    # The line has no hole: each column holds one stretch that touches the column before.
    for x in range(dots.shape[1]):
        (rows,) = dots[:, x].nonzero()
        assert len(rows) == rows[-1] - rows[0] + 1
        if x:
            (before,) = dots[:, x - 1].nonzero()
            assert rows[0] <= before[-1] + 1
            assert rows[-1] >= before[0] - 1


def test_a_step_of_a_short_run_is_as_wide_as_its_share() -> None:
    piece = PieceSpec("linear", 5, 1e-3, 0.0)
    dots = dots_of(with_schedule(chain([piece])), width=56)
    tops = dots.argmax(axis=0)
    # 100 columns of dots for 5 steps, at rates of 1, 4/5, 3/5, 2/5 and 1/5 of 23 rows.
    assert [int(tops[x]) for x in (10, 30, 50, 70, 90)] == [0, 5, 9, 14, 18]
    # The first column of a step also holds the line that joins it to the step before.
    assert [x for x in range(2, 100) if tops[x] != tops[x - 1]] == [
        *(20, 21),
        *(40, 41),
        *(60, 61),
        *(80, 81),
    ]


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_run_of_few_steps_is_drawn(num_steps: int, width: int) -> None:
    lines = lines_of(
        draw_schedule(with_schedule(chain([PieceSpec("cosine", num_steps, 1e-3, 0.0)]))),
        width=width,
    )
    assert lines[7].split() == ["0", str(num_steps), "step" if num_steps == 1 else "steps"]
    assert len(lines[7]) == min(width - 1, 105)


def test_a_phase_too_short_for_its_name_is_told_below() -> None:
    plan = plan_for()
    first, second = plan.science.phases
    late = second.model_copy(update={"start_step": 388})
    phases = (first.model_copy(update={"end_step": 388}), late)
    science = plan.science.model_copy(update={"phases": phases})
    lines = lines_of(draw_schedule(plan.model_copy(update={"science": science})))
    assert lines[6].rstrip().endswith("│")
    assert lines[8:] == ["     │qa blend: from step 388"]
    narrow = lines_of(draw_schedule(plan), width=24)
    assert (
        "".join(line.strip() for line in narrow[8:])
        == "│general blend:from step 0│qa blend: fromstep 278"
    )


def test_without_unicode_the_drawing_is_ascii() -> None:
    lines = lines_of(draw_schedule(plan_for()), encoding="ascii")
    assert "".join(lines).isascii()
    assert lines[0].startswith("1e-4 ****")


def test_a_terminal_too_narrow_for_a_drawing_has_none() -> None:
    assert lines_of(draw_schedule(plan_for()), width=12) == []


def test_the_blend_by_source() -> None:
    plan = plan_for()
    rows = [line.split() for line in lines_of(blend_table(plan))]
    assert rows[2] == ["english", "general", "25.0", "%", "25.0", "%", "200k", "900k", "0", "0.22"]
    assert rows[4][:4] == ["qa", "qa", "–", "12.0"]


def test_a_narrow_terminal_loses_no_word_and_no_number() -> None:
    plan = plan_for()
    wide = " ".join(lines_of(plan_summary(plan), width=300))
    narrow = " ".join(" ".join(lines_of(plan_summary(plan), width=40)).split())
    for reason in plan.reasons:
        assert " ".join(reason.reason.split()) in narrow
        assert f"{reason.field}: {reason.value}" in narrow
    for estimate in plan.estimates:
        assert estimate.formula in narrow
    for number in ("25.0 %", "63.0 %", "12.0 %", "572k", "520k", "1.10"):
        assert number in wide
        assert number in narrow


def test_one_is_singular() -> None:
    plan = plan_for()
    one = plan.model_copy(
        update={"science": plan.science.model_copy(update={"sequences_per_step": 1})}
    )
    text = " ".join(" ".join(lines_of(plan_summary(one))).split())
    assert "1 sequence of 128 a step" in text
    assert "· 1 device)" in text


def test_the_summary_tells_what_matters() -> None:
    text = "\n".join(lines_of(plan_summary(plan_for(Arm(old_weight=0.0)))))
    assert "390 steps of 2.05k tokens, 799k in all" in text
    assert "Parmar et al. 2024" in text
    assert "training compute" in text
    assert "- no phase shows text of the old domain" in text
    assert "estimated from a sample" not in text
    estimated = plan_for().model_copy(update={"measured": False})
    assert "estimated from a sample" in "\n".join(lines_of(plan_summary(estimated)))


def test_names_carry_no_control_characters_and_no_markup(tmp_path: Path) -> None:
    plan = plan_for(hostile=True).model_copy(update={"name": "\x1b[31m[red]name[/red]"})
    text = "\n".join(lines_of(plan_summary(plan)))
    assert "\x1b" not in text
    assert "[red]name[/red]" in text
    records = [
        eval_record(
            step,
            "[bold]\x1b]0;x\x07\x9b2J\u202e",
            "general",
            "bits_per_byte",
            [1.0 + step] * 9,
            [9] * 9,
        )
        for step in (0, 1)
    ]
    table = "\n".join(lines_of(verdict_table(records)))
    assert "[bold]" in table
    assert not set("\x1b\x9b\u202e") & set(table)


def test_verdicts_have_the_records_numbers(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=40)
    lines = lines_of(verdict_table(run.evals()))
    english = domain_verdicts(run.evals())[0]
    row = lines[2].split()
    assert row[:2] == ["english", "text"]
    assert row[2:5] == [f"{english.first:.3f}", f"{english.last:.3f}", f"{english.delta:+.3f}"]
    assert row[-1] == english.verdict
    assert "evaluation noise of one seed" in " ".join(lines)
    assert "nothing to compare yet" in lines_of(verdict_table([]))[0]


def test_arms_stand_under_their_base(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, num_steps=40)
    empty = make_fake_run(tmp_path / "empty", num_steps=40, steps_taken=0, evaluated=False)
    arms = [load_arm("reuse-area-matched", "", run), load_arm("not run yet", "", empty)]
    lines = lines_of(arms_table(arms))
    old = arms[0].old
    assert old is not None
    base = next(line for line in lines if line.startswith("base (step 0)")).split()
    assert base[3] == f"{old.first:.3f}"
    arm = next(line for line in lines if line.startswith("reuse-area-matched")).split()
    assert arm[1] == f"{old.change.value:+.3f}"
    assert arm[5:7] == [format_count(arms[0].view.num_tokens), numbers.rate(arms[0].view.lr_area)]
    below = lines[lines.index(next(x for x in lines if x.startswith("reuse-area-matched"))) + 1]
    matched = arms[0].matched_old
    assert matched is not None
    assert matched.standard_error is not None
    assert below.split()[-2:] == ["s.e.", f"{100 * matched.standard_error:.1f}"]
    assert max(map(len, lines)) <= 80
    assert next(line for line in lines if line.startswith("not run yet")).split()[3:7] == ["–"] * 4
    assert lines_of(arms_table([]))
