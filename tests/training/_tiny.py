"""Tokenizers and random language models small enough to be made in a test; transformers and tokenizers are needed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from egtmetrics.paper.prompts import ANSWER_START, SYSTEM_PROMPT, USER_PROMPT, messages
from egtmetrics.training.prompts import PromptedTexts, tokenise

TEXTS = [
    "English poet (1830-1894)",
    "French philosopher and mathematician; considered the father of modern philosophy (1596-1650)",
    "Polish chemist",
    "United States composer and conductor noted for ballets (1900-1990)",
    "Italian painter of the Renaissance",
    "Swedish botanist who devised a system of naming plants and animals and was much travelled (1707-1778)",
    "German king",
    "Scottish engineer noted for roads and canals (1757-1834)",
    "Irish dramatist (1856-1950)",
    "Danish physicist; the founder of electromagnetism",
]
GROUPS = [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]

CHATML = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
LLAMA = (
    "{% if not date_string is defined %}"
    "{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "<|start|>system\nToday Date: {{ date_string }}<|end|>\n" + CHATML
)
"""Tells the date, as LLaMA 3.2's does."""
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)


def tokenizer(template: str | None = CHATML, *, end: str = "<|end|>") -> Any:
    """Byte-level BPE that has seen the prompt and the texts; pads with the token that ends an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|begin|>", "<|start|>", end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([SYSTEM_PROMPT, USER_PROMPT, "A Biography", *TEXTS] * 3, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin|>",
        eos_token=end,
        pad_token=end,
        additional_special_tokens=["<|start|>"],
    )
    made.chat_template = template
    return made


def biographies(
    tokenizer: Any,
    texts: Sequence[str] = TEXTS,
    groups: Any = GROUPS,
    *,
    attributes: Sequence[str | None] | None = None,
    max_length: int | None = None,
) -> PromptedTexts:
    """Rows of the paper's prompt and these texts as answers."""
    prompts = [messages(attribute) for attribute in attributes or [None] * len(texts)]
    return tokenise(tokenizer, prompts, [ANSWER_START + text for text in texts], groups, max_length=max_length)


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapters in a folder."""
    from peft import PeftModel

    with warnings.catch_warnings():  # of transformers, about what peft reads
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return PeftModel.from_pretrained(model, str(folder)).eval()


def llama(vocabulary: int, *, seed: int = 0, spread: float = 0.1, **options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=vocabulary, num_key_value_heads=2, initializer_range=spread, **_ENDS, **{**sizes, **options}
    )
    return _seeded(LlamaForCausalLM, config, seed)


def gpt2(vocabulary: int, *, seed: int = 0) -> Any:
    """GPT-2, which learns a vector for each absolute position."""
    from transformers import GPT2Config, GPT2LMHeadModel

    none = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=512, n_embd=32, n_layer=2, n_head=4, initializer_range=0.1, **none, **_ENDS
    )
    return _seeded(GPT2LMHeadModel, config, seed)


def gemma(vocabulary: int, *, seed: int = 0) -> Any:
    """Gemma 3, whose layers look back either 16 tokens, a part of the prompt, or all the way."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.1,
        **_ENDS,
    )
    return _seeded(Gemma3ForCausalLM, config, seed)


_ENDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 2}


def _seeded(architecture: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return architecture(config).eval()
