"""What a gateway's process carries: nothing that it does not need at a plain start, for it would keep it for months."""

import os
import subprocess
import sys
from pathlib import Path

from infra.embedded.nats import EmbeddedNats
from tests.infra.gateway_process import port

BOUND_S = 30
FOREIGN = ("aiohttp", "cryptography", "fastapi", "httpx", "psutil", "psycopg", "psycopg_pool", "pydantic", "rich")
ROOMS = ("agent", "handlers", "web")
PROGRAM = """
import os, signal, sys, threading, time, uvloop
from urllib.error import URLError
from urllib.request import urlopen
from infra.cli.main import main

def packages():
    return {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}

def tell_once_ready():
    while True:
        try:
            urlopen(f"http://127.0.0.1:{os.environ['INVENTIV_GATEWAY_PORT']}/readyz", timeout=5).close()
            break
        except URLError:
            time.sleep(0.05)
    print(*packages())
    os.kill(os.getpid(), signal.SIGTERM)

sys.argv = ["inventiv", "serve", sys.argv[1]]
if sys.argv[2] == "gateway":
    threading.Thread(target=tell_once_ready, daemon=True).start()
else:
    uvloop.run = lambda role: (role.close(), print(*packages()))
main()
"""


def carried(role: str, **variables: str) -> set[str]:
    """Packages in a process of that role: a gateway when it serves, another one when it is about to run."""
    command, environment = [sys.executable, "-c", PROGRAM, role], {**os.environ, **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_gateway_serves_without_what_it_does_not_need(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    packages = carried(
        "gateway",
        INVENTIV_DATA_DIR=str(tmp_path),
        INVENTIV_NATS_URL=nats_server.url,
        INVENTIV_NATS_MONITOR_URL=nats_server.monitor_url,
        INVENTIV_GATEWAY_PORT=str(port()),
    )
    assert {"gateway", "infra", "nats", "structlog"} <= packages
    assert packages.isdisjoint(FOREIGN)
    assert packages.isdisjoint(ROOMS)


def test_another_role_has_them() -> None:
    """The control: they are installed, and would be seen."""
    assert {"fastapi", "pydantic", "psycopg", "cryptography", "handlers", "web"} <= carried("web")
