"""A local server that speaks as Hugging Face's hub does where a file is fetched, and refuses what would be pushed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES: dict[str, bytes] = {}
ASKED: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """Answers HEAD and GET for the files of FILES, as Hugging Face's hub answers them."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        ASKED.append(self.path)
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, *, body: bool) -> None:
        ASKED.append(self.path)
        content = FILES.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        content = content or b""
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is written."""


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a server that has the files, by their paths on it."""
    FILES.clear()
    ASKED.clear()
    FILES.update(files)
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{hub.server_port}"
    hub.shutdown()
    thread.join()
    hub.server_close()
