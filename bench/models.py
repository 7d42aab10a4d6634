"""Makes a random model with a tokenizer on disk.

Its weights are not the library's initial ones: with those, greedy decoding repeats one token; with
these, each token depends on the prompt, the prefix and all tokens before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.init import normal_
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from bench.shapes import ModelShape

_EMBEDDING_STD = 0.05
_GPT2_STD = 0.1
# Of one output per unit of input. More makes a BART chaotic: it would multiply rounding errors.
_BART_GAIN = 0.8
_LAST_LAYER = 10.0


def save_model(shape: ModelShape, folder: Path) -> None:
    model = _bart(shape) if shape.encodes else _gpt2(shape)
    generator = torch.Generator().manual_seed(0)
    fill = _fill_bart if shape.encodes else _fill_gpt2
    with torch.no_grad():
        fill(model, shape, generator)
    model.save_pretrained(folder)
    _save_tokenizer(shape.vocabulary, folder)


def _fill_gpt2(model: Any, shape: ModelShape, generator: torch.Generator) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = _EMBEDDING_STD if name.endswith(("wte.weight", "wpe.weight")) else _GPT2_STD
            normal_(parameter, std=std, generator=generator)


def _fill_bart(model: Any, shape: ModelShape, generator: torch.Generator) -> None:
    """A GELU's mean is above 0, and would move all tokens the same way, layer after layer: so
    what follows it takes means away. The last layer turns its token into another one, as the
    head, which shares the embeddings, would else find the same again."""
    std = _BART_GAIN / shape.hidden**0.5
    last = f"decoder.layers.{shape.layers - 1}.fc2.weight"
    for name, parameter in model.named_parameters():
        if parameter.ndim != 2:
            continue
        embeds = name.endswith(("shared.weight", "embed_positions.weight"))
        normal_(parameter, std=_EMBEDDING_STD if embeds else std, generator=generator)
        if name.endswith("fc2.weight"):
            parameter -= parameter.mean(dim=1, keepdim=True)
        if name.endswith(last):
            parameter *= _LAST_LAYER


def _gpt2(shape: ModelShape) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.hidden,
            vocab_size=shape.vocabulary,
            n_positions=shape.context,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def _bart(shape: ModelShape) -> Any:
    return BartForConditionalGeneration(
        BartConfig(
            encoder_layers=shape.layers,
            decoder_layers=shape.layers,
            encoder_attention_heads=shape.heads,
            decoder_attention_heads=shape.heads,
            encoder_ffn_dim=4 * shape.hidden,
            decoder_ffn_dim=4 * shape.hidden,
            d_model=shape.hidden,
            vocab_size=shape.vocabulary,
            max_position_embeddings=shape.context,
            forced_eos_token_id=None,
        )
    )


def _save_tokenizer(vocabulary: int, folder: Path) -> None:
    words = {f"w{number}": number for number in range(vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
