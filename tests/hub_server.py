"""A hub on this machine: model repositories of plain folders, over HTTP as the Hugging Face hub answers."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """The endpoint of a hub whose repositories are `root/OWNER/NAME`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            words = self.path.partition("?")[0].strip("/").split("/")
            is_api = words[:2] == ["api", "models"]
            words = words[2:] if is_api else words
            repository = root / "/".join(words[:2])
            if not repository.is_dir():
                return self.refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
            if len(words) > 3 and words[3] not in REVISIONS:
                return self.refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
            if is_api:
                return self.send(self.about(repository, words[2:]), with_body)
            file = repository / "/".join(words[4:])
            if not file.is_file():
                return self.refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
            return self.send(file.read_bytes(), with_body)

        def about(self, repository: Path, words: list[str]) -> bytes:
            files = [{"rfilename": path.name} for path in sorted(repository.iterdir())]
            if words[:1] == ["tree"]:
                found: object = [{"type": "file", "path": f["rfilename"], "size": 1, "oid": COMMIT} for f in files]
            else:
                found = {"id": "/".join(repository.parts[-2:]), "sha": COMMIT, "siblings": files, "tags": []}
            return json.dumps(found).encode()

        def send(self, body: bytes, with_body: bool) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def refuse(self, status: HTTPStatus, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Standard error is the test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
