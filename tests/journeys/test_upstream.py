"""Somebody else's OpenAI-compatible server as one's own model: connected, its key replaced, stopped, and forgotten."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.canaries.scan import Scanner, scan_files
from tests.gateway.scripted_engine import echo_answer
from tests.journeys.platform import Platform, until

pytestmark = pytest.mark.journey

FIRST, SECOND = "sk-canary-first-key-of-the-upstream", "sk-canary-second-key-of-the-upstream"
CHAT = "/v1/chat/completions"


@dataclass
class Provider:
    """Lets in who has its key of the moment; `asked` holds (path, model, x-request-id) of those."""

    url: str = ""
    key: str = FIRST
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]


@contextmanager
def a_provider() -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] == f"Bearer {provider.key}":
                provider.asked.append((self.path, body["model"], self.headers["x-request-id"]))
                self._answer(200, echo_answer(self.path, body))
            else:
                self._answer(401, json.dumps({"error": self.headers["authorization"]}).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(platform: Platform) -> httpx.Response:
    body = {"model": "big-chat", "messages": [{"role": "user", "content": "hi"}]}
    return platform.gateway("POST", CHAT, key=platform.key, json=body)


def code_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def key_file(platform: Platform, key: str) -> str:
    """In the folder of secrets, where keys are meant to be."""
    path: Path = platform.data_dir / "secrets" / "typed"
    path.write_text(f"{key}\n")
    return str(path)


def copies(platform: Platform) -> list[Path]:
    return list((platform.data_dir / "gateway").rglob("upstream_keys.json"))


def test_a_providers_model_is_ones_own_until_it_is_stopped(own_platform: Platform) -> None:
    platform = own_platform
    with a_provider() as provider:
        platform.variables["INVENTIV_UPSTREAM_ALLOW"] = f"127.0.0.1:{provider.port}"
        platform.start()
        platform.settled()
        connected = platform.json(
            *("upstream", "connect", "big-chat", provider.url, "--model", "large"),
            *("--key-file", key_file(platform, FIRST)),
        )
        until(lambda: chat(platform).status_code == 200, "the upstream answers")
        path, model, request_id = provider.asked[-1]
        assert (path, model, bool(request_id)) == (CHAT, "large", True)
        assert "big-chat" in platform.gateway("GET", "/v1/models", key=platform.key).text

        _its_key_is_replaced(platform, provider, connected["id"])
        _it_answers_after_a_restart_without_postgres(platform)

        assert platform.inventiv("deployment", "stop", connected["id"]).code == 0
        until(lambda: chat(platform).status_code == 404, "nobody answers any more")
        until(lambda: [path.read_bytes() for path in copies(platform)] == [b"{}"], "the gateway has forgotten the key")
        _neither_key_is_anywhere(platform)


def test_what_the_operator_does_not_list_cannot_be_connected(own_platform: Platform) -> None:
    """Whoever may connect an upstream could else ask our own databases."""
    own_platform.start()
    own_platform.settled()
    for url in (own_platform.card["api_url"], "http://127.0.0.1:22", "https://169.254.169.254", "https://localhost"):
        refused = own_platform.inventiv("upstream", "connect", "inside", url, "--json")
        assert (refused.code, refused.document["error"]) == (1, "upstream_address_not_allowed")
    assert own_platform.json("upstream", "ls") == {"upstreams": []}


def _its_key_is_replaced(platform: Platform, provider: Provider, deployment_id: str) -> None:
    provider.key = SECOND
    assert code_of(chat(platform)) == (502, "upstream_refused_us")
    replaced = platform.inventiv("upstream", "key", deployment_id, "--key-file", key_file(platform, SECOND))
    assert replaced.code == 0, replaced
    until(lambda: chat(platform).status_code == 200, "the new key is used")


def _it_answers_after_a_restart_without_postgres(platform: Platform) -> None:
    """Postgres takes no connection; the gateway that comes up has its own sealed copy alone."""
    postgres, gateway = platform.pid_of("postgres"), platform.pid_of("gateway")
    os.kill(postgres, signal.SIGSTOP)
    try:
        os.kill(gateway, signal.SIGKILL)
        until(lambda: platform.pid_of("gateway") != gateway, "another gateway runs")
        until(lambda: chat(platform).status_code == 200, "it answers with the key of its copy")
    finally:
        os.kill(postgres, signal.SIGCONT)
    platform.settled()


def _neither_key_is_anywhere(platform: Platform) -> None:
    scanner = Scanner([FIRST, SECOND])
    assert scan_files(scanner, platform.data_dir) > 10
    scanner.look(platform.inventiv("events", "tail", "--from", "1", "--json").out.encode(), "events")
    scanner.look(platform.inventiv("upstream", "ls", "--json").out.encode(), "read model")
    assert scanner.found == {}
    scanner.look_into(platform.data_dir / "secrets" / "typed", "control")
    assert set(scanner.found) == {SECOND}
