"""Makes a tiny Llama with random weights: a real model for a real engine, of no use but to speak the protocol.

    one paragraph --train--> byte-level BPE tokenizer + chat template ┐
    a configuration of two layers, a fixed seed --> random weights    ┴─> one folder that vLLM can serve

It runs inside the engine's own environment, as a script, and so imports nothing of this project.
"""

import sys
from pathlib import Path

import tokenizers  # type: ignore[import-not-found, unused-ignore]  # lives in the engine's environment only
import torch  # type: ignore[import-not-found, unused-ignore]  # the same
import transformers  # type: ignore[import-not-found, unused-ignore]  # the same

VOCABULARY_SIZE = 512
CONTEXT_TOKENS = 2048
SEED = 7

BEGIN, END = "<|begin|>", "<|end|>"

TRAINING_TEXT = (
    "A model answers the question that it was asked, one token after the other, and the meter counts each of them."
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(target)
    _model(tokenizer).save_pretrained(target)


def _tokenizer() -> "transformers.PreTrainedTokenizerFast":
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TRAINING_TEXT], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
    )


def _model(tokenizer: "transformers.PreTrainedTokenizerFast") -> "transformers.LlamaForCausalLM":
    torch.manual_seed(SEED)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
