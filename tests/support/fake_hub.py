"""A hub of one data set on localhost: the part of its interface that reading a data set needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["COMMIT", "fake_hub"]

COMMIT = "c0ffee" + "0" * 34


def _handler(name: str, files: Mapping[str, bytes], asked: list[str]) -> type:
    api = f"/api/datasets/{name}"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            if path in (f"{api}/revision/main", f"{api}/revision/{COMMIT}", api):
                self._json({"_id": "1", "id": name, "sha": COMMIT, "siblings": []})
            elif path.startswith(f"{api}/revision/"):
                self._refuse(404, "RevisionNotFound")
            elif (found := re.fullmatch(rf"{api}/tree/{COMMIT}(/.*)?", path)) is not None:
                self._json(self._tree((found[1] or "").strip("/")))
            elif path.startswith(f"/datasets/{name}/resolve/{COMMIT}/"):
                self._file(path.partition(f"{COMMIT}/")[2])
            else:
                self._refuse(404, "RepoNotFound")

        def _tree(self, folder: str) -> list[dict[str, Any]]:
            prefix = f"{folder}/" if folder else ""
            recursive = "recursive=true" in self.path.lower()
            return [
                {
                    "type": "file",
                    "path": path,
                    "size": len(content),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for path, content in files.items()
                if path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])
            ]

        def _file(self, path: str) -> None:
            content = files.get(path)
            if content is None:
                self._refuse(404, "EntryNotFound")
                return
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            part = content if wanted is None else content[int(wanted[1]) : int(wanted[2]) + 1]
            self.send_response(200 if wanted is None else 206)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def _json(self, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@contextmanager
def fake_hub(name: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Give the address (for HF_ENDPOINT) of a hub that has one data set, and what it was asked."""
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(name, files, asked)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()
