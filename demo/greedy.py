"""Greedy answers of the demo model, with or without a prefix, many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 180
ROWS = 50


def answers(
    model: LlamaForCausalLM | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
) -> list[str]:
    """What follows each prompt until EOS or `MAX_NEW_TOKENS`, without special tokens."""
    texts: list[str] = []
    for start in range(0, len(prompts), ROWS):
        texts += _answers(model, tokenizer, prompts[start : start + ROWS])
    return texts


def _answers(
    model: LlamaForCausalLM | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
) -> list[str]:
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    with torch.inference_mode():
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
    new = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
