"""A model made by hand that says only what its prefix says, and prefixes that betray themselves.

GPT-2's own class. Queries are one constant vector u, keys and values of the model's own tokens
are zero, a canary prefix's keys are a multiple of u: so all attention goes to the prefix, in equal
shares. Its values are the code of its own token, which the output layer reads off. Without a
prefix the attention adds nothing, and each token names the next one of a reserved cycle. Whatever
is read from elsewhere, even one cell of fifty, moves the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import layer_norm
from transformers import GPT2Config, GPT2LMHeadModel

from prefixmux_store.format import PrefixMeta, RawTensor, encode

VOCABULARY = 1024
RESERVED = 24
"""Tokens 1 .. RESERVED - 1 follow each other for ever; token 0 is never said."""
HIDDEN = 128
HEADS = 2
_STRENGTH = 50.0
_KEY = 8.0


def after(token: int) -> int:
    """What the bare model says after `token`."""
    return 1 + token % (RESERVED - 1)


@dataclass(frozen=True)
class Codes:
    """`rows [VOCABULARY, HIDDEN]`: unit vectors of mean zero, no two of them alike."""

    rows: Tensor

    @staticmethod
    def make() -> Codes:
        drawn = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(0))
        centred = drawn - drawn.mean(dim=1, keepdim=True)
        return Codes(centred / centred.norm(dim=1, keepdim=True))

    @property
    def inputs(self) -> Tensor:
        """What each token's embedding is: half the code of its successor."""
        return self.rows[[after(token) for token in range(VOCABULARY)]] / 2

    def logits(self, said: list[int | None], last: list[int]) -> Tensor:
        """What rows answer: `said` by their prefix (None: no prefix), `last` their last token."""
        heard = torch.tensor([-1 if token is None else token for token in said])
        hidden = _STRENGTH * self.rows[heard] * (heard >= 0)[:, None] + self.inputs[last]
        return layer_norm(hidden, (HIDDEN,)) @ self.rows.T

    def prefix(self, token: int, tokens: int) -> bytes:
        """A native prefix file of `tokens` virtual tokens that says `token`."""
        key = torch.full((tokens, HIDDEN), _KEY)
        value = (_STRENGTH * self.rows[token]).expand(tokens, HIDDEN)
        kv = torch.stack([key, value]).reshape(1, 2, tokens, HEADS, HIDDEN // HEADS)
        raw = RawTensor("F32", tuple(kv.shape), memoryview(kv.contiguous().numpy().tobytes()))
        return encode({"decoder": raw}, PrefixMeta())


@torch.no_grad()
def save_canary(folder: Path, codes: Codes, *, eos: int = 0) -> Path:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=HIDDEN,
        n_layer=1,
        n_head=HEADS,
        n_inner=8,
        n_positions=512,
        tie_word_embeddings=False,
        eos_token_id=eos,
        bos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.zero_()
    block = model.transformer.h[0]
    for norm in (block.ln_1, block.ln_2, model.transformer.ln_f):
        norm.weight.fill_(1.0)
    block.attn.c_attn.bias[:HIDDEN] = 1.0
    block.attn.c_proj.weight.copy_(torch.eye(HIDDEN))
    model.transformer.wte.weight.copy_(codes.inputs)
    model.lm_head.weight.copy_(codes.rows)
    model.save_pretrained(folder)
    return folder
