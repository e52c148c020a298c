"""Figures against pixels worked out by hand, and against names that try to break out."""

import itertools
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from rewarm.reporting import numbers
from rewarm.reporting.curves import LineChart, Point, Series, Span, line_figure, spread
from rewarm.reporting.figures import Axis, Estimate, Figure, LegendEntry, standalone, thinned
from rewarm.reporting.intervals import IntervalChart, IntervalRow, interval_figure
from rewarm.reporting.pairs import Pair, PairChart, front_steps, pair_figure, place_labels
from rewarm.reporting.scales import Scale
from rewarm.reporting.shares import ShareBar, ShareChart, ShareGroup, share_figure
from rewarm.reporting.svg import Frame, shortened, text_width
from rewarm.reporting.text import clean
from rewarm.reporting.theme import DARK, LIGHT, NUM_SERIES_COLORS

SVG = "{http://www.w3.org/2000/svg}"
EXACT = {"floor": 0.0, "margin": 0.0}
HOSTILE = '</script><script>alert("x")</script>&\x00\x1b[31m'


def drawn(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(
        str(markup).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )


def plot_of(root: ElementTree.Element) -> tuple[float, float, float, float]:
    left, top, width, height = (float(part) for part in root.attrib["data-plot"].split())
    return left, top, width, height


def path_points(path: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = re.findall(r"([-\d.]+) ([-\d.]+)", path.attrib["d"])
    return [(float(x), float(y)) for x, y in pairs]


def of_class(root: ElementTree.Element, tag: str, class_: str) -> list[ElementTree.Element]:
    return [e for e in root.iter(SVG + tag) if e.get("class") == class_]


def two_curves(name: str = "b", phases: tuple[Span, ...] = ()) -> LineChart:
    return LineChart(
        title="title",
        description="description",
        x=Axis("step", form="count", floor=0.0, margin=0.0),
        y=Axis("height", floor=0.0, margin=0.0),
        series=(
            Series("a", [Point(0, 0), Point(5, 100), Point(10, 50)], 0),
            Series(name, [Point(0, 25), Point(10, 25)], 1),
        ),
        phases=phases,
    )


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_a_curve_stands_where_its_numbers_say(layout: str) -> None:
    root = drawn(getattr(line_figure(two_curves()), layout))
    left, top, width, height = plot_of(root)
    first, second = of_class(root, "path", "line")
    assert path_points(first) == [
        pytest.approx((left, top + height), abs=0.01),
        pytest.approx((left + width / 2, top), abs=0.01),
        pytest.approx((left + width, top + height / 2), abs=0.01),
    ]
    assert path_points(second)[1] == pytest.approx((left + width, top + 0.75 * height), abs=0.01)


def test_what_the_pointer_finds_is_what_is_drawn() -> None:
    figure = line_figure(two_curves())
    data = json.loads(figure.hover)
    assert data["mode"] == "column"
    assert data["columns"] == [
        [0.0, "step 0", [["s0", 0.0, "a 0.0000"], ["s1", 0.25, "b 25.0000"]]],
        [0.5, "step 5", [["s0", 1.0, "a 100.0000"]]],
        [1.0, "step 10", [["s0", 0.5, "a 50.0000"], ["s1", 0.25, "b 25.0000"]]],
    ]


def test_the_table_has_every_number_and_says_what_is_missing() -> None:
    table = line_figure(two_curves()).table
    assert [column.name for column in table.columns] == ["step", "a", "b"]
    assert table.rows == (
        ("0", "0.0000", "25.0000"),
        ("5", "100.0000", "–"),
        ("10", "50.0000", "25.0000"),
    )


def test_a_long_table_is_thinned_and_says_so() -> None:
    points = [Point(k, k) for k in range(5000)]
    chart = LineChart("t", "d", Axis("step", form="count"), Axis("y"), (Series("a", points),))
    table = line_figure(chart).table
    assert len(table.rows) == 40
    assert table.rows[0][0] == "0"
    assert table.rows[-1][0] == "4,999"
    assert table.note == "40 of 5,000 points, evenly spread; first and last are kept."


def test_phases_are_shaded_at_their_steps() -> None:
    spans = (Span(0, 4, "first"), Span(4, 10, "second"))
    root = drawn(line_figure(two_curves(phases=spans)).wide)
    left, top, width, height = plot_of(root)
    (band,) = of_class(root, "rect", "band")
    assert float(band.attrib["x"]) == pytest.approx(left + 0.4 * width, abs=0.01)
    assert float(band.attrib["width"]) == pytest.approx(0.6 * width, abs=0.01)
    assert (float(band.attrib["y"]), float(band.attrib["height"])) == (top, height)


def test_the_strip_of_what_counts_as_kept() -> None:
    chart = LineChart(
        "t", "d", Axis("x", **EXACT), Axis("y", margin=0.0),  # type: ignore[arg-type]
        (Series("a", [Point(0, -1), Point(1, 1)]),), kept=0.25,
    )  # fmt: skip
    root = drawn(line_figure(chart).wide)
    _, top, _, height = plot_of(root)
    (strip,) = of_class(root, "rect", "kept")
    assert float(strip.attrib["y"]) == pytest.approx(top + height * 0.375, abs=0.01)
    assert float(strip.attrib["height"]) == pytest.approx(height / 4, abs=0.01)


def test_early_steps_stand_apart_on_the_axis_of_updates() -> None:
    scale = Scale.covering("steps", [0, 390])
    fractions = [scale.fraction(step) for step in (0, 1, 2, 4, 8, 390)]
    assert fractions == [
        pytest.approx(math.log1p(step) / math.log1p(390)) for step in (0, 1, 2, 4, 8, 390)
    ]
    assert min(b - a for a, b in itertools.pairwise(fractions)) > 0.06
    assert scale.ticks(0.06)[:4] == [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("scale", "least_gap", "ticks"),
    [
        (Scale("linear", 0.0, 1.0), 0.2, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale("linear", -0.3, 1.1), 0.3, [0.0, 0.5, 1.0]),
        (Scale("linear", 97.0, 103.0), 0.3, [98.0, 100.0, 102.0]),
        (Scale("log", 1e-6, 1e-3), 0.2, [1e-6, 1e-5, 1e-4, 1e-3]),
        (Scale("log", 1.2, 1.7), 0.2, [1.2, 1.4, 1.6]),
    ],
)
def test_ticks_are_round(scale: Scale, least_gap: float, ticks: list[float]) -> None:
    assert scale.ticks(least_gap) == pytest.approx(ticks)


@pytest.mark.parametrize(("last", "ticks"), [(1, "0 1"), (7, "0 1 2 3 4 5 6 7"), (30, "0 5 10")])
def test_an_axis_of_steps_has_each_label_once(last: int, ticks: str) -> None:
    axis = Axis("step", form="count", floor=0.0, margin=0.0)
    labels = axis.tick_labels(axis.scale([0, last]).ticks(0.07))
    assert len(set(labels)) == len(labels)
    assert " ".join(labels).startswith(ticks)


def test_scales_survive_what_has_no_range() -> None:
    assert Scale.covering("linear", []) == Scale("linear", 0.0, 1.0)
    assert Scale.covering("linear", [3.0]).fraction(3.0) == pytest.approx(0.5)
    assert Scale.covering("linear", [0.0]).fraction(0.0) == pytest.approx(0.5)
    assert Scale.covering("log", [0.0, -1.0]) == Scale("log", 1.0, 10.0)
    assert Scale.covering("log", [1e-4]).fraction(1e-4) == pytest.approx(0.5)
    assert Scale.covering("steps", [0]).fraction(0) == 0.0


def test_a_rate_of_zero_leaves_a_logarithmic_axis() -> None:
    points = [Point(0, 1e-3), Point(1, 1e-4), Point(2, 0.0)]
    axis = Axis("rate", kind="log", form="rate")
    figure = line_figure(LineChart("t", "d", Axis("x"), axis, (Series("a", points),)))
    (line,) = of_class(drawn(figure.wide), "path", "line")
    assert len(path_points(line)) == 2
    assert figure.table.rows[2] == ("2.0000", "0")


def test_names_at_the_ends_move_apart_and_stay_inside() -> None:
    assert spread([10.0, 50.0, 90.0], 15, 0, 100) == [10.0, 50.0, 90.0]
    assert spread([50.0, 50.0], 15, 0, 100) == [50.0, 65.0]
    assert spread([98.0, 99.0, 97.0], 15, 0, 100) == [85.0, 100.0, 70.0]


def test_an_interval_is_drawn_from_end_to_end() -> None:
    rows = (
        IntervalRow("old", "known", Estimate(0.5, 0.25, 0.75), "bad", "forgotten"),
        IntervalRow("one", "task", Estimate(-1.0), "open", "not resolved"),
    )
    chart = IntervalChart("t", "d", Axis("change", form="signed", margin=0.0), rows, kept=1.0)
    figure = interval_figure(chart)
    root = drawn(figure.wide)
    left, top, width, height = plot_of(root)
    whisker = path_points(of_class(root, "path", "whisker")[0])
    line = top + height / 4
    # The axis goes from −1 to 1, so 0.25 stands at 5/8 and 0.75 at 7/8 of it.
    assert whisker == [
        pytest.approx((left + width * 5 / 8, line), abs=0.01),
        pytest.approx((left + width * 7 / 8, line), abs=0.01),
    ]
    assert len(of_class(root, "path", "whisker")) == 3  # the line and its two ends; none for `one`
    assert figure.table.rows[1][1:3] == ("−1.0000", "not known")
    assert figure.table.rows[0][2] == "+0.2500\u00a0to\u00a0+0.7500"


def test_shares_fill_the_bar_exactly() -> None:
    sources = (LegendEntry("s0", "web"), LegendEntry("s1", "code"), LegendEntry("s2", "none"))
    bars = (ShareBar("planned", (0.75, 0.25, 0.0)), ShareBar("seen", (0.0, 0.0, 0.0)))
    chart = ShareChart("t", "d", sources, (ShareGroup("only", "steps 0 to 9", bars),))
    figure = share_figure(chart)
    root = drawn(figure.wide)
    left, _, width, _ = plot_of(root)
    web, code = of_class(root, "rect", "share")
    assert float(web.attrib["x"]) == left
    assert float(web.attrib["width"]) == pytest.approx(0.75 * width, abs=0.01)
    assert float(code.attrib["x"]) == pytest.approx(left + 0.75 * width, abs=0.01)
    assert "nothing yet" in figure.wide
    assert figure.table.rows[0] == ("only", "planned", "75.00 %", "25.00 %", "0.00 %")


def pair(name: str, x: float, y: float) -> Pair:
    return Pair(name, Estimate(x, x - 0.1, x + 0.1), Estimate(y, y - 0.1, y + 0.1), 0)


def test_the_front_joins_what_nothing_beats() -> None:
    pairs = [
        pair("a", 0.1, 0.2),
        pair("b", 0.3, 0.5),
        pair("beaten", 0.4, 0.4),
        pair("c", 0.9, 0.6),
    ]
    assert front_steps(pairs) == [(0.1, 0.2), (0.3, 0.2), (0.3, 0.5), (0.9, 0.5), (0.9, 0.6)]
    assert front_steps([pair("same", 0.1, 0.2), pair("same too", 0.1, 0.2)]) == [(0.1, 0.2)]


def test_labels_of_near_pairs_do_not_cover_each_other() -> None:
    frame = Frame(760, 400, left=40, top=30, right=746, bottom=360)
    centres = [(100.0, 200.0), (104.0, 206.0), (110.0, 198.0), (98.0, 212.0)]
    names = ["first arm", "second arm", "third arm", "fourth arm"]
    corners = place_labels(centres, names, frame)
    boxes = [
        (x, y - 11, x + text_width(name), y + 3)
        for (x, y), name in zip(corners, names, strict=True)
    ]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_names_of_many_arms_at_one_place_stay_apart_and_inside() -> None:
    # As eight of the arms of reproduction/experiments/reuse.toml lie, at a phone's width.
    frame = Frame(380, 340, left=40, top=30, right=366, bottom=300)
    centres = [(350.0 - 3 * k, 200.0 + 4 * (k % 5)) for k in range(8)]
    names = [f"area-matched-{k}" for k in range(8)]
    boxes = [
        (x, y - 11, x + text_width(name, bold=True), y + 3)
        for (x, y), name in zip(place_labels(centres, names, frame), names, strict=True)
    ]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert min(box[0] for box in boxes) >= 0
    assert max(box[2] for box in boxes) <= frame.width


def test_a_name_far_from_its_point_has_a_line_to_it() -> None:
    pairs = tuple(Pair(f"arm {k}", Estimate(0.1 + k / 9e3), Estimate(0.1), k % 6) for k in range(9))
    axis = Axis("change", form="signed")
    root = drawn(pair_figure(PairChart("t", "d", axis, axis, pairs, "base")).wide)
    assert of_class(root, "line", "leader")
    near = pair_figure(PairChart("t", "d", axis, axis, pairs[:1], "base"))
    assert not of_class(drawn(near.wide), "line", "leader")


def test_two_contrasts_of_one_arm_can_be_told_apart_and_no_minus_is_crossed() -> None:
    rows = tuple(
        IntervalRow("replay-25", f"− {other}", Estimate(-0.2, -0.3, -0.1), "good", "as expected")
        for other in ("naive", "replay-5")
    )
    axis = Axis("difference", form="signed")
    figure = interval_figure(IntervalChart("t", "d", axis, rows, kept=0.05))
    assert [getattr(row[0], "below", "") for row in figure.table.rows] == ["− naive", "− replay-5"]
    root = drawn(figure.narrow)
    texts = [element.text for element in root.iter(SVG + "text")]
    assert {"− naive", "− replay-5"} <= set(texts)
    words = [e for e in root.iter(SVG + "text") if str(e.text).endswith("as expected")]
    assert len(words) == 2
    for line in of_class(root, "line", "zero"):
        for word in words:
            base = float(word.attrib["y"])
            low, high = float(line.attrib["y1"]), float(line.attrib["y2"])
            assert high <= base - 10 or low >= base + 3


def test_no_label_of_an_axis_touches_the_next() -> None:
    axis = Axis("forgetting", form="signed", margin=0.0)
    for most in (4e-4 * 1.04**k for k in range(200)):
        arm = Pair("a", Estimate(most), Estimate(1.0), 0)
        figure = pair_figure(PairChart("t", "d", axis, Axis("y"), (arm,), "base"))
        for root in (drawn(figure.wide), drawn(figure.narrow)):
            bottom = plot_of(root)[1] + plot_of(root)[3]
            ends = [
                (float(e.attrib["x"]), text_width(str(e.text)) / 2)
                for e in root.iter(SVG + "text")
                if float(e.attrib["y"]) == pytest.approx(bottom + 17)
            ]
            assert len(ends) > 1
            for (x, half), (other, other_half) in itertools.pairwise(ends):
                assert other - other_half >= x + half + 4


def hostile_figures() -> list[Figure]:
    axis = Axis(HOSTILE)
    legend = (LegendEntry("s0", HOSTILE),)
    bars = (ShareBar(HOSTILE, (1.0,)),)
    row = IntervalRow(HOSTILE, HOSTILE, Estimate(1.0, 0.0, 2.0), "bad", HOSTILE)
    return [
        line_figure(two_curves(HOSTILE, (Span(0, 4, HOSTILE), Span(4, 10, HOSTILE)))),
        interval_figure(IntervalChart(HOSTILE, HOSTILE, axis, (row,), kept=0.1)),
        share_figure(ShareChart(HOSTILE, HOSTILE, legend, (ShareGroup(HOSTILE, HOSTILE, bars),))),
        pair_figure(PairChart(HOSTILE, HOSTILE, axis, axis, (pair(HOSTILE, 1, 1),), HOSTILE)),
    ]


@pytest.mark.parametrize("figure", hostile_figures())
def test_a_name_cannot_break_out_of_a_figure(figure: Figure) -> None:
    for markup in (figure.wide, figure.narrow):
        root = drawn(markup)
        assert not list(root.iter(f"{SVG}script"))
        assert root.attrib["role"] == "img"
        assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert not set("<>&") & set(figure.hover)
    labels = json.dumps(json.loads(figure.hover), ensure_ascii=False)
    assert "</script>" in labels
    assert "\\u0000" not in labels


def test_a_figure_stands_alone_as_svg() -> None:
    svg = standalone(line_figure(two_curves(HOSTILE)))
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    _, _, width, height = root.attrib["viewBox"].split()
    assert (width, height) == (root.attrib["width"], root.attrib["height"])
    assert f"--ink: {LIGHT['ink']}" in svg
    assert not re.search(r"(href|url\(|@import)", svg)
    assert svg.count("http") == 1  # the name of the SVG namespace


def test_text_that_does_not_fit_is_cut() -> None:
    assert shortened("short", 100) == "short"
    cut = shortened("a name far too long for its place", 60)
    assert cut.endswith("…")
    assert text_width(cut) <= 60
    assert shortened("anything", 3) == ""
    assert text_width("相相") == 24
    assert clean("a\ud800\x00b\tc") == "a��b\tc"


def test_thinning_keeps_both_ends() -> None:
    assert thinned([1, 2, 3], 5) == [1, 2, 3]
    assert thinned(list(range(101)), 5) == [0, 25, 50, 75, 100]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.signed(0.03125, 3), "+0.031"),
        (numbers.signed(-0.52), "−0.520"),
        (numbers.signed(-0.0001), "0.000"),
        (numbers.signed(0.0001), "0.000"),
        (numbers.signed(1234.5, 1), "+1,234.5"),
        (numbers.plain(None), "–"),
        (numbers.plain(-1.5, 1), "−1.5"),
        (numbers.rate(4.5e-5), "4.5e-5"),
        (numbers.rate(1e-4), "1e-4"),
        (numbers.rate(0.0197), "0.0197"),
        (numbers.rate(0.0), "0"),
        (numbers.rate(5.04e12), "5.04e12"),
        (numbers.share(0.125), "12.5 %"),
        (numbers.count(1234567), "1,234,567"),
        (numbers.in_unit(185.0, "s"), "3 min 05 s"),
        (numbers.in_unit(2**30, "byte"), "1 GiB"),
    ],
)
def test_numbers_as_people_read_them(written: str, expected: str) -> None:
    assert written == expected


def test_tick_labels_have_the_decimals_that_tell_them_apart() -> None:
    assert Axis("y", form="signed").tick_labels([-0.05, 0.0, 0.05]) == ["−0.05", "0.00", "+0.05"]
    assert Axis("y").tick_labels([0.0, 20.0, 40.0]) == ["0", "20", "40"]
    assert Axis("y", form="count").tick_labels([0, 50_000, 100_000]) == ["0", "50k", "100k"]
    assert Axis("y", form="points").tick_labels([-0.02, 0.0]) == ["−2", "0"]


def luminance(color: str) -> float:
    channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_can_be_read_on_their_page(theme: dict[str, str]) -> None:
    names = ["ink", "soft", "accent", "good", "bad"]
    names += [f"series-{index}" for index in range(NUM_SERIES_COLORS)]
    page = luminance(theme["page"])
    for name in names:
        color = luminance(theme[name])
        contrast = (max(color, page) + 0.05) / (min(color, page) + 0.05)
        assert contrast >= 4.5, f"{name}: {contrast:.2f}"
