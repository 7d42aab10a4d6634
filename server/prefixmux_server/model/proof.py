"""The proof at load time: our ragged steps against the model's own eager forward and cache.

That every layer calls our attention says nothing of biases, caps or positions. So three rows, two
behind random prefixes and one of those at the end of the context, run through our layout in chunks
and together; the model itself, with its own attention and a `DynamicCache`, must give the same
logits for each alone. What is proven is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from prefixmux_server.memory.layout import KVLayout, Lease, Segment, SiteSpec, Span
from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
from prefixmux_server.model.binding import ATTENTION_NAME
from prefixmux_server.model.causal import CausalModel
from prefixmux_server.model.errors import UnsupportedModelError

_PREFIX_TOKENS = 3
_TOLERANCE = {torch.float32: 5e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class _Trial:
    """One row: its tokens, and the prefix before them."""

    token_ids: tuple[int, ...]
    prefix: PrefixKV


class Proof:
    """Made while the module is as it was loaded, checked when all that speeds it up is in place."""

    def __init__(self, module: PreTrainedModel, spec: SiteSpec) -> None:
        self._name = type(module).__name__
        self._dtype = module.dtype
        self._trials = _trials(module, spec)
        self._expected = [_reference(module, trial) for trial in self._trials]

    def check(self, model: CausalModel, layout: KVLayout) -> None:
        """Raises UnsupportedModelError if any logit differs by more than rounding explains."""
        found = _through_layout(model, layout, self._trials)
        for ours, theirs in zip(found, self._expected, strict=True):
            worst = float((ours - theirs).abs().max())
            if not worst <= _TOLERANCE[self._dtype] * max(1.0, float(theirs.abs().max())):
                raise UnsupportedModelError(
                    f"{self._name} gives other logits behind a prefix than its own code does "
                    f"(worst difference {worst:.3g}): this model cannot be served"
                )


def _trials(module: PreTrainedModel, spec: SiteSpec) -> list[_Trial]:
    """The last one is far: some models scale every row's positions by the farthest of the batch."""
    generator = torch.Generator().manual_seed(0)
    config = module.config.get_text_config()
    vocabulary = int(config.vocab_size)
    context = getattr(config, "max_position_embeddings", None)

    def trial(prefix_tokens: int, tokens: int, offset: int | None = None) -> _Trial:
        ids = torch.randint(vocabulary, (tokens,), generator=generator).tolist()
        shape = (spec.layers, 2, prefix_tokens, spec.kv_heads, spec.k_dim)
        kv = torch.randn(shape, generator=generator).to(module.dtype)
        key = PrefixKey("", f"trial-{prefix_tokens}")
        shift = prefix_tokens if offset is None else offset
        return _Trial(tuple(ids), PrefixKV(key, {DECODER: kv}, {DECODER: shift}))

    trials = [trial(0, 5), trial(_PREFIX_TOKENS, 4)]
    if context is not None and context >= 4:
        trials.append(trial(2, 4, offset=int(context) - 4))
    return trials


@torch.inference_mode()
def _reference(module: PreTrainedModel, trial: _Trial) -> Tensor:
    """Logits after the last token, by the model's own code."""
    cache = DynamicCache()
    prefix = trial.prefix.sites[DECODER].to(module.device)
    if prefix.shape[2]:
        for layer, (key, value) in enumerate(prefix):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    start = trial.prefix.offset()
    module.set_attn_implementation("eager")
    try:
        output = module(
            input_ids=torch.tensor([trial.token_ids], device=module.device),
            position_ids=torch.arange(start, start + len(trial.token_ids), device=module.device)[
                None
            ],
            past_key_values=cache,
            use_cache=True,
        )
    finally:
        module.set_attn_implementation(ATTENTION_NAME)
    return cast(Tensor, output.logits[0, -1]).float()


def _through_layout(model: CausalModel, layout: KVLayout, trials: Sequence[_Trial]) -> list[Tensor]:
    """The same by our steps: all but each row's last token first, then the last ones together."""
    placements = [layout.place(trial.prefix) for trial in trials]
    segments = [[Segment(placement)] for placement in placements if placement is not None]
    leases = [
        layout.admit(held, len(trial.token_ids))
        for held, trial in zip(segments, trials, strict=True)
    ]
    rows = [(lease, t.token_ids) for lease, t in zip(leases, trials, strict=True) if lease]
    assert len(rows) == len(trials), "the trial layout is too small"
    _run(model, layout, [(lease, ids, 0, len(ids) - 1) for lease, ids in rows])
    logits = _run(model, layout, [(lease, ids, len(ids) - 1, 1) for lease, ids in rows])
    for lease, _ in rows:
        layout.release(lease)
    for placement in placements:
        assert placement is not None
        layout.displace(placement)
    return list(logits.float())


def _run(
    model: CausalModel, layout: KVLayout, rows: Sequence[tuple[Lease, tuple[int, ...], int, int]]
) -> Tensor:
    tokens: list[int] = []
    positions: list[int] = []
    keep: list[int] = []
    for lease, ids, start, count in rows:
        tokens += ids[start : start + count]
        first = lease.position_offset + start
        positions += range(first, first + count)
        keep.append(len(tokens) - 1)
    plan = layout.plan([Span(lease, start, count) for lease, _, start, count in rows])
    return model.forward(tokens, positions, keep, plan)
