"""What the simulated engine answers without generating: vectors, scores, orders, token counts.

A score is made up from the two texts' lengths, so that it is always the same; a vector is always zero.
"""

from typing import Any

import msgspec

from agent.simulated_requests import TextInput, count_input_tokens, count_tokens, text_of_ids, texts

EMBEDDING = (0.0, 0.0, 0.0)


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    model: str
    input: TextInput


class RerankRequest(msgspec.Struct, kw_only=True):
    model: str
    query: str
    documents: list[str]
    top_n: int = 0


class ScoreRequest(msgspec.Struct, kw_only=True):
    model: str
    text_1: str
    text_2: str | list[str]


class TokenizeRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    prompt: str = ""


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    tokens: list[int]


def embeddings(request: EmbeddingRequest) -> dict[str, Any]:
    tokens = count_input_tokens(request.input)
    return {
        "object": "list",
        "model": request.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": EMBEDDING}
            for index, _ in enumerate(texts(request.input))
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


def reranked(request: RerankRequest, request_id: str) -> dict[str, Any]:
    found = [
        {"index": index, "document": {"text": text}, "relevance_score": _score(request.query, text)}
        for index, text in enumerate(request.documents)
    ]
    found.sort(key=lambda one: -float(one["relevance_score"]))  # type: ignore[arg-type] # a number, see above
    tokens = _pair_tokens(request.query, request.documents)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    shown = found[: request.top_n] if request.top_n else found
    return {"id": f"rerank-{request_id}", "model": request.model, "usage": usage, "results": shown}


def scores(request: ScoreRequest, request_id: str, created: int) -> dict[str, Any]:
    others = [request.text_2] if isinstance(request.text_2, str) else request.text_2
    tokens = _pair_tokens(request.text_1, others)
    return {
        "id": f"score-{request_id}",
        "object": "list",
        "created": created,
        "model": request.model,
        "data": [
            {"index": index, "object": "score", "score": _score(request.text_1, text)}
            for index, text in enumerate(others)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


def tokens_of(request: TokenizeRequest, context_tokens: int) -> dict[str, Any]:
    count = count_tokens(request.prompt)
    return {"count": count, "max_model_len": context_tokens, "tokens": list(range(count)), "token_strs": None}


def text_of(request: DetokenizeRequest) -> dict[str, Any]:
    return {"prompt": text_of_ids(len(request.tokens))}


def _pair_tokens(one: str, others: list[str]) -> int:
    return sum(count_tokens(one) + count_tokens(other) for other in others)


def _score(one: str, other: str) -> float:
    return 1 / (1 + abs(len(one) - len(other)))
