"""A REST API in a thread that answers what a test tells it to, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PASSWORD = "correct horse"


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class StubApi:
    """`answers[("GET", "/models")]` is used up from the front; its last answer stays."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.asked: list[Asked] = []
        self.url = ""
        self.tokens = 0

    def answer(self, method: str, path: str, *answers: Answer) -> None:
        self.answers[method, path] = list(answers)

    def asked_of(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path.partition("?")[0]) == (method, path)]

    def reply(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        path = asked.path.partition("?")[0]
        if path == "/auth/login":
            return self._login(asked)
        queue = self.answers.get((asked.method, path))
        if queue is None:
            return Answer(404, {"error": "not_found", "message": f"{path} is not an endpoint."})
        return queue.pop(0) if len(queue) > 1 else queue[0]

    def _login(self, asked: Asked) -> Answer:
        if asked.body != {"email": "admin", "password": PASSWORD}:
            return Answer(401, {"error": "invalid_credentials", "message": "No."})
        self.tokens += 1
        return Answer(200, {}, {"Set-Cookie": f"inventiv_session=token-{self.tokens}; HttpOnly"})


@contextmanager
def running_stub() -> Iterator[StubApi]:
    stub = StubApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            answer = stub.reply(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            raw = b"" if answer.status == 204 else raw
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(raw)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
