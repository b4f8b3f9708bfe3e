"""The simulated engine's counters, and the Prometheus page that shows them under vLLM's own names.

A small cache of prompt prefixes (blocks of 16 tokens, the oldest leaves first) makes the prefix figures move as vLLM's
do: a prompt that begins like an earlier one hits. Aborted requests are counted too, which is how a test sees that a
client who went away freed the engine.
"""

from collections import Counter, OrderedDict

from agent.simulated_reply import Answer
from agent.simulated_requests import CHARACTERS_PER_TOKEN

TTFT_BUCKETS_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
)
BLOCK_TOKENS = 16
CACHE_BLOCKS = 4096


class Metrics:
    """One engine's figures; requests are counted when they end, tokens when they happen."""

    def __init__(self, model: str) -> None:
        self._labels = f'engine="0",model_name="{_escaped(model)}"'
        self.running = 0
        self.waiting = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.tokens_in_flight = 0
        self._queried_tokens = 0
        self._hit_tokens = 0
        self._ended: Counter[str] = Counter()
        self._first_tokens_s: list[int] = [0] * (len(TTFT_BUCKETS_S) + 1)
        self._first_token_sum_s = 0.0
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def prompt_read(self, answer: Answer) -> None:
        self.prompt_tokens += answer.prompt_tokens
        self._queried_tokens += answer.prompt_tokens
        self._hit_tokens += min(answer.prompt_tokens, self._cached_blocks(answer.prompt) * BLOCK_TOKENS)

    def first_token(self, after_s: float) -> None:
        bucket = next((at for at, most in enumerate(TTFT_BUCKETS_S) if after_s <= most), len(TTFT_BUCKETS_S))
        self._first_tokens_s[bucket] += 1
        self._first_token_sum_s += after_s

    def ended(self, reason: str) -> None:
        """`reason` is stop, length or abort; a call of a tool is a stop to the engine."""
        self._ended["stop" if reason == "tool_calls" else reason] += 1

    def _cached_blocks(self, prompt: str) -> int:
        """How many leading blocks were known; all of them are known afterwards."""
        size, digest, hits, hitting = BLOCK_TOKENS * CHARACTERS_PER_TOKEN, 0, 0, True
        for at in range(size, len(prompt) + 1, size):
            digest = hash((digest, prompt[at - size : at]))
            hitting = hitting and digest in self._blocks
            hits += hitting
            self._blocks[digest] = None
            self._blocks.move_to_end(digest)
        while len(self._blocks) > CACHE_BLOCKS:
            self._blocks.popitem(last=False)
        return hits

    def page(self) -> str:
        in_use = min(1.0, self.tokens_in_flight / (CACHE_BLOCKS * BLOCK_TOKENS))
        lines = [
            *self._series("gauge", "vllm:num_requests_running", self.running),
            *self._series("gauge", "vllm:num_requests_waiting", self.waiting),
            *self._series("gauge", "vllm:kv_cache_usage_perc", in_use),
            *self._series("counter", "vllm:prompt_tokens_total", self.prompt_tokens),
            *self._series("counter", "vllm:generation_tokens_total", self.generation_tokens),
            *self._series("counter", "vllm:prefix_cache_queries_total", self._queried_tokens),
            *self._series("counter", "vllm:prefix_cache_hits_total", self._hit_tokens),
            "# TYPE vllm:request_success_total counter",
            *(
                f'vllm:request_success_total{{{self._labels},finished_reason="{reason}"}} {float(self._ended[reason])}'
                for reason in ("stop", "length", "abort")
            ),
            *self._histogram("vllm:time_to_first_token_seconds"),
        ]
        return "\n".join(lines) + "\n"

    def _series(self, kind: str, name: str, value: float) -> list[str]:
        return [f"# TYPE {name} {kind}", f"{name}{{{self._labels}}} {float(value)}"]

    def _histogram(self, name: str) -> list[str]:
        lines, total = [f"# TYPE {name} histogram"], 0
        for most, count in zip((*map(str, TTFT_BUCKETS_S), "+Inf"), self._first_tokens_s, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{self._labels},le="{most}"}} {float(total)}')
        sums = (
            f"{name}_sum{{{self._labels}}} {self._first_token_sum_s}",
            f"{name}_count{{{self._labels}}} {float(total)}",
        )
        return [*lines, *sums]


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
