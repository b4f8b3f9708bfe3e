import socket

import pytest

from handlers.cloud_ports import CloudRefusedError
from infra.providers import loopback
from infra.providers.loopback import Place, choose_place


def test_a_server_gets_the_same_address_each_time_never_that_of_this_host() -> None:
    places = [choose_place(f"local-{n}", ()) for n in range(100)]
    assert places == [choose_place(f"local-{n}", ()) for n in range(100)]
    assert not [place for place in places if place.address.startswith(("127.0.0.", "127.0."))]


def test_a_taken_address_moves_to_the_next() -> None:
    first = choose_place("local-1", ())
    assert choose_place("local-1", {first}) != first


def test_a_strangers_port_moves_to_the_next_address() -> None:
    first = choose_place("local-2", ())
    with socket.socket() as stranger:
        stranger.bind((first.address, first.engine_port))
        stranger.listen()
        assert choose_place("local-2", ()) != first


def test_where_there_is_one_address_servers_differ_by_port(monkeypatch: pytest.MonkeyPatch) -> None:
    can_bind = loopback._can_bind
    monkeypatch.setattr(loopback, "_can_bind", lambda place: can_bind(place) if place.address == "127.0.0.1" else None)
    first = choose_place("local-1", ())
    assert first.address == "127.0.0.1"
    assert choose_place("local-1", {first}).agent_port != first.agent_port


def test_a_full_machine_is_out_of_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "_can_bind", lambda _place: False)
    with pytest.raises(CloudRefusedError, match="PROVIDER_OUT_OF_STOCK"):
        choose_place("local-1", ())


def test_a_place_is_address_and_ports() -> None:
    assert Place("127.1.2.3", 8080, 8000)._asdict() == {"address": "127.1.2.3", "agent_port": 8080, "engine_port": 8000}
