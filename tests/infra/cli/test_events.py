"""`inventiv events ...` through the API: what scripts rely on, with the API as a stub."""

import json
from typing import Any

import pytest

from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from infra.cli.output import ExitCode
from tests.examples import example
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi
from tests.projections.grammar import Story

NOTHING = Answer(200, {"events": [], "next": None})


def told() -> list[dict[str, Any]]:
    """The life of one key, as the API shows it."""
    events = (example(ApiKeyIssued), ApiKeyRenamed(name="two"), ApiKeyRenamed(name="three"), ApiKeyRevoked())
    story = Story().happened("acme", "k-1", *events)
    return [{"position": e.position, **json.loads(e.payload)} for e in story.entries]


def page(*events: dict[str, Any]) -> Answer:
    return Answer(200, {"events": list(events), "next": None})


@pytest.fixture
def key(stub: StubApi) -> list[dict[str, Any]]:
    events = told()
    stub.answer("GET", "/events/api_key/k-1", page(*events))
    return events


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_tail_shows_each_event_on_a_line_with_what_it_says(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/events", page(*told()))
    assert inventiv("events", "tail", "--last", "4") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "ApiKeyRenamed" in lines[1]
    assert "api_key/k-1 v2" in lines[1]
    assert lines[1].endswith("name=two")


def test_tail_asks_the_api_for_what_is_wanted_only(inventiv: Inventiv, stub: StubApi) -> None:
    stub.answer("GET", "/events", NOTHING)
    filters = ("--type", "T", "--aggregate", "a", "--organization", "o", "--correlation", "c")
    assert inventiv("events", "tail", *filters) == ExitCode.OK
    (asked,) = stub.asked_of("GET", "/events")
    for given in ("type=T", "aggregate=a", "organization=o", "correlation=c"):
        assert given in asked.path


def test_tail_of_nothing_says_what_to_do(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/events", NOTHING)
    assert inventiv("events", "tail") == ExitCode.OK
    assert "--follow" in capsys.readouterr().err


def test_the_state_is_that_of_the_moment(
    inventiv: Inventiv, key: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "state", "api_key", "k-1", "--json") == ExitCode.OK
    now = document(capsys)
    assert (now["version"], now["position"], now["type"]) == (4, 4, "ApiKeyRevoked")
    assert inventiv("events", "state", "api_key", "k-1", "--at", "2", "--json") == ExitCode.OK
    then = document(capsys)
    assert (then["version"], then["state"]["name"]) == (2, "two")
    assert inventiv("events", "state", "api_key", "k-1", "--at", key[1]["at"], "--json") == ExitCode.OK
    assert document(capsys) == then
    assert inventiv("events", "state", "api_key", "k-1", "--at", "2") == ExitCode.OK
    said = capsys.readouterr()
    assert "two" in said.out
    assert "version 2 (position 2" in said.err


@pytest.mark.parametrize(
    ("words", "exit_code", "code", "cure"),
    [
        (("kettle", "k-1"), ExitCode.USAGE, "unknown_aggregate", "instance"),
        (("api_key", "k-1", "--at", "noon"), ExitCode.USAGE, "invalid_moment", "2026-11-21"),
        (("api_key", "k-1", "--at", "0"), ExitCode.NOT_FOUND, "not_begun", "It began at"),
    ],
)
def test_a_state_that_cannot_be_told_says_why(
    inventiv: Inventiv,
    key: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    exit_code: ExitCode,
    code: str,
    cure: str,
) -> None:
    assert inventiv("events", "state", *words, "--json") == exit_code
    said = capsys.readouterr()
    assert json.loads(said.out)["error"] == code
    assert cure in said.err


def test_an_event_of_tomorrow_is_named_and_not_guessed(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = told()
    stub.answer("GET", "/events/api_key/k-1", page({**first, "schema": 99}))
    assert inventiv("events", "state", "api_key", "k-1") == ExitCode.FAILED
    assert "ApiKeyIssued of schema 99" in capsys.readouterr().err


def test_diff_names_fields_and_the_events_that_changed_them(
    inventiv: Inventiv, key: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "diff", "api_key", "k-1", "--from", "1", "--to", "3", "--json") == ExitCode.OK
    found = document(capsys)
    (change,) = found["changes"]
    assert (change["field"], change["from"], change["to"]) == ("name", "ci", "three")
    assert [by["position"] for by in change["by"]] == [2, 3]
    assert inventiv("events", "diff", "api_key", "k-1", "--from", "1", "--to", "3") == ExitCode.OK
    assert 'name: "ci" -> "three"  ApiKeyRenamed at 2, ApiKeyRenamed at 3' in capsys.readouterr().out


def test_equal_moments_do_not_differ(
    inventiv: Inventiv, key: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("events", "diff", "api_key", "k-1", "--from", "3", "--to", "3", "--json") == ExitCode.OK
    assert document(capsys)["changes"] == []
    assert inventiv("events", "diff", "api_key", "k-1", "--from", "3", "--to", "2") == ExitCode.USAGE


def family() -> list[dict[str, Any]]:
    """One intent: an event and its two effects, the second an effect of the first."""
    first, second, third, _ = told()
    return [
        {**first, "correlation": "wish"},
        {**second, "correlation": "wish", "cause": first["event_id"]},
        {**third, "correlation": "wish", "cause": second["event_id"]},
    ]


@pytest.mark.parametrize("asked", ["2", "event_id"])
def test_why_draws_the_tree_and_marks_what_was_asked(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    events = family()
    asked = events[1]["event_id"] if asked == "event_id" else asked
    stub.answer("GET", "/events", page(events[1]), page(*events))
    assert inventiv("events", "why", asked) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Intent wish")
    assert lines[2].startswith("ApiKeyIssued  +0.0 s")
    assert lines[3].startswith("└─ ApiKeyRenamed  +1.0 s")
    assert lines[3].endswith("<── asked")
    assert lines[4].startswith("   └─ ApiKeyRenamed  +2.0 s")
    assert not lines[4].endswith("<── asked")


def test_why_of_an_aggregate_tells_every_intent(
    inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, *_ = told()
    one, two = {**one, "correlation": "first"}, {**two, "correlation": "second"}
    stub.answer("GET", "/events", NOTHING, NOTHING, page(one, two), page(one), page(two))
    assert inventiv("events", "why", "k-1", "--json") == ExitCode.OK
    found = document(capsys)
    assert [(story["correlation"], story["events"]) for story in found["stories"]] == [("first", 1), ("second", 1)]
    assert all(story["roots"][0]["asked"] for story in found["stories"])
    queries = [asked.path for asked in stub.asked_of("GET", "/events")]
    assert [word in query for word, query in zip(("event_id=k-1", "correlation=k-1", "id=k-1"), queries, strict=False)]


def test_why_of_nothing_is_not_found(inventiv: Inventiv, stub: StubApi, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/events", NOTHING)
    assert inventiv("events", "why", "999") == ExitCode.NOT_FOUND
    assert inventiv("events", "why", "nobody", "--json") == ExitCode.NOT_FOUND
    assert document(capsys)["error"] == "nothing_found"
