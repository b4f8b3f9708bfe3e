"""The gateway's figures as Prometheus text: plain integers, counted while requests end and put into words when asked.

    finished(...) ──>    per (model, operation): counts in fixed buckets ──┐
    refused(code) ──────> count per code                                   ├──> render() ──> GET /metrics
    gauges: callables, asked at that moment ───────────────────────────────┘

Names are those of OpenTelemetry's GenAI conventions in Prometheus' spelling, the rest begins with inventiv_gateway_.
The surprising rule: no label tells whose request it was. Who may read /metrics is an operator; a label per key or
organisation would show each tenant's traffic to them, and there may be 100,000 keys. USAGE has that, per request and
behind its own rights. Models are labels, but MAX_MODELS of them at most: the next ones are counted together.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from gateway.account import Ending
from gateway.counts import Counts

MAX_MODELS = 64
"""A scrape of so many takes the event loop 70 ms, one of ten models 9 ms."""
MAX_CODES = 128
MAX_VALUES = 64
"""Most values of one gauge's label; the largest are shown."""
OTHER = "_other_"
"""Stands for all models, or codes, beyond the bound; no model's code begins so."""

TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864)
DURATION_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN_TIME_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""These four: as OpenTelemetry's GenAI conventions advise, so that dashboards made for other servers fit."""
QUEUE_BUCKETS_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
    "/v1/messages/count_tokens": "tokenize",
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "translation",
    "/v1/audio/speech": "speech",
    "/v1/images/generations": "image_generation",
}
"""Path -> gen_ai.operation.name: a well-known one where there is one."""
_LABELS = ("gen_ai_request_model", "gen_ai_operation_name")


class Gauge(msgspec.Struct, frozen=True):
    """A figure that somebody else keeps.

    Attributes:
        name: without the prefix; ends in its unit.
        read: asked at each scrape, on the event loop. A mapping has one figure for each value of `label`.
    """

    name: str
    help: str
    read: Callable[[], float | Mapping[str, float]]
    label: str = ""


class _Histogram:
    """Counts in buckets; `sum` is an int for tokens, so that it stays exact."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, observations up to it), as Prometheus wants them."""
        total, buckets = 0, list[tuple[str, float]]()
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else str(float(bound)), total))
        return buckets


class _Calls:
    """All requests for one operation of one model."""

    __slots__ = ("audio_s", "cached", "durations", "first_token", "images", "input", "output", "queue", "token_time")

    def __init__(self) -> None:
        self.input = _Histogram(TOKEN_BUCKETS)
        self.output = _Histogram(TOKEN_BUCKETS)
        self.first_token = _Histogram(FIRST_TOKEN_BUCKETS_S)
        self.token_time = _Histogram(TOKEN_TIME_BUCKETS_S)
        self.queue = _Histogram(QUEUE_BUCKETS_S)
        self.durations: dict[str, _Histogram] = {}
        self.cached = 0
        self.audio_s = 0.0
        self.images = 0


class Metrics:
    """Mutable, in memory, for one event loop.

    Args:
        gauges: asked at each scrape.
    """

    def __init__(self, gauges: Iterable[Gauge] = ()) -> None:
        self._gauges = tuple(gauges)
        self._models: set[str] = set()
        self._calls: dict[tuple[str, str], _Calls] = {}
        self._found: dict[tuple[str, str], _Calls] = {}
        self._refusals: Counter[tuple[str, int]] = Counter()
        self._retries = 0
        self._process = ProcessCollector(registry=None)

    def show(self, gauges: Iterable[Gauge]) -> None:
        """Of parts that are made later than this."""
        self._gauges += tuple(gauges)

    def finished(self, model_code: str, endpoint: str, counts: Counts, ending: Ending) -> None:
        """A request that reached a worker has ended, however."""
        calls = self._found.get((model_code, endpoint)) or self._calls_of(model_code, endpoint)
        outcome = ending.outcome
        durations = calls.durations.get(outcome)
        if durations is None:
            durations = calls.durations[outcome] = _Histogram(DURATION_BUCKETS_S)
        durations.observe(ending.duration_ms / 1000)
        if queue_ms := ending.queue_ms:
            calls.queue.observe(queue_ms / 1000)
        else:  # nearly always
            calls.queue.counts[0] += 1
        if outcome == "refused_by_engine":
            return
        calls.input.observe(counts.prompt_tokens)
        calls.output.observe(counts.completion_tokens)
        if (first_ms := ending.ttft_ms) is not None:
            calls.first_token.observe(first_ms / 1000)
        if (between_ms := ending.inter_token_ms) is not None:
            calls.token_time.observe(between_ms / 1000)
        calls.cached += counts.cached_tokens
        calls.audio_s += counts.input_audio_seconds
        calls.images += counts.output_images

    def refused(self, code: str, status: int) -> None:
        """The gateway itself answered with an error."""
        if (code, status) not in self._refusals and len(self._refusals) >= MAX_CODES:
            code = OTHER
        self._refusals[code, status] += 1

    def retried(self) -> None:
        """A request was sent to another worker, since the one before failed."""
        self._retries += 1

    def render(self) -> tuple[str, bytes]:
        """Content type and body of /metrics."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """prometheus_client's Collector."""
        yield from self._of_models()
        yield from self._of_gateway()
        for gauge in self._gauges:
            yield _family(gauge)
        yield from self._process.collect()

    def _calls_of(self, model: str, endpoint: str) -> _Calls:
        """For what was not seen before, and each time for what is counted together with others."""
        operation = _OPERATIONS.get(endpoint)
        is_known = model in self._models or len(self._models) < MAX_MODELS
        if is_known:
            self._models.add(model)
        calls = self._calls.setdefault((model if is_known else OTHER, operation or OTHER), _Calls())
        if is_known and operation:
            self._found[model, endpoint] = calls
        return calls

    def _of_models(self) -> Iterable[Metric]:
        tokens = HistogramMetricFamily(
            "gen_ai_client_token_usage", "Tokens of a request.", labels=[*_LABELS, "gen_ai_token_type"]
        )
        durations = HistogramMetricFamily(
            "gen_ai_server_request_duration_seconds", "From request to its end.", labels=[*_LABELS, "error_type"]
        )
        first_token = HistogramMetricFamily(
            "gen_ai_server_time_to_first_token_seconds", "From request to first byte of content.", labels=_LABELS
        )
        token_time = HistogramMetricFamily(
            "gen_ai_server_time_per_output_token_seconds", "Mean of a request's tokens after the first.", labels=_LABELS
        )
        queue = HistogramMetricFamily("inventiv_gateway_queue_seconds", "Waited for a worker.", labels=_LABELS)
        cached = CounterMetricFamily("inventiv_gateway_cached_tokens", "Of the prompts, by the engine.", labels=_LABELS)
        audio = CounterMetricFamily("inventiv_gateway_input_audio_seconds", "Audio sent to models.", labels=_LABELS)
        images = CounterMetricFamily("inventiv_gateway_output_images", "Images made by models.", labels=_LABELS)
        for labels, calls in self._calls.items():
            for kind, counted in (("input", calls.input), ("output", calls.output)):
                tokens.add_metric([*labels, kind], counted.cumulative(), counted.sum)
            for outcome, counted in calls.durations.items():
                error = "" if outcome == "completed" else outcome
                durations.add_metric([*labels, error], counted.cumulative(), counted.sum)
            first_token.add_metric(labels, calls.first_token.cumulative(), calls.first_token.sum)
            token_time.add_metric(labels, calls.token_time.cumulative(), calls.token_time.sum)
            queue.add_metric(labels, calls.queue.cumulative(), calls.queue.sum)
            cached.add_metric(labels, calls.cached)
            audio.add_metric(labels, calls.audio_s)
            images.add_metric(labels, calls.images)
        return tokens, durations, first_token, token_time, queue, cached, audio, images

    def _of_gateway(self) -> Iterable[Metric]:
        refusals = CounterMetricFamily(
            "inventiv_gateway_refusals", "Requests that the gateway itself refused.", labels=["code", "status"]
        )
        for (code, status), count in self._refusals.items():
            refusals.add_metric([code, str(status)], count)
        yield refusals
        yield CounterMetricFamily(
            "inventiv_gateway_retries", "Requests sent to another worker after one failed.", value=self._retries
        )


def _family(gauge: Gauge) -> Metric:
    told, name = gauge.read(), f"inventiv_gateway_{gauge.name}"
    if not isinstance(told, Mapping):
        return GaugeMetricFamily(name, gauge.help, value=told)
    family = GaugeMetricFamily(name, gauge.help, labels=[gauge.label])
    for value, figure in sorted(told.items(), key=lambda item: -item[1])[:MAX_VALUES]:
        family.add_metric([value], figure)
    return family
