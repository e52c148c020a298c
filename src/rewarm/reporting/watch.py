"""Shows a run's report, or an experiment and its runs, live, on this machine alone.

The server is bound to 127.0.0.1 and answers GET and HEAD of fixed paths: a table of them is looked
up, and nothing in a request names a file. A request whose `Host` is not this server's is refused,
so that no foreign page can read a run by pointing its own name here. The browser is told of changes
by server-sent events.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rewarm.reporting.live_page import LivePage, Site
from rewarm.reporting.report import render_file

__all__ = ["ADDRESS", "WatchServer"]

ADDRESS = "127.0.0.1"
_MAX_FOLLOWERS = 32
_LOOK_EVERY_S = 0.5
_SIGN_OF_LIFE_S = 10.0
_REQUEST_TIMEOUT_S = 20.0

_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="none" '
    'stroke="#0067a5" stroke-width="2" d="M1 13c3 0 4-9 7-9s3 6 7 6"/></svg>'
)


@functools.cache
def _files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of what the page needs beside it, by path."""
    return {
        "/style.css": ("text/css", render_file("sheet.css").encode()),
        "/page.js": ("text/javascript", render_file("page.js").encode()),
        "/live.js": ("text/javascript", render_file("live.js").encode()),
        "/icon.svg": ("image/svg+xml", _ICON.encode()),
    }


class WatchServer(ThreadingHTTPServer):
    """Serves the pages of a site until `shutdown`; `port` 0 takes any that is free.

    Raises OSError where the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        self.ended = threading.Event()
        self.followers = threading.BoundedSemaphore(_MAX_FOLLOWERS)
        super().__init__((ADDRESS, port), _Handler)
        # Port 80 is left out by browsers.
        names = [ADDRESS, "localhost"]
        here = {f"{name}:{self.server_port}" for name in names}
        self.hosts = here | set(names) if self.server_port == 80 else here

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def shutdown(self) -> None:
        """End the server, and every stream of events."""
        self.ended.set()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a reader who went away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    server_version = "rewarm"
    sys_version = ""
    timeout = _REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request for a page: every method but two with 405."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            refusal = b"GET and HEAD only\n"
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", refusal, allow=True)
        else:
            super().send_error(code, message, explain)

    def _answer(self, *, body: bool) -> None:
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            told = b"this is not the host's name\n"
            self._send(HTTPStatus.FORBIDDEN, "text/plain", told, body=body)
        elif self.path in _files():
            kind, content = _files()[self.path]
            self._send(HTTPStatus.OK, kind, content, body=body)
        elif (page := self.server.site.page_at(self.path)) is not None:
            self._send(HTTPStatus.OK, "text/html", page.current()[1], body=body)
        elif (page := self._followed()) is not None:
            self._follow(page, body=body)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page\n", body=body)

    def _send(
        self,
        status: HTTPStatus,
        kind: str,
        content: bytes,
        *,
        body: bool = True,
        allow: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if allow:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _followed(self) -> LivePage | None:
        """Return the page whose events are asked for; None where it is no such path."""
        path, found, rest = self.path.rpartition("/events")
        return self.server.site.page_at(f"{path}/") if found and not rest else None

    def _follow(self, page: LivePage, *, body: bool) -> None:
        """Send the page's version now, and whenever it is another, until the reader leaves."""
        if not self.server.followers.acquire(blocking=False):
            told = b"too many readers\n"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", told, body=body)
            return
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.end_headers()
            for event in self._events(page) if body else ():
                self.wfile.write(event)
                self.wfile.flush()
        finally:
            self.server.followers.release()

    def _events(self, page: LivePage) -> Iterator[bytes]:
        told, silent_s = "", 0.0
        yield b"retry: 1000\n\n"
        while True:
            version, _ = page.current()
            if version != told:
                told, silent_s = version, 0.0
                yield f"event: page\ndata: {version}\n\n".encode()
            elif silent_s >= _SIGN_OF_LIFE_S:
                # A reader that went away is noticed by writing alone.
                silent_s = 0.0
                yield b": still here\n\n"
            if self.server.ended.wait(_LOOK_EVERY_S):
                return
            silent_s += _LOOK_EVERY_S

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests: the terminal is the run's."""
