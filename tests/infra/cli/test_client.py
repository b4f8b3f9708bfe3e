"""What every command gets from the client: a login, safe repetition, and reads that see the last write."""

from pathlib import Path

import pytest

from infra import client
from infra.client import Api, ApiError, NoCredentialsError, UnreachableError
from infra.environment import Environment, read_environment
from tests.infra.cli.stub_api import Answer, StubApi

BUSY = Answer(503, {"error": "unavailable", "message": "Try again."}, {"Retry-After": "1"})


@pytest.fixture
def environment(stub: StubApi) -> Environment:
    stub.answer("GET", "/models", Answer(200, []))
    return read_environment()


def test_one_login_serves_many_commands(stub: StubApi, environment: Environment) -> None:
    for _ in range(3):
        with Api(environment) as api:
            assert api.get("/models") == []
    assert len(stub.asked_of("POST", "/auth/login")) == 1
    assert stub.asked[-1].headers["authorization"] == "Bearer token-1"


def test_the_kept_session_is_for_its_owner_alone(environment: Environment) -> None:
    with Api(environment) as api:
        api.get("/models")
    assert (environment.data_dir / "run" / "cli-session").stat().st_mode & 0o077 == 0


def test_a_session_that_ended_is_renewed_without_a_word(stub: StubApi, environment: Environment) -> None:
    with Api(environment) as api:
        api.get("/models")
    ended = Answer(401, {"error": "session_invalid_or_expired", "message": "Over."})
    stub.answer("GET", "/models", ended, Answer(200, ["again"]))
    with Api(environment) as api:
        assert api.get("/models") == ["again"]
    assert stub.asked[-1].headers["authorization"] == "Bearer token-2"


def test_a_refused_login_is_an_error_not_a_loop(stub: StubApi, environment: Environment) -> None:
    (environment.secrets_dir / "admin_password").write_text("wrong")
    with Api(environment) as api, pytest.raises(ApiError, match="No\\."):
        api.get("/models")
    assert len(stub.asked_of("POST", "/auth/login")) == 1


def test_a_read_carries_the_position_of_the_last_write(stub: StubApi, environment: Environment) -> None:
    stub.answer("POST", "/api_keys", Answer(201, {}, {"Event-Position": "41"}))
    with Api(environment) as api:
        api.post("/api_keys", {"name": "n"})
        api.get("/models")
    assert "event-position" not in stub.asked_of("POST", "/api_keys")[0].headers
    assert stub.asked_of("GET", "/models")[0].headers["event-position"] == "41"


def test_a_write_is_repeated_under_the_same_key_when_the_platform_is_out_of_order(
    stub: StubApi, environment: Environment
) -> None:
    stub.answer("POST", "/deployments", BUSY, BUSY, Answer(202, {"deployment_id": "d"}))
    with Api(environment) as api:
        api.get("/models")
        assert api.post("/deployments") == {"deployment_id": "d"}
    keys = {asked.headers["idempotency-key"] for asked in stub.asked_of("POST", "/deployments")}
    assert len(stub.asked_of("POST", "/deployments")) == 3
    assert len(keys) == 1


def test_two_writes_carry_two_keys(stub: StubApi, environment: Environment) -> None:
    stub.answer("POST", "/api_keys", Answer(201, {}))
    with Api(environment) as api:
        api.post("/api_keys")
        api.post("/api_keys")
    first, second = stub.asked_of("POST", "/api_keys")
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_an_attempt_still_in_flight_is_waited_for(stub: StubApi, environment: Environment) -> None:
    in_flight = Answer(409, {"error": "idempotency_key_in_flight", "message": "Running."})
    stub.answer("POST", "/api_keys", in_flight, Answer(201, {"id": "k"}))
    with Api(environment) as api:
        assert api.post("/api_keys") == {"id": "k"}


def test_patience_ends(stub: StubApi, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.5)
    with Api(environment) as api:
        api.get("/models")
        stub.answer("GET", "/models", BUSY)
        with pytest.raises(ApiError, match="Try again"):
            api.get("/models")
    assert len(stub.asked_of("GET", "/models")) > 2


def test_a_refusal_is_not_repeated(stub: StubApi, environment: Environment) -> None:
    stub.answer("GET", "/instances/i", Answer(404, {"error": "instance_not_found", "message": "There is none."}))
    with Api(environment) as api, pytest.raises(ApiError) as refused:
        api.get("/instances/i")
    assert (refused.value.status, refused.value.code) == (404, "instance_not_found")
    assert len(stub.asked_of("GET", "/instances/i")) == 1


def test_a_platform_that_never_answered_is_unreachable_at_once(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTIV_API_URL", "http://127.0.0.1:9")
    with Api(read_environment()) as api, pytest.raises(UnreachableError) as failure:
        api.get("/models")
    assert failure.value.url == "http://127.0.0.1:9"


def test_without_a_password_file_the_missing_credentials_are_named(stub: StubApi, environment: Environment) -> None:
    stub.answer("GET", "/healthz", Answer(200, {}))
    (environment.secrets_dir / "admin_password").unlink()
    with Api(environment) as api, pytest.raises(NoCredentialsError, match="admin_password cannot be read"):
        api.get("/models")


def test_an_api_key_from_the_environment_needs_no_login(
    stub: StubApi, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTIV_API_KEY", "sk-inv-given")
    with Api(read_environment()) as api:
        api.get("/models")
    assert stub.asked_of("POST", "/auth/login") == []
    assert stub.asked[-1].headers["authorization"] == "Bearer sk-inv-given"


def test_server_sent_events_are_read_one_by_one(stub: StubApi, environment: Environment) -> None:
    stream = b'event: hello\ndata: {"position":3}\n\n: keep-alive\n\nid: 4\nevent: A\ndata: {"x":1}\n\n'
    stub.answer("GET", "/events/stream", Answer(200, stream))
    with Api(environment) as api:
        assert list(api.server_sent_events("/events/stream", after=3)) == [
            ("hello", '{"position":3}'),
            ("A", '{"x":1}'),
        ]
    assert stub.asked[-1].path == "/events/stream?after=3"


def test_a_local_platform_is_found_by_what_up_wrote_down(tmp_path: Path) -> None:
    nothing_there = read_environment({"INVENTIV_DATA_DIR": str(tmp_path)})
    found = client.find_platform(nothing_there)
    assert found.local is None
    assert found.api_url == "http://127.0.0.1:8003"
