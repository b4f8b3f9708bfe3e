"""Figures as a scraper reads them: names, labels, bounds, and that no label tells who asked what."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import MAX_CODES, MAX_MODELS, MAX_VALUES, OTHER, Gauge, Metrics
from gateway.wire import ROUTES
from tests.gateway.records import counts, ending, record
from tests.gateway.routing import MODEL

CHAT = {"gen_ai_request_model": MODEL, "gen_ai_operation_name": "chat"}


def page(metrics: Metrics) -> dict[str, Metric]:
    content_type, body = metrics.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found = [
        sample.value
        for family in page(metrics).values()
        for sample in family.samples
        if sample.name == name and sample.labels.items() >= labels.items()
    ]
    assert len(found) < 2, f"{name} is ambiguous"
    return found[0] if found else None


def tell(metrics: Metrics, **changes: Any) -> None:
    one = record(**changes)
    metrics.finished(one.model_code, one.endpoint, counts(**changes), ending(**changes))


def told(*records: Mapping[str, object]) -> Metrics:
    metrics = Metrics()
    for changes in records:
        tell(metrics, **changes)
    return metrics


def series(families: Iterable[Metric]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return [(sample.name, tuple(sorted(sample.labels.items()))) for family in families for sample in family.samples]


def test_the_names_are_opentelemetrys_and_ours() -> None:
    metrics = told({})
    metrics.refused("no_ready_worker", 503)
    ours = {name: family.type for name, family in page(metrics).items() if not name.startswith("process_")}
    assert ours == {
        "gen_ai_client_token_usage": "histogram",
        "gen_ai_server_request_duration_seconds": "histogram",
        "gen_ai_server_time_to_first_token_seconds": "histogram",
        "gen_ai_server_time_per_output_token_seconds": "histogram",
        "inventiv_gateway_queue_seconds": "histogram",
        "inventiv_gateway_cached_tokens": "counter",
        "inventiv_gateway_input_audio_seconds": "counter",
        "inventiv_gateway_output_images": "counter",
        "inventiv_gateway_refusals": "counter",
        "inventiv_gateway_retries": "counter",
    }


def test_the_process_tells_its_memory_and_cpu_by_their_usual_names() -> None:
    assert {"process_resident_memory_bytes", "process_cpu_seconds"} <= page(Metrics()).keys()


def test_tokens_and_times_are_summed_and_counted() -> None:
    metrics = told({}, {"prompt_tokens": 1, "completion_tokens": 0, "ttft_ms": None, "inter_token_ms": None})
    for kind, total in (("input", 101), ("output", 20)):
        labels = {**CHAT, "gen_ai_token_type": kind}
        assert value(metrics, "gen_ai_client_token_usage_sum", **labels) == total
        assert value(metrics, "gen_ai_client_token_usage_count", **labels) == 2
    assert value(metrics, "gen_ai_server_request_duration_seconds_sum", **CHAT) == pytest.approx(0.8)
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", **CHAT) == 1
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **CHAT) == pytest.approx(0.02)
    assert value(metrics, "inventiv_gateway_cached_tokens_total", **CHAT) == 32
    assert value(metrics, "inventiv_gateway_queue_seconds_count", **CHAT) == 2


def test_a_value_on_the_bound_belongs_to_its_bucket() -> None:
    metrics = told({"duration_ms": 80.0}, {"duration_ms": 80.001}, {"duration_ms": 1e9})
    counts = {
        bound: value(metrics, "gen_ai_server_request_duration_seconds_bucket", le=bound)
        for bound in ("0.04", "0.08", "0.16", "81.92", "+Inf")
    }
    assert counts == {"0.04": 0, "0.08": 1, "0.16": 2, "81.92": 2, "+Inf": 3}


def test_how_a_request_ended_is_its_error_type() -> None:
    metrics = told({}, {"outcome": "client_left"}, {"outcome": "upstream_failed"}, {"outcome": "upstream_failed"})
    name = "gen_ai_server_request_duration_seconds_count"
    assert value(metrics, name, error_type="") == 1
    assert value(metrics, name, error_type="client_left") == 1
    assert value(metrics, name, error_type="upstream_failed") == 2


def test_what_the_engine_refused_used_no_tokens() -> None:
    metrics = told({"outcome": "refused_by_engine", "status_code": 400})
    assert value(metrics, "gen_ai_server_request_duration_seconds_count", error_type="refused_by_engine") == 1
    assert value(metrics, "gen_ai_client_token_usage_count", gen_ai_token_type="input") == 0


def test_audio_and_images_are_counted_by_their_own_units() -> None:
    audio = {"endpoint": "/v1/audio/transcriptions", "input_audio_seconds": 2.5}
    metrics = told(audio, audio, {"endpoint": "/v1/images/generations", "output_images": 3})
    seconds, images = "inventiv_gateway_input_audio_seconds_total", "inventiv_gateway_output_images_total"
    assert value(metrics, seconds, gen_ai_operation_name="transcription") == 5.0
    assert value(metrics, images, gen_ai_operation_name="image_generation") == 3


def test_every_endpoint_has_an_operation_of_its_own() -> None:
    operations = {
        labels["gen_ai_operation_name"]
        for route in ROUTES.values()
        for labels in ({}, *(s.labels for f in page(told({"endpoint": route.path})).values() for s in f.samples))
        if "gen_ai_operation_name" in labels
    }
    assert OTHER not in operations
    assert {"chat", "text_completion", "embeddings"} <= operations


def test_no_series_comes_twice() -> None:
    metrics = told(*({"endpoint": path} for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages")))
    found = series(page(metrics).values())
    assert len(found) == len(set(found))
    assert value(metrics, "gen_ai_client_token_usage_count", **CHAT, gen_ai_token_type="input") == 3


def test_beyond_the_bound_models_are_counted_together() -> None:
    metrics = told(*({"model_code": f"m{number}"} for number in range(3 * MAX_MODELS)), {"model_code": "m0"})
    name = "gen_ai_server_request_duration_seconds_count"
    assert value(metrics, name, gen_ai_request_model="m0") == 2
    assert value(metrics, name, gen_ai_request_model=OTHER) == 2 * MAX_MODELS
    assert value(metrics, name, gen_ai_request_model=f"m{MAX_MODELS}") is None


def test_the_page_stays_bounded_whatever_is_told() -> None:
    metrics = Metrics()
    for number in range(1000):
        tell(metrics, model_code=f"m{number}", endpoint=f"/made/up/{number}")
        metrics.refused(f"code_{number}", 400)
    assert len(metrics._found) <= MAX_MODELS
    assert len(series(page(metrics).values())) < (MAX_MODELS + 1) * 110 + MAX_CODES + 20


def test_refusals_are_counted_by_code() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.refused("rate_limit_exceeded", 429)
    metrics.retried()
    assert value(metrics, "inventiv_gateway_refusals_total", code="rate_limit_exceeded", status="429") == 2
    assert value(metrics, "inventiv_gateway_retries_total") == 1


def test_a_gauge_is_asked_when_the_page_is_made() -> None:
    depth = {"a": 1.0}
    metrics = Metrics(
        [
            Gauge(name="open_requests", help="h", read=lambda: 7),
            Gauge(name="queued_requests", help="h", read=lambda: depth, label="model"),
        ]
    )
    assert value(metrics, "inventiv_gateway_open_requests") == 7
    depth["b"] = 2
    assert value(metrics, "inventiv_gateway_queued_requests", model="b") == 2


def test_a_gauge_shows_its_largest_values_alone() -> None:
    many = {f"m{number}": float(number) for number in range(1000)}
    metrics = Metrics([Gauge(name="queued_requests", help="h", read=lambda: many, label="model")])
    shown = page(metrics)["inventiv_gateway_queued_requests"].samples
    assert sorted(sample.value for sample in shown) == [float(number) for number in range(1000 - MAX_VALUES, 1000)]


def test_labels_of_any_characters_are_read_back_as_they_were() -> None:
    odd = 'a"b\\c\nd{e="f"} é'
    assert value(told({"model_code": odd}), "inventiv_gateway_queue_seconds_count", gen_ai_request_model=odd) == 1


def test_nothing_tells_who_asked() -> None:
    changes = {"organization_id": "secret-org", "api_key_id": "secret-key", "request_id": "secret-request"}
    metrics = told({**changes, "finish_reason": "secret answer", "instance_id": "secret-worker"})
    metrics.refused("no_ready_worker", 503)
    assert b"secret" not in metrics.render()[1]
