"""The CPU's fast path: dense head-major slabs, three matrix products per slab and layer.

A slab `[rows, H_kv, cap, D]` is read whole, over its full `cap`: a narrower view would make the
matrix library copy it. Cells beyond a row's length are masked by a bias of -inf, which does not
stop a NaN: whoever owns the slab keeps every cell of a live row finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from prefixmux_server.attention.base import lower_right_mask


@dataclass(frozen=True)
class SlabRow:
    """One row of the step, at index `row` of its slab.

    Its new tokens stand at `first .. first + count` of the ragged batch and go to cells
    `length - count .. length` of the row, `length` counting all that the last of them sees.
    """

    row: int
    first: int
    count: int
    length: int


class SlabPlan:
    """One slab's part of a step. `keys` `[L, live rows, H_kv, cap, D_k]`, `values` likewise."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Sequence[SlabRow]) -> None:
        self._keys = keys
        self._values = values
        self._tokens = _index([t for r in rows for t in range(r.first, r.first + r.count)])
        self._cells = (
            torch.cat([torch.full((r.count,), r.row) for r in rows]),
            torch.cat([torch.arange(r.length - r.count, r.length) for r in rows]),
        )
        self._plan_decode([r for r in rows if r.count == 1])
        self._prefill = [
            (r, lower_right_mask(r.count, r.length, keys.device)) for r in rows if r.count > 1
        ]

    def _plan_decode(self, rows: Sequence[SlabRow]) -> None:
        """Every live row of the slab takes part, decoding or not: the operands stay dense.

        A row that does not decode now gets a stranger's query and an empty bias; its result is
        dropped.
        """
        _, live, heads, cap, _ = self._keys.shape
        self._decodes = bool(rows)
        self._decode_tokens = _index([r.first for r in rows])
        self._decode_rows = _index([r.row for r in rows])
        take = [0] * live
        for row in rows:
            take[row.row] = row.first
        self._take = _index(take)
        bias = torch.zeros(live, 1, cap, dtype=self._keys.dtype)
        for row in rows:
            bias[row.row, :, row.length :] = float("-inf")
        self._bias = bias.repeat_interleave(heads, dim=0)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, out: Tensor
    ) -> None:
        """Tensors are token-major here: `[T, heads, D]`; the slab's tokens are written to `out`."""
        keys, values = self._keys[layer], self._values[layer]
        keys.transpose(1, 2).index_put_(self._cells, key[self._tokens])
        values.transpose(1, 2).index_put_(self._cells, value[self._tokens])
        if self._decodes:
            result = self._attend_decode(keys, values, query[self._take], scaling)
            out[self._decode_tokens] = result[self._decode_rows]
        for row, mask in self._prefill:
            tokens = slice(row.first, row.first + row.count)
            out[tokens] = _attend_prefill(keys, values, row, query[tokens], mask, scaling)

    def _attend_decode(self, keys: Tensor, values: Tensor, query: Tensor, scaling: float) -> Tensor:
        live, heads, cap, width = keys.shape
        grouped = query.reshape(live * heads, -1, width)
        scores = torch.baddbmm(
            self._bias, grouped, keys.view(live * heads, cap, width).transpose(1, 2), alpha=scaling
        )
        mixed = torch.bmm(scores.softmax(-1), values.view(live * heads, cap, -1))
        return mixed.view(live, query.shape[1], -1)


def _index(values: Sequence[int]) -> slice | Tensor:
    """A slice where the values follow each other, as they mostly do: it copies nothing."""
    if values and list(values) == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.long)


def _attend_prefill(
    keys: Tensor, values: Tensor, row: SlabRow, query: Tensor, mask: Tensor, scaling: float
) -> Tensor:
    """One row's chunk: `query` `[count, H, D]` over the row's first `length` cells."""
    attended = scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0),
        keys[row.row, :, : row.length].unsqueeze(0),
        values[row.row, :, : row.length].unsqueeze(0),
        attn_mask=mask,
        scale=scaling,
        enable_gqa=True,
    )
    return attended.squeeze(0).transpose(0, 1)


class RowsPlan:
    """A step over several slabs, of different capacities."""

    def __init__(self, slabs: Sequence[SlabPlan]) -> None:
        self._slabs = slabs

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        queries, keys, values = (t.transpose(0, 1) for t in (query, key, value))
        out = query.new_empty(queries.shape[0], queries.shape[1], value.shape[2])
        for slab in self._slabs:
            slab.attend(layer, queries, keys, values, scaling, out)
        return out
