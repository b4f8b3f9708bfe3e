"""A machine that accepts no connection from outside: a network namespace whose engine is reached through its tunnel.

    this side: control plane's stand-in, relay, gateway's calls ── veth ── that side: agent and engine, on its loopback

Skips where namespaces are not allowed.
"""

import contextlib
import errno
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.stand_in import INSTANCE, stand_in
from tests.infra.tunnel.tunnelled import ask, calling, content_of, relayed, tunnelled, until


@dataclass(frozen=True)
class Namespace:
    """A network of its own, joined to ours by one cable; `outside` and `inside` are the addresses of its two ends."""

    name: str
    outside: str
    inside: str

    def command(self, *words: str) -> tuple[str, ...]:
        """`words`, run in there."""
        return ("ip", "netns", "exec", self.name, *words)


def ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, timeout=20)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    tag, subnet = secrets.token_hex(3), f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(256)}"
    made = Namespace(f"inv-{tag}", f"{subnet}.1", f"{subnet}.2")
    here, there = f"inva{tag}", f"invb{tag}"
    try:
        ip("netns", "add", made.name)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", made.name)
        ip("addr", "add", f"{made.outside}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", made.name, "addr", "add", f"{made.inside}/30", "dev", there)
        ip("-n", made.name, "link", "set", there, "up")
        ip("-n", made.name, "link", "set", "lo", "up")
        yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a cable between namespaces is not allowed here: {error.stderr.decode()}")
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ip("netns", "del", made.name)  # takes the cable along


def refused_by(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((address, port)) == errno.ECONNREFUSED


async def test_a_chat_goes_through_the_tunnel_of_a_machine_that_refuses_every_connection(
    namespace: Namespace, tmp_path: Path
) -> None:
    async with stand_in(host=namespace.outside) as plane, relayed(plane, namespace.outside) as relay:
        agent = tunnelled(plane, relay.url, tmp_path / "state")
        agent.command = namespace.command(sys.executable, "-m", "agent")
        async with agent:
            await plane.until_beat(lambda beat: beat.status == "ready")
            await until(lambda: relay.lot.count > 0, "a tunnel is parked")
            for port in (agent.vllm_port, agent.health_port):
                assert refused_by(namespace.inside, port), "the control: nobody gets in directly"
                assert refused_by("127.0.0.1", port), "and it is not this side's loopback"
            async with calling(relay.engine_url) as begin:
                told = await ask(begin, stream=True)
            assert (told.statuses, content_of(told.data)) == ([200], "one two three four")
    assert plane.registrations[0].tunnel
    assert INSTANCE in relay.engine_url
