"""Shapes of the models that the catalogue starts with, each from the numbers in its repository's public config.json.

They are written down as configs, so that the count of weights is derived here as it is for everybody's own models. The
derived counts equal those that the repositories state for their files (tests/domain/test_model_shape.py).
"""

from collections.abc import Mapping
from typing import Any

from domain.model_shape import ModelShape, shape_of_config


def _config(
    family: str, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int, context: int
) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }


_LLAMA_8B = _config("llama", 4096, 14336, 32, 32, 8, 128256, 8192)
_LLAMA_70B = _config("llama", 8192, 28672, 80, 64, 8, 128256, 8192)
_LONG = {"max_position_embeddings": 131072}
_TIED = {"tie_word_embeddings": True}

SEED_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_8B,
    "meta-llama/Meta-Llama-3-70B-Instruct": _LLAMA_70B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B | _LONG,
    "meta-llama/Llama-3.1-70B-Instruct": _LLAMA_70B | _LONG,
    "mistralai/Mistral-7B-Instruct-v0.2": _config("mistral", 4096, 14336, 32, 32, 8, 32000, 32768),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": _config("mixtral", 4096, 14336, 32, 32, 8, 32000, 32768),
    "mistralai/Mixtral-8x22B-Instruct-v0.1": _config("mixtral", 6144, 16384, 56, 48, 8, 32768, 65536),
    "Qwen/Qwen2.5-0.5B-Instruct": _config("qwen2", 896, 4864, 24, 14, 2, 151936, 32768) | _TIED,
    "Qwen/Qwen2.5-7B-Instruct": _config("qwen2", 3584, 18944, 28, 28, 4, 152064, 32768),
    "Qwen/Qwen2.5-14B-Instruct": _config("qwen2", 5120, 13824, 48, 40, 8, 152064, 32768),
    "Qwen/Qwen2.5-32B-Instruct": _config("qwen2", 5120, 27648, 64, 40, 8, 152064, 32768),
    "Qwen/Qwen2.5-72B-Instruct": _config("qwen2", 8192, 29568, 80, 64, 8, 152064, 32768),
    "google/gemma-2-9b-it": _config("gemma2", 3584, 14336, 42, 16, 8, 256000, 8192) | _TIED | {"head_dim": 256},
    "google/gemma-2-27b-it": _config("gemma2", 4608, 36864, 46, 32, 16, 256000, 8192) | _TIED | {"head_dim": 128},
    "microsoft/Phi-3-mini-4k-instruct": _config("phi3", 3072, 8192, 32, 32, 32, 32064, 4096),
    "microsoft/Phi-3-medium-4k-instruct": _config("phi3", 5120, 17920, 40, 40, 10, 32064, 4096),
}


def seed_shape(code: str) -> ModelShape | None:
    """None for the models that have no weights to speak of."""
    config = SEED_CONFIGS.get(code)
    return shape_of_config(config) if config is not None else None
