"""The live page in a real browser: it follows a run as it goes, and speaks to nobody else."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.records.run_folder import RunFolder
from rewarm.reporting.live_page import LivePage, LiveRun, RunSite
from rewarm.reporting.watch import WatchServer
from tests.support.chromium import CHROMIUM, Page, open_page
from tests.support.fake_runs import make_fake_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium (chromium or google-chrome) in PATH"
    ),
]

STEPS = "document.querySelectorAll('.key-figures dd')[1].textContent"
FIRST_PLOT = "#training .plot"


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render as often as there is something new, however busy the machine is."""
    monkeypatch.setattr("rewarm.reporting.live_page._MOST_SHARE", 1.0)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_fake_run(tmp_path / "run", steps_taken=200)


@pytest.fixture
def server(run: RunFolder) -> Iterator[WatchServer]:
    with WatchServer(RunSite(LivePage(LiveRun(run))), 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def page(server: WatchServer, tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path / "profile") as page:
        page.show_as(width=1200)
        page.go(server.url)
        page.wait("document.querySelector('.link').textContent === 'live'")
        yield page
        # Whatever a test did: nothing was complained of, and nothing left this machine.
        assert page.complaints == []
        assert page.requests
        assert all(url.startswith(server.url) for url in page.requests)


def take_steps(run: RunFolder, upto: int) -> None:
    """Let a run go on, as its logs tell it: another with as many steps has them all."""
    further = make_fake_run(run.path.parent / "further", steps_taken=upto)
    for log in (further.steps_log, further.evals_log, further.events_log):
        if log.exists():
            os.replace(log, run.path / "metrics" / log.name)


def test_it_follows_a_run_without_being_loaded_again(page: Page, run: RunFolder) -> None:
    page.ask("window.stayed = true")
    assert page.ask(STEPS).startswith("200 of 390")
    take_steps(run, 390)
    page.wait(f"{STEPS}.startsWith('390 of 390')")
    assert page.ask("document.querySelector('.state').textContent") == "finished"
    assert page.ask("window.stayed") is True


def test_what_a_reader_opened_and_points_at_stays(page: Page, run: RunFolder) -> None:
    page.ask("document.querySelector('#training details').open = true")
    page.ask(f"document.querySelector('{FIRST_PLOT}').scrollIntoView({{block: 'center'}})")
    page.ask("new Promise((done) => setTimeout(done, 800))")  # it scrolls smoothly
    box = page.ask(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
        f"(document.querySelector('{FIRST_PLOT}').getBoundingClientRect())"
    )
    page.point(*box)
    tip = "document.querySelector('#training .tip').textContent"
    before = page.wait(tip)
    page.ask("window.old = document.querySelector('#training')")
    take_steps(run, 390)
    page.wait("document.querySelector('#training') !== window.old")
    assert page.wait(tip)
    assert before
    assert page.ask("document.querySelector('#training details').open") is True
    assert page.ask("document.querySelector('#provenance details').open") is False


def test_marked_text_is_not_taken_away(page: Page, run: RunFolder) -> None:
    page.ask("getSelection().selectAllChildren(document.querySelector('#training h2'))")
    page.ask("window.old = document.querySelector('#training')")
    take_steps(run, 390)
    page.wait(f"{STEPS}.startsWith('390 of 390')")
    assert page.ask("document.querySelector('#training') === window.old")
    page.ask("getSelection().removeAllRanges()")
    page.wait("document.querySelector('#training') !== window.old")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_it_fits_a_phone_and_the_dark(page: Page, width: int, dark: bool) -> None:
    page.show_as(width=width, dark=dark)
    assert page.ask("document.documentElement.scrollWidth") <= width
    background = page.ask("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    page.ask("document.querySelector('.theme').click()")
    turned = page.ask("getComputedStyle(document.body).backgroundColor")
    assert (turned == "rgb(255, 255, 255)") is dark


def test_the_button_works_after_the_head_was_renewed(page: Page, run: RunFolder) -> None:
    take_steps(run, 390)
    page.wait(f"{STEPS}.startsWith('390 of 390')")
    page.ask("document.querySelector('.theme').click()")
    assert page.ask("document.documentElement.dataset.theme") == "dark"


def test_a_server_that_ended_is_told(page: Page, server: WatchServer) -> None:
    server.ended.set()
    server.server_close()
    page.wait("document.querySelector('.link').textContent.startsWith('not connected')")
    # That it could not be reached, or went away in the middle, is the browser's to complain of.
    assert all("net::ERR_CONNECTION_" in told for told in page.complaints)
    page.complaints.clear()


def test_a_run_that_begins_is_shown(tmp_path: Path) -> None:
    made = make_fake_run(tmp_path / "made", steps_taken=0, evaluated=False)
    run = RunFolder(tmp_path / "run")
    with (
        WatchServer(RunSite(LivePage(LiveRun(run))), 0) as server,
        open_page(tmp_path / "profile") as page,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.go(server.url)
        assert "no plan yet" in page.ask("document.querySelector('main').textContent")
        os.rename(made.path, run.path)
        page.wait("document.querySelector('#waiting') === null")
        order = page.ask("[...document.querySelectorAll('main > section')].map((s) => s.id)")
        assert order[:4] == ["verdict", "gap", "curves", "training"]
        assert order[-1] == "provenance"
        assert page.ask("document.querySelectorAll('nav a').length") == len(order)
        assert page.complaints == []
        server.shutdown()
