"""The pages in a real browser: no complaint, nothing wider than a phone, numbers under the pointer.

A wrapper page shows the report in a frame of a chosen width and asks it questions; Chromium prints
what came of that. There is no network in this: `--dump-dom` renders local files.
"""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rewarm.records.run_folder import RunFolder
from rewarm.reporting.comparison_page import render_comparison_page
from rewarm.reporting.report import (
    load_arm,
    render_comparison_report,
    render_merge_report,
    render_run_report,
)
from tests.support.fake_comparison import fake_comparison
from tests.support.fake_runs import ARMS, make_fake_run
from tests.support.fake_sweep import make_sweep

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium (chromium or google-chrome) in PATH"
    ),
]

WRAPPER = """<!doctype html><meta charset="utf-8">
<iframe id="frame" width="{width}" height="800" style="border:0" srcdoc="{page}"></iframe>
<pre id="answer">no answer</pre>
<script>
const frame = document.getElementById("frame");
frame.addEventListener("load", () => {{
  const inner = frame.contentWindow, doc = frame.contentDocument;
  let answer;
  try {{ answer = (() => {{ {question} }})(); }} catch (error) {{ answer = String(error); }}
  document.getElementById("answer").textContent = JSON.stringify(answer);
}});
</script>"""


def ask(tmp_path: Path, page: str, question: str, *, width: int = 1000, dark: bool = False) -> Any:
    """Return what the JavaScript `question` returns in the page, shown `width` pixels wide."""
    assert CHROMIUM is not None
    file = tmp_path / "wrapper.html"
    wrapper = WRAPPER.format(width=width, page=html.escape(page), question=question)
    file.write_text(wrapper, encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--window-size=1200,900",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints
    answer = done.stdout.split('<pre id="answer">')[1].split("</pre>")[0]
    return json.loads(html.unescape(answer))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_fake_run(tmp_path_factory.mktemp("hostile"), num_steps=60, hostile=True)


@pytest.fixture(scope="module")
def report(hostile: RunFolder) -> str:
    return render_run_report(hostile)


@pytest.fixture(scope="module")
def comparison(hostile: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    arms = [load_arm("<img src=x> " + 12 * "unbreakable", "hostile", hostile)]
    for index, (name, (description, arm)) in enumerate(ARMS.items()):
        folder = tmp_path_factory.mktemp(f"arm{index}")
        arms.append(load_arm(name, description, make_fake_run(folder, num_steps=60, arm=arm)))
    return render_comparison_report("Ways to continue", arms, ["a note"])


@pytest.fixture(scope="module")
def merge() -> str:
    return render_merge_report(make_sweep(hostile="<img src=x> " + 12 * "unbreakable"))


@pytest.fixture(scope="module")
def experiment() -> str:
    return render_comparison_page(fake_comparison("<img src=x> " + 12 * "unbreakable"))


@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("which", ["report", "comparison", "merge", "experiment"])
def test_nothing_is_wider_than_the_page(
    which: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(which)
    question = """
        for (const details of doc.querySelectorAll("details")) details.open = true;
        const root = doc.documentElement;
        return [root.scrollWidth - root.clientWidth, doc.querySelectorAll(".plot").length];
    """
    excess, num_plots = ask(tmp_path, page, question, width=width)
    assert excess == 0
    assert num_plots > {"merge": 0, "experiment": 2}.get(which, 5)


@pytest.mark.parametrize(("width", "shown"), [(360, "narrow"), (1000, "wide")])
def test_the_drawing_that_fits_is_shown(
    width: int, shown: str, tmp_path: Path, report: str
) -> None:
    question = """
        const svgs = [...doc.querySelectorAll("#verdict .plot svg")];
        return svgs.filter((svg) => svg.clientWidth > 0).map((svg) => svg.classList[1]);
    """
    assert set(ask(tmp_path, report, question, width=width)) == {shown}


LOOK = """
    const plot = [...doc.querySelectorAll(".plot")].find(
      (plot) => plot.getAttribute("aria-label").startsWith("Learning rate"));
    const svg = [...plot.querySelectorAll("svg")].find((svg) => svg.clientWidth > 0);
    const tip = () => plot.querySelector(".tip");
    const text = () => tip().style.display === "none" ? "" : tip().innerText.trim();
"""


def test_the_pointer_shows_the_nearest_numbers(tmp_path: Path, report: str) -> None:
    question = (
        LOOK
        + """
        const [left, , width] = svg.dataset.plot.split(" ").map(Number);
        const box = svg.getBoundingClientRect();
        const scale = box.width / svg.viewBox.baseVal.width;
        const move = (type, fraction) => plot.dispatchEvent(new inner.PointerEvent(type, {
          clientX: box.left + (left + fraction * width) * scale, clientY: box.top + 50,
          bubbles: true, pointerType: "mouse" }));
        move("pointermove", 0); const first = text();
        move("pointermove", 1); const last = text();
        move("pointerleave", 1); const gone = text();
        return [first, last, gone, plot.querySelectorAll(".ring").length];
    """
    )
    first, last, gone, num_rings = ask(tmp_path, report, question)
    assert first.split("\n") == ["step 0", "planned 1e-4", "recorded 1e-4"]
    assert last.startswith("step 59")
    assert gone == ""
    assert num_rings == 0


def test_the_arrow_keys_read_the_numbers(tmp_path: Path, report: str) -> None:
    question = (
        LOOK
        + """
        const press = (key) => {
          plot.dispatchEvent(new inner.KeyboardEvent("keydown", { key, bubbles: true }));
          return text().split("\\n")[0];
        };
        return [plot.tabIndex, press("End"), press("ArrowLeft"), press("Home"),
          press("ArrowRight"), press("Escape")];
    """
    )
    expected = [0, "step 59", "step 58", "step 0", "step 1", ""]
    assert ask(tmp_path, report, question) == expected


def test_light_and_dark_follow_the_system_and_the_button(tmp_path: Path, report: str) -> None:
    question = """
        const ground = () => inner.getComputedStyle(doc.body).backgroundColor;
        const before = ground();
        doc.querySelector(".theme").click(); const once = ground();
        doc.querySelector(".theme").click();
        return [before, once, ground()];
    """
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 27)"
    assert ask(tmp_path, report, question) == [light, dark, light]
    assert ask(tmp_path, report, question, dark=True) == [dark, light, dark]


def test_every_seed_of_a_comparison_can_be_read(tmp_path: Path, experiment: str) -> None:
    question = """
        const plot = [...doc.querySelectorAll(".plot")].find(
          (plot) => plot.getAttribute("aria-label").startsWith("Adaptation against"));
        const read = new Set();
        for (let k = 0; k < 40; k++) {
          plot.dispatchEvent(new inner.KeyboardEvent("keydown", { key: "ArrowRight" }));
          read.add(plot.querySelector(".tip").innerText.split("\\n")[0]);
        }
        return [...read];
    """
    read = ask(tmp_path, experiment, question)
    for seed in (1, 2, 3):
        assert f"replay, seed {seed}" in read


def test_no_name_became_an_element(tmp_path: Path, comparison: str) -> None:
    question = """
        return [doc.querySelectorAll("img").length, doc.querySelector("summary b").textContent];
    """
    num_images, name = ask(tmp_path, comparison, question)
    assert num_images == 0
    assert name.startswith("<img src=x>")
