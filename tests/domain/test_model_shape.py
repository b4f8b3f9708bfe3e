"""What a config tells of a model: its weights to the last one, and what a token of context takes."""

from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from domain.model_shape import shape_of_config
from domain.seed_shapes import SEED_CONFIGS, seed_shape

LLAMA = dict(SEED_CONFIGS["meta-llama/Llama-3.1-8B-Instruct"])

STATED = {
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "meta-llama/Meta-Llama-3-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "mistralai/Mixtral-8x22B-Instruct-v0.1": 140_630_071_296,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-2-27b-it": 27_227_128_320,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/Phi-3-medium-4k-instruct": 13_960_238_080,
}
"""Parameters of the files in each repository, as Hugging Face states them beside the model."""


@pytest.mark.parametrize("code", STATED)
def test_the_weights_are_counted_as_the_repository_states_them(code: str) -> None:
    shape = seed_shape(code)
    assert shape is not None
    assert shape.parameters == STATED[code]
    assert shape.weight_bytes == 2 * STATED[code]


def test_every_seeded_model_with_weights_has_a_shape() -> None:
    assert STATED.keys() == SEED_CONFIGS.keys()
    assert seed_shape("mock-echo-model") is None


def test_a_token_of_context_takes_a_key_and_a_value_in_each_layer_and_kv_head() -> None:
    shape = shape_of_config(LLAMA)
    assert shape is not None
    assert (shape.layers, shape.kv_heads, shape.head_dim) == (32, 8, 128)
    assert shape.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2


def test_heads_that_are_not_said_to_be_shared_are_not() -> None:
    config = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
    shape = shape_of_config(config)
    assert shape is not None
    assert shape.kv_heads == shape.attention_heads == 32


def test_what_a_config_says_beyond_is_left_alone() -> None:
    assert shape_of_config({**LLAMA, "rope_scaling": {"factor": 8.0}, "torch_dtype": "bfloat16"}) == shape_of_config(
        LLAMA
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mamba"},
        {"model_type": None},
        {"hidden_size": 0},
        {"hidden_size": "4096"},
        {"num_hidden_layers": -1},
        {"vocab_size": 1 << 40},
        {"num_key_value_heads": 5},
        {"quantization_config": {"quant_method": "secret"}},
        {"quantization_config": {"quant_method": "gptq", "bits": 3}},
    ],
)
def test_what_is_not_understood_is_no_shape(changes: dict[str, Any]) -> None:
    assert shape_of_config({**LLAMA, **changes}) is None


@pytest.mark.parametrize("missing", ["model_type", "hidden_size", "vocab_size", "max_position_embeddings"])
def test_a_missing_number_is_no_shape(missing: str) -> None:
    assert shape_of_config({name: value for name, value in LLAMA.items() if name != missing}) is None


@pytest.mark.parametrize(
    ("quantised", "least_gb", "most_gb"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 5.6, 5.9),  # such files of this model have 5.7 GB
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 5.6, 5.9),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 5.5, 5.8),
        ({"quant_method": "fp8"}, 9.0, 9.2),
    ],
)
def test_quantised_layers_take_less_and_embeddings_do_not(
    quantised: dict[str, Any], least_gb: float, most_gb: float
) -> None:
    shape = shape_of_config({**LLAMA, "quantization_config": quantised})
    assert shape is not None
    assert least_gb <= shape.weight_bytes / 1e9 <= most_gb
    assert shape.parameters == STATED["meta-llama/Llama-3.1-8B-Instruct"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@for_all(st.dictionaries(st.sampled_from([*LLAMA, "head_dim", "quantization_config", "num_local_experts"]), _JSON))
def test_no_config_breaks_the_reader(changes: dict[str, Any]) -> None:
    shape = shape_of_config({**LLAMA, **changes})
    assert shape is None or min(shape.parameters, shape.weight_bytes, shape.kv_bytes_per_token) > 0
