"""`rewarm watch` on an experiment: how far each run is, what it refuses, when it concludes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.artifacts import write_json
from rewarm.cli import main
from rewarm.records.comparison_folder import ComparisonFolder
from rewarm.reporting.experiment_view import ExperimentReader
from rewarm.reporting.live_experiment import ExperimentSite, LiveExperiment
from rewarm.reporting.watch import WatchServer
from rewarm.training.lock import hold_lock, seems_held
from tests.support.fake_comparison import fake_comparison
from tests.support.fake_experiment import NUM_STEPS, make_fake_experiment, take_steps
from tests.support.html_page import Page
from tests.unit.test_watch import Events, answer, serving

TAKEN = {("naive", 1): NUM_STEPS, ("naive", 2): 20, ("replay", 1): 0, ("replay", 2): None}


@pytest.fixture
def experiment(tmp_path: Path) -> ComparisonFolder:
    return make_fake_experiment(tmp_path, TAKEN)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchServer]:
    """Of an experiment that nothing happens to."""
    experiment = make_fake_experiment(tmp_path_factory.mktemp("still"), TAKEN)
    yield from serving(ExperimentSite(experiment))


def standings(experiment: ComparisonFolder) -> dict[tuple[str, int], str]:
    view = ExperimentReader(experiment).read()
    assert view is not None
    return {(run.arm, run.seed): run.standing for run in view.runs}


def test_how_far_each_run_is(experiment: ComparisonFolder) -> None:
    failed = experiment.run("naive", 2)
    failed.exit_code.write_text("1\n")
    failed.output.write_text("first\nrewarm: error: the <disk> is full\n")
    assert standings(experiment) == {
        ("naive", 1): "done",
        ("naive", 2): "failed",
        ("replay", 1): "waiting",
        ("replay", 2): "waiting",
    }
    html = LiveExperiment(experiment).render()
    assert "the &lt;disk&gt; is full" in html
    Page(html)


def test_a_run_is_running_while_somebody_is_at_it(experiment: ComparisonFolder) -> None:
    reader = ExperimentReader(experiment)
    assert standings(experiment)["naive", 2] == "stopped"
    before = reader.stamp()
    with hold_lock(experiment.run("naive", 2).lock, lambda message: None):
        assert standings(experiment)["naive", 2] == "running"
        assert reader.stamp() != before
    assert reader.stamp() == before


def test_a_lock_is_looked_at_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    assert not seems_held(path)
    with hold_lock(path, lambda message: None):
        assert seems_held(path)
        held = path.read_text()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(re.sub(r'"pid":\d+', f'"pid":{gone.pid}', held))
    assert not seems_held(path)
    path.write_text(re.sub(r'"machine":"[^"]*"', '"machine":"another"', held))
    before = tmp_path.stat().st_mtime_ns
    assert seems_held(path)
    assert tmp_path.stat().st_mtime_ns == before  # no file came or went
    os.utime(path, (1, 1))
    assert not seems_held(path)


def test_the_page_tells_the_steps_and_the_time_that_is_left(experiment: ComparisonFolder) -> None:
    run = experiment.run("naive", 2)
    speed = 20 * 2048 / sum(record.step_s for record in run.steps())
    with hold_lock(run.lock, lambda message: None):
        html = LiveExperiment(experiment).render()
    assert "<title>fake</title>" in html
    assert "1 of 4 runs are done" in html
    assert f'max="{NUM_STEPS}" value="20"' in html
    # Three runs are missing, one of them from its step 20 on.
    left = (3 * NUM_STEPS - 20) * 2048 / speed
    assert f"<dd>{round(left)} s<" in html or f"<dd>{left // 60:.0f} min" in html


def test_nothing_is_said_of_the_claim_while_runs_go_on(experiment: ComparisonFolder) -> None:
    html = LiveExperiment(experiment).render()
    assert "It helps." in html
    assert "Nothing is said of it before" in html
    assert "Held-out text that the base knew" in html
    for word in ("as expected", "not resolved", "Paired differences"):
        assert word not in html.lower()


def test_it_shows_the_comparison_once_that_is_concluded(experiment: ComparisonFolder) -> None:
    take_steps(experiment, "naive", 2, NUM_STEPS)
    result = fake_comparison()
    write_json(experiment.result, result.model_dump(mode="json"))
    html = LiveExperiment(experiment).render()
    assert "Paired differences" in html
    # A run that is tried again makes it old.
    os.utime(experiment.run("naive", 2).steps_log)
    later = experiment.result.stat().st_mtime_ns + 10**9
    os.utime(experiment.run("naive", 2).steps_log, ns=(later, later))
    assert "Paired differences" not in LiveExperiment(experiment).render()


def test_an_experiment_that_has_not_begun(tmp_path: Path) -> None:
    page = LiveExperiment(ComparisonFolder(tmp_path / "none")).render()
    assert "The experiment has not begun" in page


@pytest.mark.parametrize(
    ("key", "value"),
    [("arms", None), ("seeds", 3), ("contrasts", [["a"]]), ("primary", [{}]), ("name", None)],
)
def test_damaged_claims_are_a_page_and_no_silence(
    experiment: ComparisonFolder, key: str, value: object
) -> None:
    kept = json.loads(experiment.registration.read_text())
    for claims in ({**kept["claims"], key: value}, {}):
        write_json(experiment.registration, {**kept, "claims": claims})
        assert "has not begun" in LiveExperiment(experiment).render()
        assert ExperimentSite(experiment).page_at("/run/1/") is None


def test_runs_have_pages_of_their_own(server: WatchServer) -> None:
    assert b"1 of 4 runs are done" in answer(server, "/")[2]
    status, headers, page = answer(server, "/run/1/")
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert b"The stability gap" in page
    assert b'<a href="/">fake</a>' in page
    assert b"The run has no plan yet" in answer(server, "/run/4/")[2]


@pytest.mark.parametrize(
    "path",
    [
        "/run/0/",
        "/run/5/",
        "/run/1",
        "/run/01/",
        "/run/1/report.html",
        "/run/1/../../experiment.json",
        "/run/1/%2e%2e/",
        "/run//etc/passwd/",
        "/run/naive/1/",
        "/experiment.json",
        "/run/9/events",
        "/events/events",
        "/run/1/?x=1",
    ],
)
def test_only_the_table_s_paths_are_answered(server: WatchServer, path: str) -> None:
    status, _, content = answer(server, path)
    assert (status, content) == (404, b"there is no such page\n")


def test_the_security_rules_hold_for_a_run_s_page(server: WatchServer) -> None:
    for path in ("/run/1/", "/run/1/events"):
        assert answer(server, path, host="evil.example")[0] == 403
        assert answer(server, path, "POST")[0] == 405


def test_what_an_experiment_claims_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    experiment = make_fake_experiment(tmp_path, TAKEN, hypothesis=evil)
    html = LiveExperiment(experiment).render()
    assert "&lt;script&gt;alert(1)" in html
    tags = {tag for tag, _, _ in Page(html).attributes}
    assert "img" not in tags
    # The policy lets no style within the page act.
    assert not [name for _, name, _ in Page(html).attributes if name == "style"]


def test_changes_of_any_run_are_told(experiment: ComparisonFolder) -> None:
    for server in serving(ExperimentSite(experiment)):
        events = Events(server)
        first = events.next_version()
        take_steps(experiment, "replay", 1, 10)
        second = events.next_version()
        assert second not in {"", first}
        assert b'value="10"' in answer(server, "/")[2]


def test_what_is_no_run_and_no_experiment_is_refused(
    tmp_path: Path, experiment: ComparisonFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["watch", "--no-browser", str(empty)]) == 2
    assert "there is no plan.json and no experiment.json" in capsys.readouterr().err
    assert main(["watch", "--no-browser", str(experiment.path), "-o", "seed=1"]) == 2
    assert "an experiment's arms say what they change" in capsys.readouterr().err
    file = tmp_path / "e.toml"
    file.write_text('name = "x"\n[arms.one]\n')
    assert main(["watch", "--no-browser", str(file)]) == 2
    told = capsys.readouterr().err
    assert "hypothesis" in told
    assert "primary" in told


def test_a_stream_is_refused_by_its_folder_and_by_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder has an experiment.json too: a comparison of it would never have begun."""
    folder = tmp_path / "streams" / "digits"
    record = folder / "runs" / "scratch" / "er" / "seed-1.json"
    record.parent.mkdir(parents=True)
    for path in (record, folder / "experiment.json"):
        path.write_text("{}")
    (tmp_path / "stream.toml").write_text('name = "digits"\n[backbones.scratch]\nsmall = "cnn"\n')
    for path in (tmp_path / "stream.toml", folder):
        assert main(["watch", str(path), "--no-browser"]) == 2
        said = capsys.readouterr().err
        assert "this is a stream, and streams are not watched" in said
        assert "open report.html" in said
