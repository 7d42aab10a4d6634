"""What a model's own code answers: eager attention, its masks, positions and cache, one row alone.

Encoder-decoder models have no cache for what stands before an encoder's keys; there an eager
attention of our own puts it in front, and leaves all else to the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedModel,
)
from transformers.masking_utils import eager_mask

from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER, PrefixKV
from prefixmux_server.model.binding import Binding
from prefixmux_server.model.interface import ATTENTION_NAME, use_attention
from prefixmux_server.model.trial import Trial

_REFERENCE_NAME = "prefixmux-reference"


def own_logits(module: PreTrainedModel, binding: Binding, trial: Trial) -> Tensor:
    """`[tokens, vocabulary]` after each of the row's tokens, virtual ones not counted."""
    if binding.encodes:
        return _seq2seq_logits(module, binding, trial)
    return _causal_logits(module, trial)


@torch.inference_mode()
def _causal_logits(module: PreTrainedModel, trial: Trial) -> Tensor:
    device = module.device
    ids = torch.tensor([trial.token_ids], device=device)
    embeddings = _with_virtual(module.get_input_embeddings(), ids, trial.virtual)
    start = trial.prefix.offset() + trial.shift
    with own_attention(module):
        output = module(
            **({"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}),
            position_ids=torch.arange(start, start + _length(ids, embeddings), device=device)[None],
            past_key_values=_primed(trial.prefix, device),
            use_cache=True,
        )
    return cast(Tensor, output.logits[0, -ids.shape[1] :]).float()


@torch.inference_mode()
def _seq2seq_logits(module: PreTrainedModel, binding: Binding, trial: Trial) -> Tensor:
    """A decoder prefix with an offset goes into the model's own cache, which shifts positions; one
    without is put in front like those of the other sites.
    """
    device = module.device
    ids = torch.tensor([trial.encoder_ids], device=device)
    embeddings = _with_virtual(module.get_encoder().get_input_embeddings(), ids, trial.virtual)
    shifts = trial.prefix.offset() > 0
    cache = _primed(trial.prefix if shifts else None, device)
    _register_reference()
    with own_attention(module, _REFERENCE_NAME):
        output = module(
            **({"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}),
            decoder_input_ids=torch.tensor([trial.token_ids], device=device),
            past_key_values=EncoderDecoderCache(cache, DynamicCache()),
            use_cache=True,
            prefixmux_fronts=_fronts(binding, trial.prefix, in_cache=shifts),
        )
    return cast(Tensor, output.logits[0]).float()


@contextmanager
def own_attention(module: PreTrainedModel, name: str = "eager") -> Iterator[None]:
    """The model as transformers runs it, for a while."""
    use_attention(module, name)
    try:
        yield
    finally:
        use_attention(module, ATTENTION_NAME)


def _with_virtual(module: nn.Module, ids: Tensor, virtual: Tensor | None) -> Tensor | None:
    """What PEFT gives the model for virtual tokens and real ones; None where ids do."""
    if virtual is None:
        return None
    real = cast(Tensor, module(ids))
    return torch.cat([virtual.to(real)[None], real], dim=1)


def _length(ids: Tensor, embeddings: Tensor | None) -> int:
    return int((ids if embeddings is None else embeddings).shape[1])


def _primed(prefix: PrefixKV | None, device: torch.device) -> DynamicCache:
    cache = DynamicCache()
    if prefix is not None and prefix.tokens():
        for layer, (key, value) in enumerate(prefix.sites[DECODER].to(device)):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    return cache


def _fronts(binding: Binding, prefix: PrefixKV, *, in_cache: bool) -> Mapping[nn.Module, Tensor]:
    """By attention module, `[2, H_kv, P, D]`."""
    sites = [ENCODER, CROSS] if in_cache else [ENCODER, CROSS, DECODER]
    return {
        module: prefix.sites[site][layer].transpose(1, 2)
        for module, (site, layer) in binding.places.items()
        if site in sites and prefix.tokens(site)
    }


def _register_reference() -> None:
    AttentionInterface.register(_REFERENCE_NAME, _eager)
    AttentionMaskInterface.register(_REFERENCE_NAME, eager_mask)


def _eager(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    prefixmux_fronts: Mapping[nn.Module, Tensor],
    position_bias: Tensor | None = None,
    **_: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """Masks and biases say nothing of what is put in front: it is seen, and gets no bias."""
    front = prefixmux_fronts.get(module)
    tokens = 0 if front is None else front.shape[2]
    if front is not None:
        key = torch.cat([front[None, 0].to(key), key], dim=2)
        value = torch.cat([front[None, 1].to(value), value], dim=2)
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scores = query @ key.transpose(2, 3) * scaling
    for addend in (position_bias, attention_mask):
        if addend is not None:
            scores = scores + pad(addend, (tokens, 0))
    out = scores.softmax(-1) @ value
    return out.transpose(1, 2).contiguous(), None
