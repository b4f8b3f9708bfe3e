import socket

import pytest

from infra.embedded import ports
from infra.embedded.child import EmbeddedServerError
from infra.embedded.ports import free_port
from tests.conftest import some_port


def test_a_free_port_is_taken_as_it_is() -> None:
    port = some_port()
    assert free_port(port) == port


def test_a_taken_port_gives_way_to_the_next_free_one() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", some_port()))
        holder.listen()
        taken = holder.getsockname()[1]
        assert taken < free_port(taken) < taken + ports.PORTS_TRIED


def test_the_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS_TRIED", 1)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", some_port()))
        holder.listen()
        with pytest.raises(EmbeddedServerError, match="no free port"):
            free_port(holder.getsockname()[1])
