"""Requests read and spliced."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.key_scope import ENDPOINTS, ENGINE_PATHS
from gateway.wire import ROUTES, Ask, LiveModel, Refusal, body_for_engine, model_body, models_body, parse_request
from tests.gateway.forms import form
from tests.gateway.routing import MODEL
from tests.given import NOON

CHAT = ROUTES["/v1/chat/completions"]
COMPLETIONS = ROUTES["/v1/completions"]
RESPONSES = ROUTES["/v1/responses"]
MESSAGES = ROUTES["/v1/messages"]
EMBEDDINGS = ROUTES["/v1/embeddings"]
UPLOAD = ROUTES["/v1/audio/transcriptions"]
ASKED = {"include_usage": True, "continuous_usage_stats": True}


def ask_of(body: bytes, route: Any = CHAT) -> Ask:
    return parse_request(route, (), body)


def sent(body: bytes, model: str = "m", route: Any = CHAT, **more: Any) -> Any:
    return json.loads(body_for_engine(route, body, ask_of(body, route), model, **more))


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
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS, MESSAGES, EMBEDDINGS])
def test_a_body_that_cannot_be_used_is_refused_with_its_code(body: bytes, code: str, route: Any) -> None:
    with pytest.raises(Refusal) as refused:
        ask_of(body, route)
    assert (refused.value.status, refused.value.code) == (400, code)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n"])
@pytest.mark.parametrize("value", ['"many"', "[1]", "{}", "true", "-1", "1e300", "null", "123456789012345678901234"])
def test_a_wrong_bound_is_left_for_the_engine_to_refuse(field: str, value: str) -> None:
    body = f'{{"model":"m","{field}":{value}}}'.encode()
    assert body_for_engine(CHAT, body, ask_of(body), "m") == body


def test_a_plain_request_reaches_the_engine_unchanged() -> None:
    body = b'{"model":"m", "messages": [{"role":"user","content":"hi"}] }'
    assert body_for_engine(CHAT, body, ask_of(body), "m") == body


@pytest.mark.parametrize("tail", [b"}", b" } \n", b"\n}\r\n\t "])
def test_a_stream_asks_for_running_usage_by_a_splice(tail: bytes) -> None:
    body = b'{"model":"m","stream":true,"messages":[{"content":"}"}]' + tail
    assert sent(body) == {**json.loads(body), "stream_options": ASKED}


def test_a_foreign_engine_is_asked_for_the_sum_alone() -> None:
    body = b'{"model":"m","stream":true}'
    assert sent(body, foreign=True) == {**json.loads(body), "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("options", ["null", "{}", '{"include_usage":false}', '{"include_usage":null}'])
def test_a_stream_whose_options_do_not_ask_is_rewritten(options: str) -> None:
    body = f'{{"model":"m","stream_options":{options},"stream":true,"n":1.50}}'.encode()
    assert not ask_of(body).wants_usage
    assert sent(body) == {**json.loads(body), "stream_options": ASKED}


def test_other_stream_options_are_kept() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false}}'
    assert sent(body)["stream_options"] == {**ASKED, "include_obfuscation": False}


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ({}, (False, False)),
        ({"continuous_usage_stats": True}, (False, False)),
        ({"include_usage": True}, (True, False)),
        (ASKED, (True, True)),
    ],
)
def test_running_usage_is_a_part_of_usage(options: dict[str, bool], wants: tuple[bool, bool]) -> None:
    ask = ask_of(json.dumps({"model": "m", "stream": True, "stream_options": options}).encode())
    assert (ask.wants_usage, ask.wants_progress) == wants


@pytest.mark.parametrize(("options", "foreign"), [(ASKED, False), ({"include_usage": True}, True)])
def test_a_client_who_asks_for_as_much_is_not_rewritten(options: dict[str, bool], foreign: bool) -> None:
    body = json.dumps({"model": "m", "stream": True, "stream_options": options}).encode()
    assert body_for_engine(CHAT, body, ask_of(body), "m", foreign=foreign) == body


@pytest.mark.parametrize("route", [EMBEDDINGS, ROUTES["/v1/rerank"]])
def test_what_has_no_stream_is_not_asked_for_one(route: Any) -> None:
    body = b'{"model":"m","stream":true,"input":"x"}'
    assert not ask_of(body, route).stream
    assert body_for_engine(route, body, ask_of(body, route), "m") == body


@pytest.mark.parametrize("route", [MESSAGES, RESPONSES])
def test_streams_that_tell_usage_of_themselves_are_not_asked(route: Any) -> None:
    body = b'{"model":"m","stream":true}'
    assert ask_of(body, route).stream
    assert body_for_engine(route, body, ask_of(body, route), "m") == body


@pytest.mark.parametrize(
    ("fields", "arrives"),
    [
        ({}, {"max_completion_tokens": 100}),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 100}),
        ({"max_tokens": 50}, {"max_tokens": 50}),
        ({"max_tokens": 100}, {"max_tokens": 100}),
        ({"max_tokens": 101}, {"max_tokens": 100}),
        ({"max_tokens": 5000.0}, {"max_tokens": 100}),
        ({"max_tokens": "5000"}, {"max_tokens": 100}),
        ({"max_completion_tokens": 101}, {"max_completion_tokens": 100}),
        ({"max_completion_tokens": 101, "max_tokens": 7}, {"max_completion_tokens": 100, "max_tokens": 7}),
        ({"max_completion_tokens": None, "max_tokens": 101}, {"max_completion_tokens": None, "max_tokens": 100}),
        ({"max_tokens": "many"}, {"max_tokens": "many"}),
        ({"max_tokens": -1}, {"max_tokens": -1}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_no_answer_is_longer_than_policy_allows(fields: dict[str, Any], arrives: dict[str, Any], stream: bool) -> None:
    body = json.dumps({"model": "m", "stream": stream, **fields}).encode()
    asked = {"stream_options": ASKED} if stream else {}
    assert sent(body, max_tokens=100) == {"model": "m", "stream": stream, **asked, **arrives}


@pytest.mark.parametrize(
    ("route", "field"), [(COMPLETIONS, "max_tokens"), (RESPONSES, "max_output_tokens"), (MESSAGES, "max_tokens")]
)
def test_each_endpoint_has_its_own_word_for_the_bound(route: Any, field: str) -> None:
    assert sent(b'{"model":"m"}', route=route, max_tokens=9) == {"model": "m", field: 9}
    over = json.dumps({"model": "m", field: 10}).encode()
    assert ask_of(over, route).max_tokens == 10
    assert sent(over, route=route, max_tokens=9) == {"model": "m", field: 9}


def test_what_makes_no_tokens_has_no_bound() -> None:
    body = b'{"model":"m","input":"x"}'
    assert body_for_engine(EMBEDDINGS, body, ask_of(body, EMBEDDINGS), "m", max_tokens=9) == body


@pytest.mark.parametrize(
    ("prompt", "n", "answers", "prompts"),
    [("hi", 2, 2, 1), (["a", "b"], 1, 1, 2), ([1, 2, 3], 1, 1, 1), ([[1], [2, 3]], 3, 3, 2), ([], 1, 1, 1)],
)
def test_answers_and_prompts_are_counted(prompt: Any, n: int, answers: int, prompts: int) -> None:
    ask = ask_of(json.dumps({"model": "m", "prompt": prompt, "n": n}).encode(), COMPLETIONS)
    assert (ask.answers, ask.prompts) == (answers, prompts)


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
    assert sent(body) == {**wanted, "model": "m", "stream_options": ASKED}


@pytest.mark.parametrize(
    ("more", "arrives"),
    [
        ({}, {}),
        ({"stream": False, "n": 1}, {"stream": False, "n": 1}),
        ({"stream": True}, {"stream": True, "stream_options": ASKED}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True, "stream_options": ASKED}),
    ],
)
def test_an_engine_is_asked_by_its_own_name_for_the_model(more: dict[str, object], arrives: dict[str, object]) -> None:
    assert sent(json.dumps({"model": "acme/chat", **more}).encode(), MODEL) == {"model": MODEL, **arrives}


def test_a_model_named_twice_is_the_one_that_was_checked() -> None:
    body = b'{"model":"first","model":"acme/chat"}'
    assert ask_of(body).model == json.loads(body)["model"] == "acme/chat"
    assert sent(body, MODEL) == {"model": MODEL}


def test_a_forms_model_is_found_and_replaced_in_its_place() -> None:
    content_type, body = form(("file", b"\x00\r\n--x"), ("model", b"acme/whisper"), ("stream", b"true"))
    ask = parse_request(UPLOAD, [(b"content-type", content_type)], body)
    assert (ask.model, ask.stream) == ("acme/whisper", True)
    assert body_for_engine(UPLOAD, body, ask, "acme/whisper") is body
    assert body_for_engine(UPLOAD, body, ask, "w") == body.replace(b"acme/whisper", b"w")


@pytest.mark.parametrize(("content_type", "code"), [(b"application/json", "invalid_form"), (b"", "invalid_form")])
def test_an_upload_that_is_no_form_is_refused(content_type: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_request(UPLOAD, [(b"content-type", content_type)], b"{}")
    assert (refused.value.status, refused.value.code) == (400, code)


def test_a_form_without_a_model_is_refused() -> None:
    content_type, body = form(("file", b"x"))
    with pytest.raises(Refusal) as refused:
        parse_request(UPLOAD, [(b"content-type", content_type)], body)
    assert refused.value.code == "missing_model"


def test_every_path_of_an_engine_is_an_endpoint_that_a_key_may_name() -> None:
    assert {ROUTES[path].endpoint for path in ENGINE_PATHS} == set(ENDPOINTS) - {"models", "rest"}
    assert all(ROUTES[path].endpoint == word and ROUTES[path].path == path for path, word in ENGINE_PATHS.items())


def test_models_are_listed_in_openais_shape() -> None:
    model = LiveModel("mock-echo-model", NOON, "acme")
    entry = {"id": "mock-echo-model", "object": "model", "created": int(NOON.timestamp()), "owned_by": "acme"}
    assert json.loads(model_body(model)) == entry
    assert json.loads(models_body([model])) == {"object": "list", "data": [entry]}
