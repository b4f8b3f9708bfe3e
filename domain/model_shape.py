"""What decides whether a model fits into a machine: how much its weights take, and how much each token of context.

    config.json of a repository of weights ──> shape_of_config ──> ModelShape ──> planning.py

Understood are the families llama, mistral, mixtral, qwen2, gemma2 and phi3: the number of weights follows from the
config's numbers alone. The surprising rule: what is not understood to the last weight is no shape at all, since half an
answer would rent machines on which nothing starts.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

MAX_WIDTH = 1 << 20
"""Of any one dimension; a config beyond it is a slip or a joke."""
MAX_CONTEXT_TOKENS = 1 << 30
KV_BYTES = 2
"""A key or value in vLLM's cache, unless somebody asks for a smaller kind."""
SERVED_BYTES = 2
"""A weight that is not quantised: vLLM serves float32 as a 16-bit type, too."""
_QUANTISED_BYTES = {"fp8": 1.0, "fbgemm_fp8": 1.0, "bitsandbytes_8bit": 1.0, "bitsandbytes_4bit": 0.5}


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """A decoder, as it lies in GPU memory.

    Attributes:
        parameters: weights, counted.
        weight_bytes: what they take when they are served.
        head_dim: elements of one key or value; each layer keeps one of both for each KV head and token.
        max_context_tokens: as the model was trained for.
    """

    parameters: int
    weight_bytes: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    max_context_tokens: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Of one sequence, all layers and heads together."""
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES


_Width = Annotated[int, msgspec.Meta(ge=1, le=MAX_WIDTH)]


class _Quantisation(msgspec.Struct, frozen=True):
    quant_method: str = ""
    bits: int = 0
    group_size: int = 128
    load_in_4bit: bool = False
    load_in_8bit: bool = False


class _Config(msgspec.Struct, frozen=True):
    """Hugging Face's names, and their defaults."""

    model_type: Literal["llama", "mistral", "mixtral", "qwen2", "gemma2", "phi3"]
    hidden_size: _Width
    intermediate_size: _Width
    num_hidden_layers: _Width
    num_attention_heads: _Width
    vocab_size: _Width
    max_position_embeddings: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONTEXT_TOKENS)]
    num_key_value_heads: _Width | None = None
    head_dim: _Width | None = None
    num_local_experts: _Width = 8
    tie_word_embeddings: bool | None = None
    quantization_config: _Quantisation | None = None

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads


def shape_of_config(config: Mapping[str, Any]) -> ModelShape | None:
    """Of a config.json as it stands in a repository; None: another family, or a number is missing or makes no sense."""
    try:
        said = msgspec.convert(dict(config), _Config)
    except msgspec.ValidationError:
        return None
    embedded, in_layers = _embedding_weights(said), said.num_hidden_layers * _layer_weights(said)
    weight_bytes = _layer_weight_bytes(said)
    if weight_bytes is None or said.num_attention_heads % said.kv_heads:
        return None
    return ModelShape(
        parameters=embedded + in_layers,
        weight_bytes=round(embedded * SERVED_BYTES + in_layers * weight_bytes),
        layers=said.num_hidden_layers,
        attention_heads=said.num_attention_heads,
        kv_heads=said.kv_heads,
        head_dim=said.head_size,
        max_context_tokens=said.max_position_embeddings,
    )


def _embedding_weights(said: _Config) -> int:
    """Of the table of tokens, of the way back where it is another one, and of the last norm."""
    tied = said.tie_word_embeddings if said.tie_word_embeddings is not None else said.model_type == "gemma2"
    return said.vocab_size * said.hidden_size * (1 if tied else 2) + said.hidden_size


def _layer_weights(said: _Config) -> int:
    hidden, query, key_value = (
        said.hidden_size,
        said.num_attention_heads * said.head_size,
        said.kv_heads * said.head_size,
    )
    attention = hidden * (query + 2 * key_value) + query * hidden
    if said.model_type == "qwen2":
        attention += query + 2 * key_value  # the one family of these whose projections have a bias
    experts = said.num_local_experts if said.model_type == "mixtral" else 0
    feed_forward = 3 * hidden * said.intermediate_size * (experts or 1) + hidden * experts
    norms = hidden * (4 if said.model_type == "gemma2" else 2)
    return attention + feed_forward + norms


def _layer_weight_bytes(said: _Config) -> float | None:
    """Of each weight in a layer, on average; None for a way of quantising that is not known here."""
    quantised = said.quantization_config
    if quantised is None:
        return SERVED_BYTES
    if quantised.quant_method in {"gptq", "awq"} and quantised.bits in {4, 8}:
        # Each group of weights has a scale of two bytes and a zero point of its own.
        return quantised.bits / 8 + ((2 + quantised.bits / 8) / quantised.group_size if quantised.group_size > 0 else 0)
    method = quantised.quant_method
    if method == "bitsandbytes":
        method += "_4bit" if quantised.load_in_4bit else "_8bit"
    return _QUANTISED_BYTES.get(method)
