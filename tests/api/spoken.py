"""A tiny model that can chat, its truth, and a server of it for OpenAI's clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import torch
from api.served import Served
from service.fakes import EOS, EOS_TEXT, VOCABULARY, tokenizer
from support.models import save_tiny
from transformers import DynamicCache, GPT2Config, PreTrainedModel, PreTrainedTokenizerFast

from prefixmux_store.format import PrefixMeta, RawTensor, encode

LAYERS, HEADS, DIM, POSITIONS = 2, 4, 8, 512
CHAT_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}
{% if message.role == 'assistant' and loop.first %}
{{ raise_exception('The user speaks first') }}
{% endif %}
<{{ message.role }}>{{ message.content | trim }}
{% endfor %}
{% if add_generation_prompt %}<assistant>{% endif %}"""


def save_chat_model(folder: Path) -> Path:
    """Also its tokenizer, which puts no special token around a text."""
    config = GPT2Config(
        n_embd=HEADS * DIM,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=POSITIONS,
        vocab_size=VOCABULARY,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    save_tiny(config, folder)
    fast = fast_tokenizer()
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


def fast_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), eos_token=EOS_TEXT, bos_token=EOS_TEXT
    )


def prefix(tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((LAYERS, 2, tokens, HEADS, DIM), generator=generator)


def put(server: Served, task_id: str, values: torch.Tensor) -> None:
    tensor = RawTensor("F32", tuple(values.shape), memoryview(values.numpy().tobytes()))
    content = encode({"decoder": tensor}, PrefixMeta())
    answer = server.client.put(f"/prefixes/{task_id}", content=content)
    assert answer.status_code in (200, 201), answer.text


def client_of(server: Served, **options: Any) -> openai.OpenAI:
    address = str(server.client.base_url).rstrip("/")
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, **options)


@torch.inference_mode()
def logprobs_of(
    model: PreTrainedModel, token_ids: Sequence[int], values: torch.Tensor | None = None
) -> torch.Tensor:
    """`[tokens, vocabulary]` by the model's own forward pass, behind a prefix: row i is what it
    expects behind token i."""
    cache, start = DynamicCache(), 0
    if values is not None:
        start = values.shape[2]
        for layer, (key, value) in enumerate(values):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    positions = torch.arange(start, start + len(token_ids))
    output = model(
        input_ids=torch.tensor([list(token_ids)]),
        position_ids=positions[None],
        past_key_values=cache,
        use_cache=True,
    )
    return torch.log_softmax(output.logits[0].double(), -1)
