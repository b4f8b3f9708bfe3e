"""Refusals as clients read them, and what an engine's own error means."""

import json

import pytest

from gateway.errors import does_not_support, error_event, error_reply, unsupported
from gateway.wire import ROUTES, Refusal

CHAT, MESSAGES, RESPONSES = ROUTES["/v1/chat/completions"], ROUTES["/v1/messages"], ROUTES["/v1/responses"]
EMBEDDINGS = ROUTES["/v1/embeddings"]
GONE = Refusal(502, "upstream_read_failed", "The model's worker broke off.")


def test_an_error_has_openais_shape() -> None:
    body = json.loads(error_reply(None, Refusal(404, "model_not_found", "No such model.", param="model"), "r1"))
    assert body == {
        "error": {
            "message": "No such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "invalid_request_error", "permission_error"),
        (404, "invalid_request_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (502, "server_error", "api_error"),
        (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ],
)
def test_an_errors_type_follows_its_status(status: int, openai: str, anthropic: str) -> None:
    refusal = Refusal(status, "c", "m")
    assert json.loads(error_reply(CHAT, refusal))["error"]["type"] == openai
    assert json.loads(error_reply(MESSAGES, refusal, "r1")) == {
        "type": "error",
        "error": {"type": anthropic, "message": "m"},
        "request_id": "r1",
    }


def test_a_broken_chat_ends_with_openais_error() -> None:
    event = error_event(CHAT, GONE)
    assert event == b"data: " + error_reply(CHAT, GONE) + b"\n\n"


def test_a_broken_message_ends_with_anthropics_error_event() -> None:
    event = error_event(MESSAGES, GONE, "r1")
    assert event == b"event: error\ndata: " + error_reply(MESSAGES, GONE, "r1") + b"\n\n"


def test_a_broken_response_ends_with_an_error_event_that_has_both_shapes() -> None:
    name, data = error_event(RESPONSES, GONE).rstrip().split(b"\ndata: ")
    told = json.loads(data)
    assert name == b"event: error"
    assert (told["type"], told["code"], told["message"]) == ("error", GONE.code, GONE.message)
    assert told["error"] == json.loads(error_reply(RESPONSES, GONE))["error"]


def test_a_model_without_the_endpoint_is_named() -> None:
    refusal = does_not_support("m" * 500, EMBEDDINGS)
    assert (refusal.status, refusal.code) == (400, "model_does_not_support")
    assert len(refusal.message) < 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"error":{"message":"Not Found","type":"NotFoundError","param":null,"code":404}}'),
        (404, b"404: Not Found"),
        (404, b"<html>nginx</html>"),
        (404, b""),
        (404, b'{"error":{"message":"Invalid URL (POST /v1/x)","type":"invalid_request_error"}}'),
        (405, b'{"detail":"Method Not Allowed"}'),
        (400, b'{"error":{"message":"The model does not support Embeddings API","code":400}}'),
        (501, b'{"error":{"message":"The model does not support Score API","code":501}}'),
        (400, b'{"object":"error","message":"The model does not support Rerank (Score) API","code":400}'),
    ],
)
def test_an_engine_without_the_endpoint_is_understood(status: int, body: bytes) -> None:
    refusal = unsupported(EMBEDDINGS, status, body)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (400, "model_does_not_support")
    assert "/v1/embeddings" in refusal.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}'),
        (400, b'{"error":{"message":"max_tokens must be at least 1","code":400}}'),
        (400, b'{"error":{"message":"this model does not support images","code":400}}'),
        (400, b"no json"),
        (422, b'{"detail":[{"msg":"field required"}]}'),
        (500, b'{"error":{"message":"The model does not support Score API"}}'),
    ],
)
def test_any_other_error_of_an_engine_stands_as_it_is(status: int, body: bytes) -> None:
    assert unsupported(EMBEDDINGS, status, body) is None
