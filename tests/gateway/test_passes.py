"""Who is let in again without being looked at, and who never is."""

from typing import Any

from domain.api_key import key_hash
from domain.key_scope import KeyScope
from gateway.admission import Asked
from gateway.http import Head
from gateway.passes import FRESH_S, MAX_REMEMBERED, Pass, Passes
from gateway.wire import ROUTES
from projections.routing_table import RoutingTable
from tests.examples import GLOBEX
from tests.gateway.routing import CLEAR_KEY, entries, founded, key, routing
from tests.given import NOON

CHAT = "/v1/chat/completions"


def head(*headers: tuple[bytes, bytes], path: str = CHAT) -> Head:
    given = headers or ((b"authorization", f"Bearer {CLEAR_KEY}".encode()),)
    return Head(method="POST", path=path, headers=given, given=dict(given), peer="127.0.0.1", started_s=0.0)


def admitted(table: RoutingTable, **changes: Any) -> Pass:
    known = table.find_key(key_hash(CLEAR_KEY))
    assert known is not None
    asked = Asked(headers=(), endpoint="chat", address="127.0.0.1", now=NOON)
    facts: dict[str, Any] = {"route": ROUTES[CHAT], "key": known, "asked": asked, "table": table, "aims": {}}
    return Pass(**{**facts, "position": table.position, "until_s": FRESH_S, **changes})


def remembering(table: RoutingTable) -> Passes:
    passes = Passes()
    passes.keep(head(), admitted(table))
    return passes


def test_the_same_credential_at_the_same_endpoint_is_found_again() -> None:
    table = routing(key())
    passes = remembering(table)
    assert passes.find(head(), table, 0.5) is not None
    assert passes.find(head(path="/v1/embeddings"), table, 0.5) is None
    assert passes.find(head((b"authorization", b"Bearer sk-inv-other")), table, 0.5) is None


def test_every_event_makes_it_void() -> None:
    table = routing(key())
    passes = remembering(table)
    for entry in entries(founded(GLOBEX), after=table.position):
        table.apply(entry)
        assert passes.find(head(), table, 0.5) is None


def test_another_table_makes_it_void_even_at_the_same_position() -> None:
    passes = remembering(routing(key()))
    assert passes.find(head(), routing(key()), 0.5) is None


def test_it_holds_for_no_longer_than_a_second() -> None:
    table = routing(key())
    passes = remembering(table)
    assert passes.find(head(), table, FRESH_S - 0.01) is not None
    assert passes.find(head(), table, FRESH_S) is None


def test_a_key_that_is_bound_to_addresses_is_looked_at_each_time() -> None:
    table = routing(key(scope=KeyScope(role="owner", ip_ranges=("127.0.0.0/8",))))
    assert remembering(table).find(head(), table, 0.5) is None


def test_a_second_credential_is_never_overlooked() -> None:
    table = routing(key())
    passes = remembering(table)
    bearer = (b"authorization", f"Bearer {CLEAR_KEY}".encode())
    for more in ((b"x-api-key", b"sk-inv-other"), bearer, (b"authorization", b"Bearer sk-inv-other")):
        assert passes.find(head(more, bearer), table, 0.5) is None


def test_credentials_are_forgotten_when_they_hold_no_more() -> None:
    table = routing(key())
    passes = remembering(table)
    passes.forget(FRESH_S - 0.01)
    assert len(passes) == 1
    passes.forget(FRESH_S)
    assert len(passes) == 0


def test_memory_is_bounded() -> None:
    table, passes = routing(key()), Passes()
    for number in range(2 * MAX_REMEMBERED):
        passes.keep(head((b"authorization", b"%d" % number)), admitted(table))
        assert len(passes) <= MAX_REMEMBERED
