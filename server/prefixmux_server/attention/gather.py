"""The reference backend: KV gathered by slot table, then scaled dot-product attention.

Correct on every device and for every head shape; faster backends are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from prefixmux_server.attention.base import lower_right_mask


@dataclass(frozen=True)
class TableRow:
    """One row of the step: its tokens stand at `first .. first + count` of the ragged batch.

    `slots` lists the slots of everything the row sees, in order, its new tokens last.
    """

    first: int
    count: int
    slots: Tensor


@dataclass(frozen=True)
class _Decode:
    """All rows that run one token: one padded table. Padding points at slot 0, always finite."""

    tokens: Tensor
    table: Tensor
    mask: Tensor


@dataclass(frozen=True)
class _Prefill:
    """One row that runs several tokens."""

    tokens: slice
    slots: Tensor
    mask: Tensor


class GatherPlan:
    """A step over `keys [L, slots, H_kv, D_k]` and `values [L, slots, H_kv, D_v]`."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Sequence[TableRow]) -> None:
        self._keys = keys
        self._values = values
        self._write = torch.cat([row.slots[-row.count :] for row in rows])
        self._decode = self._plan_decode([row for row in rows if row.count == 1])
        self._prefill = [self._plan_prefill(row) for row in rows if row.count > 1]

    def _plan_decode(self, rows: Sequence[TableRow]) -> _Decode | None:
        if not rows:
            return None
        device = self._keys.device
        lengths = torch.tensor([len(row.slots) for row in rows], device=device)
        table = pad_sequence([row.slots for row in rows], batch_first=True)
        mask = torch.arange(table.shape[1], device=device) < lengths[:, None]
        tokens = torch.tensor([row.first for row in rows], device=device)
        return _Decode(tokens, table, mask[:, None, None, :])

    def _plan_prefill(self, row: TableRow) -> _Prefill:
        mask = lower_right_mask(row.count, len(row.slots), self._keys.device)
        return _Prefill(slice(row.first, row.first + row.count), row.slots, mask)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(0, self._write, key.transpose(0, 1))
        values.index_copy_(0, self._write, value.transpose(0, 1))
        out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        if self._decode is not None:
            out[self._decode.tokens] = self._attend_decode(
                self._decode, keys, values, query, scaling
            )
        for row in self._prefill:
            out[row.tokens] = self._attend_prefill(row, keys, values, query, scaling)
        return out

    @staticmethod
    def _attend_decode(
        rows: _Decode, keys: Tensor, values: Tensor, query: Tensor, scaling: float
    ) -> Tensor:
        return scaled_dot_product_attention(
            query[:, rows.tokens].transpose(0, 1).unsqueeze(2),
            keys[rows.table].transpose(1, 2),
            values[rows.table].transpose(1, 2),
            attn_mask=rows.mask,
            scale=scaling,
            enable_gqa=True,
        ).squeeze(2)

    @staticmethod
    def _attend_prefill(
        row: _Prefill, keys: Tensor, values: Tensor, query: Tensor, scaling: float
    ) -> Tensor:
        return (
            scaled_dot_product_attention(
                query[:, row.tokens].unsqueeze(0),
                keys[row.slots].transpose(0, 1).unsqueeze(0),
                values[row.slots].transpose(0, 1).unsqueeze(0),
                attn_mask=row.mask,
                scale=scaling,
                enable_gqa=True,
            )
            .squeeze(0)
            .transpose(0, 1)
        )
