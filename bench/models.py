"""Makes a random model with a tokenizer on disk.

The weights are larger than the models' own initialisation: with that, greedy decoding repeats one
token; with these, each token depends on all before it.
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
_WEIGHT_STD = 0.1
_EMBEDDINGS = ("wte.weight", "wpe.weight", "shared.weight", "embed_positions.weight")


def save_model(shape: ModelShape, folder: Path) -> None:
    model = _bart(shape) if shape.encodes else _gpt2(shape)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = _EMBEDDING_STD if name.endswith(_EMBEDDINGS) else _WEIGHT_STD
            normal_(parameter, std=std, generator=generator)
    model.save_pretrained(folder)
    _save_tokenizer(shape.vocabulary, folder)


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
