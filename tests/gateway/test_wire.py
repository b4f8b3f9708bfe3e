"""Requests read and spliced, errors written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import (
    LiveModel,
    Refusal,
    body_for_engine,
    error_body,
    error_event,
    model_body,
    models_body,
    parse_request,
)
from tests.gateway.routing import MODEL
from tests.given import NOON

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"model": "m"', "invalid_json"),
        (b'{"model": "m"} x', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "\\ud800"}', "invalid_json"),
        (b'{"messages": ' + b"[" * 100_000, "invalid_json"),
        (b"[]", "invalid_type"),
        (b'{"model": 7}', "invalid_type"),
        (b'{"model": "m", "stream": "yes"}', "invalid_type"),
        (b'{"model": "m", "stream_options": []}', "invalid_type"),
        (b"{}", "missing_model"),
        (b'{"model": ""}', "missing_model"),
        (b'{"model": null}', "missing_model"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_with_its_code(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_request(CHAT, body)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_a_plain_request_reaches_the_engine_unchanged() -> None:
    body = b'{"model":"m", "messages": [{"role":"user","content":"hi"}] }'
    assert body_for_engine(body, parse_request(CHAT, body), "m") == body


@pytest.mark.parametrize("tail", [b"}", b" } \n", b"\n}\r\n\t "])
def test_a_stream_asks_for_usage_by_a_splice(tail: bytes) -> None:
    body = b'{"model":"m","stream":true,"messages":[{"content":"}"}]' + tail
    sent = body_for_engine(body, parse_request(CHAT, body), "m")
    assert json.loads(sent) == {**json.loads(body), "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("options", ["null", "{}", '{"include_usage":false}', '{"include_usage":null}'])
def test_a_stream_whose_options_do_not_ask_is_rewritten(options: str) -> None:
    body = f'{{"model":"m","stream_options":{options},"stream":true,"n":1.50}}'.encode()
    ask = parse_request(CHAT, body)
    assert not ask.wants_usage
    assert json.loads(body_for_engine(body, ask, "m")) == {
        **json.loads(body),
        "stream_options": {"include_usage": True},
    }


def test_other_stream_options_are_kept() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":true}}'
    sent = json.loads(body_for_engine(body, parse_request(CHAT, body), "m"))
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_a_client_who_asks_for_usage_is_not_rewritten() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    ask = parse_request(CHAT, body)
    assert ask.wants_usage
    assert body_for_engine(body, ask, "m") == body


def test_embeddings_never_stream() -> None:
    body = b'{"model":"m","stream":true,"input":"x"}'
    assert body_for_engine(body, parse_request("/v1/embeddings", body), "m") == body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RESERVED = {"model", "stream", "stream_options"}


@given(
    name=st.text(min_size=1),
    fields=st.dictionaries(st.text().filter(lambda name: name not in RESERVED), JSON, max_size=5),
    options=st.sampled_from([(), (None,), ({"include_usage": False},)]),
)
def test_whatever_else_a_stream_request_says_arrives(
    name: str, fields: dict[str, object], options: tuple[object, ...]
) -> None:
    wanted = {**fields, "model": name, "stream": True}
    body = json.dumps({**wanted, **({"stream_options": options[0]} if options else {})}).encode()
    sent = json.loads(body_for_engine(body, parse_request(CHAT, body), "m"))
    assert sent == {**wanted, "model": "m", "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({}, {}),
        ({"stream": False, "n": 1}, {"stream": False, "n": 1}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"stream": True, "stream_options": {"include_usage": True}},
            {"stream": True, "stream_options": {"include_usage": True}},
        ),
    ],
)
def test_an_engine_is_asked_by_its_own_name_for_the_model(more: dict[str, object], sent: dict[str, object]) -> None:
    body = json.dumps({"model": "acme/chat", **more}).encode()
    assert json.loads(body_for_engine(body, parse_request(CHAT, body), MODEL)) == {"model": MODEL, **sent}


def test_a_model_named_twice_is_the_one_that_was_checked() -> None:
    body = b'{"model":"first","model":"acme/chat"}'
    ask = parse_request(CHAT, body)
    assert ask.model == json.loads(body)["model"] == "acme/chat"
    assert json.loads(body_for_engine(body, ask, MODEL)) == {"model": MODEL}


def test_an_error_has_openais_shape() -> None:
    body = json.loads(error_body(Refusal(404, "model_not_found", "No such model.", param="model")))
    assert body == {
        "error": {
            "message": "No such model.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (401, "authentication_error"), (503, "server_error")]
)
def test_an_errors_type_follows_its_status(status: int, kind: str) -> None:
    event = error_event(Refusal(status, "c", "m"))
    assert json.loads(event.removeprefix(b"data: "))["error"]["type"] == kind
    assert event.endswith(b"\n\n")


def test_models_are_listed_as_openai_lists_them() -> None:
    listed = json.loads(models_body([LiveModel("acme/chat", NOON, "acme"), LiveModel(MODEL, NOON, "inventiv")]))
    assert listed["object"] == "list"
    assert listed["data"][0] == {
        "id": "acme/chat", "object": "model", "created": int(NOON.timestamp()), "owned_by": "acme"
    }  # fmt: skip
    assert [model["id"] for model in listed["data"]] == ["acme/chat", MODEL]


def test_one_model_looks_as_in_the_list() -> None:
    model = LiveModel("Qwen/Qwen2.5-7B-Instruct", NOON, "inventiv")
    assert json.loads(model_body(model)) == json.loads(models_body([model]))["data"][0]
