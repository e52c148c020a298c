"""An experiment in a real browser: watched while its runs go on, and its page once concluded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.artifacts import write_json
from rewarm.evaluation.curves import domain_curves
from rewarm.records.comparison import RunCurves
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.reporting.comparison_page import render_comparison_page
from rewarm.reporting.live_experiment import ExperimentSite
from rewarm.reporting.watch import WatchServer
from tests.support.chromium import CHROMIUM, Page, open_page
from tests.support.fake_comparison import fake_comparison
from tests.support.fake_experiment import NUM_STEPS, make_fake_experiment, take_steps
from tests.support.looks import check_looks, read_by_keys, read_by_pointer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium (chromium or google-chrome) in PATH"
    ),
]

TAKEN = {("naive", 1): NUM_STEPS, ("naive", 2): 20, ("replay", 1): 8, ("replay", 2): None}
DONE = "document.querySelector('.state').textContent"
LOOKS = [(1200, False), (1200, True), (390, False), (390, True)]


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render as often as there is something new, however busy the machine is."""
    monkeypatch.setattr("rewarm.reporting.live_page._MOST_SHARE", 1.0)


@pytest.fixture
def experiment(tmp_path: Path) -> ComparisonFolder:
    return make_fake_experiment(tmp_path / "experiment", TAKEN)


@pytest.fixture
def server(experiment: ComparisonFolder) -> Iterator[WatchServer]:
    with WatchServer(ExperimentSite(experiment), 0) as server:
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
        assert page.complaints == []
        assert page.requests
        assert all(url.startswith(server.url) for url in page.requests)


def value_of(run: str) -> str:
    """Return the expression of how far a run's bar is."""
    return f"document.querySelector('progress[aria-label=\"Steps of {run}\"]').value"


def test_it_follows_the_runs_without_being_loaded_again(
    page: Page, experiment: ComparisonFolder
) -> None:
    page.ask("window.stayed = true")
    assert page.ask(DONE) == "1 of 4 runs are done"
    assert page.ask(value_of("replay, seed 1")) == 8
    take_steps(experiment, "replay", 1, 30)
    page.wait(f"{value_of('replay, seed 1')} === 30")
    take_steps(experiment, "replay", 1, NUM_STEPS)
    page.wait(f"{DONE} === '2 of 4 runs are done'")
    # A run of which there was nothing begins.
    take_steps(experiment, "replay", 2, 4)
    page.wait(f"{value_of('replay, seed 2')} === 4")
    assert page.ask("window.stayed") is True


def test_it_turns_into_the_comparison_once_that_is_concluded(
    page: Page, experiment: ComparisonFolder
) -> None:
    page.ask("window.stayed = true")
    write_json(experiment.result, fake_comparison().model_dump(mode="json"))
    page.wait("document.querySelector('#differences') !== null")
    assert page.ask("window.stayed") is True
    assert page.ask("document.querySelector('#claim')") is None
    order = page.ask("[...document.querySelectorAll('main > section')].map((s) => s.id)")
    assert order == page.ask(
        "[...document.querySelectorAll('nav a')].map((a) => a.getAttribute('href').slice(1))"
    )


def test_a_run_is_a_click_away_and_is_followed_too(
    page: Page, server: WatchServer, experiment: ComparisonFolder
) -> None:
    page.ask("[...document.querySelectorAll('.runs a')][1].click()")
    page.wait(f"location.href === '{server.url}run/2/' && document.readyState === 'complete'")
    page.wait("document.querySelector('.link')?.textContent === 'live'")
    assert page.ask("document.querySelector('#comparison a').getAttribute('href')") == "/"
    steps = "document.querySelectorAll('.key-figures dd')[1].textContent"
    assert page.ask(steps).startswith("20 of 60")
    take_steps(experiment, "naive", 2, 40)
    page.wait(f"{steps}.startsWith('40 of 60')")


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_the_live_page_looks_as_it_should(page: Page, width: int, dark: bool) -> None:
    check_looks(page, width=width, dark=dark)


def test_the_live_page_s_numbers_can_be_read(page: Page) -> None:
    first = read_by_pointer(page, "#curves .plot", 0.0)
    assert first.splitlines()[0] == "after update 0"
    assert read_by_keys(page, "#curves .plot", "End").splitlines()[0] == f"after update {NUM_STEPS}"


# The page of a concluded comparison, which opens offline


@pytest.fixture(scope="module")
def concluded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("concluded")
    taken = {(arm, seed): NUM_STEPS for arm in ("naive", "replay") for seed in (1, 2, 3)}
    experiment = make_fake_experiment(folder, taken)
    result = fake_comparison("<img src=x> " + 12 * "unbreakable")
    curves = tuple(
        RunCurves(arm=arm, seed=seed, curves=domain_curves(experiment.run(source, seed).evals()))
        for arm, source in (("none", "naive"), ("replay", "replay"))
        for seed in (1, 2, 3)
    )
    file = folder / "report.html"
    file.write_text(render_comparison_page(result.model_copy(update={"curves": curves})))
    return file


@pytest.fixture
def offline(concluded: Path, tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path / "profile") as page:
        page.show_as(width=1200)
        page.go(concluded.as_uri())
        yield page
        assert page.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in page.requests)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_comparison_looks_as_it_should(offline: Page, width: int, dark: bool) -> None:
    check_looks(offline, width=width, dark=dark)


def test_every_arm_s_curve_can_be_read(offline: Page) -> None:
    told = read_by_pointer(offline, "#curves .plot", 1.0).splitlines()
    assert told[0] == f"after update {NUM_STEPS}"
    assert [line.rsplit(" ", 1)[0] for line in told[1:]] == ["none", "replay"]
    assert read_by_keys(offline, "#curves .plot", "Home").splitlines()[0] == "after update 0"
    assert read_by_keys(offline, "#front .plot", "ArrowRight")
