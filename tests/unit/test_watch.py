"""The live page's server: what it answers, what it refuses, how it tells of changes."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewarm.cli import main
from rewarm.records.run_folder import RunFolder
from rewarm.reporting import live_page
from rewarm.reporting.live_page import LivePage, LiveRun, RunSite, Site
from rewarm.reporting.watch import WatchServer
from tests.support.fake_runs import make_fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_fake_run(tmp_path_factory.mktemp("run"), hostile=True, steps_taken=40)


@pytest.fixture
def server(run: RunFolder) -> Iterator[WatchServer]:
    yield from serving(RunSite(LivePage(LiveRun(run))))


def serving(site: Site) -> Iterator[WatchServer]:
    with WatchServer(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer(
    server: WatchServer, path: str, method: str = "GET", *, host: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one request, whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return found


def test_it_is_bound_to_this_machine_alone(server: WatchServer) -> None:
    assert server.server_address == ("127.0.0.1", server.server_port)
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_the_page_and_its_files(server: WatchServer) -> None:
    status, headers, page = answer(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"What was learned, what was forgotten" in page
    # Nothing within the page is style or script: the policy would not let it act.
    assert b"<style" not in page
    assert b"<script>" not in page
    for path, kind in (
        ("/style.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/live.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ):
        status, headers, content = answer(server, path)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert len(content) == int(headers["Content-Length"]) > 100
        assert path.encode() in page


def test_every_answer_has_the_policy(server: WatchServer) -> None:
    for path, method in (("/", "GET"), ("/none", "GET"), ("/", "POST"), ("/page.js", "HEAD")):
        _, headers, _ = answer(server, path, method)
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_what_a_run_is_named_is_text(server: WatchServer) -> None:
    page = answer(server, "/")[2].decode()
    assert "<script>alert(" not in page
    assert "&lt;script&gt;alert(" in page


@pytest.mark.parametrize(
    "path",
    [
        "/plan.json",
        "/../plan.json",
        "/..%2fplan.json",
        "//etc/passwd",
        "/style.css/../../plan.json",
        "/?path=plan.json",
        "/report.html",
        "http://127.0.0.1/",
        "/" + "a" * 5_000,
    ],
)
def test_no_request_names_a_file(server: WatchServer, path: str) -> None:
    status, _, content = answer(server, path)
    assert (status, content) == (404, b"there is no such page\n")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1", "localhost.evil.example", "", "[::1]:1"],
)
def test_a_foreign_name_is_refused(server: WatchServer, host: str) -> None:
    for path in ("/", "/events", "/page.js"):
        assert answer(server, path, host=host)[0] == 403


def test_two_names_at_once_are_refused(server: WatchServer) -> None:
    right = f"127.0.0.1:{server.server_port}"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: {right}\r\nHost: evil.example\r\n\r\n".encode())
        assert b" 403 " in raw.recv(100)


def test_localhost_is_this_machine_too(server: WatchServer) -> None:
    assert answer(server, "/", host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(server: WatchServer, method: str) -> None:
    status, headers, _ = answer(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_no_body(server: WatchServer) -> None:
    status, headers, content = answer(server, "/", "HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 1_000
    assert answer(server, "/events", "HEAD")[0] == 200
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as raw:
        raw.sendall(b"HEAD / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        refused = b"".join(iter(lambda: raw.recv(4096), b""))
    assert b" 403 " in refused
    assert refused.endswith(b"\r\n\r\n")


class Events:
    """The stream of events of one reader."""

    def __init__(self, server: WatchServer) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        self.connection.request("GET", "/events")
        self.response = self.connection.getresponse()

    def next_version(self) -> str:
        """Return the next version that is told; empty where the stream ended."""
        while line := self.response.readline().decode():
            if line.startswith("data: "):
                return line.removeprefix("data: ").strip()
        return ""


def test_changes_are_told_and_nothing_else_is(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, steps_taken=40)
    for server in serving(RunSite(LivePage(LiveRun(run)))):
        events = Events(server)
        assert events.response.getheader("Content-Type") == "text/event-stream; charset=utf-8"
        first = events.next_version()
        before = answer(server, "/")[2]
        lines = run.steps_log.read_text().splitlines(keepends=True)
        run.steps_log.write_text("".join(lines[:30]))
        second = events.next_version()
        assert second not in {"", first}
        after = answer(server, "/")[2]
        assert b"at step 40 of" in before
        assert b"at step 30 of" in after
        server.ended.set()
        assert events.next_version() == ""


def test_a_line_that_is_being_written_does_no_harm(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path, steps_taken=40)
    with run.steps_log.open("a") as log:
        log.write('{"step": 40, "lo')
    assert b"at step 40 of" in LivePage(LiveRun(run)).current()[1]


def test_a_run_that_cannot_be_shown_says_why(tmp_path: Path) -> None:
    run = make_fake_run(tmp_path / "run", steps_taken=3)
    run.plan.write_text("{")
    page = LivePage(LiveRun(run)).current()[1].decode()
    assert "The run cannot be shown" in page
    assert "plan.json" in page
    assert (
        "The run has no plan yet"
        in LivePage(LiveRun(RunFolder(tmp_path / "none"))).current()[1].decode()
    )


def test_rendering_takes_a_twentieth_of_the_time(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, rendered = [100.0], []

    def render(run: RunFolder, *, live: bool, up: str) -> str:
        rendered.append(now[0])
        now[0] += 3.0
        return "page"

    monkeypatch.setattr(live_page, "render_run_report", render)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    page = LivePage(LiveRun(run))
    for _ in range(1_000):
        os.utime(run.steps_log)
        page.current()
        now[0] += 0.5
    assert len(rendered) * 3.0 <= 0.06 * (now[0] - 100.0)
    assert len(rendered) >= 8


def test_a_page_is_rendered_once_for_all_readers(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[RunFolder] = []

    def render(run: RunFolder, *, live: bool, up: str) -> str:
        rendered.append(run)
        return "page"

    monkeypatch.setattr(live_page, "_LEAST_INTERVAL_S", 0.0)
    monkeypatch.setattr(live_page, "render_run_report", render)
    page = LivePage(LiveRun(run))
    threads = [threading.Thread(target=page.current) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rendered) == 1


def test_readers_are_not_without_number(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewarm.reporting.watch._MAX_FOLLOWERS", 2)
    for server in serving(RunSite(LivePage(LiveRun(run)))):
        readers = [Events(server) for _ in range(2)]
        assert all(reader.next_version() for reader in readers)
        assert answer(server, "/events")[0] == 503
        assert answer(server, "/")[0] == 200


def test_from_the_command_line_until_it_is_ended(run: RunFolder) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-m", "rewarm", "watch", str(run.path), "--no-browser", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        port = int(process.stdout.readline().split("http://127.0.0.1:")[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as reader:
            reader.sendall(f"GET /events HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            assert reader.recv(10)
            # It ends at once though somebody still follows.
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=20)
    assert (process.returncode, complaints) == (0, "")


def test_a_port_that_is_taken(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["watch", str(run.path), "--port", str(port), "--no-browser"]) == 1
    said = capsys.readouterr().err
    assert f"port {port} cannot be used" in said
    assert "name another --port" in said


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path), "--no-browser"]) == 2
    assert "there is no plan.json" in capsys.readouterr().err
    assert main(["watch", str(tmp_path / "gone.toml"), "--no-browser"]) == 2
