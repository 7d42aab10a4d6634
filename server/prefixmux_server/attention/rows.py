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

from prefixmux_server.attention.rules import PLAIN, ScoreRules
from prefixmux_server.attention.scores import attend_block, block_mask, relative_bias, soft_capped

# Of one row that is only read, more queries than this are better off alone than padded together.
_MOST_SHARED_QUERIES = 16


@dataclass(frozen=True, eq=False)
class SlabRow:
    """One row of the step, at index `row` of its slab; its queries see `length` cells.

    `queries` are tokens of the ragged batch. `written` are those of the step's keys and values
    that go to the row's cells up to `length`. Queries of a `causal` row are its written tokens:
    none sees the cells after its own. `positions` are those of the cells, where rules need them.
    """

    row: int
    queries: Sequence[int]
    written: range
    length: int
    causal: bool = True
    positions: Tensor | None = None

    @property
    def dense(self) -> bool:
        """Whether it is computed together with the other rows of its slab."""
        return len(self.queries) <= (1 if self.causal else _MOST_SHARED_QUERIES)


class SlabPlan:
    """One slab's part of a step. `keys` `[L, live rows, H_kv, cap, D_k]`, `values` likewise;
    `rules` per layer, none given means all plain."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        rows: Sequence[SlabRow],
        rules: Sequence[ScoreRules] = (),
    ) -> None:
        self._keys = keys
        self._values = values
        self._rules = rules or (PLAIN,) * keys.shape[0]
        written = [row for row in rows if row.written]
        self._written = _index([token for row in written for token in row.written])
        self._cells = _cells(written) if written else None
        dense = [row for row in rows if row.dense and row.queries]
        self._dense = _DenseRows(keys, dense) if dense else None
        self._blocks = [_Block(row) for row in rows if not row.dense]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, out: Tensor
    ) -> None:
        """Tensors are token-major here: `[T, heads, D]`; the slab's tokens are written to `out`."""
        keys, values, rule = self._keys[layer], self._values[layer], self._rules[layer]
        if self._cells is not None:
            keys.transpose(1, 2).index_put_(self._cells, key[self._written])
            values.transpose(1, 2).index_put_(self._cells, value[self._written])
        if self._dense is not None:
            self._dense.attend(rule, query, keys, values, scaling, out)
        for block in self._blocks:
            block.attend(rule, query, keys, values, scaling, out)


class _DenseRows:
    """All rows of a slab that run few queries, as one batch of matrix products.

    Every live row takes part, asked or not: the operands stay dense. A row that is not asked now
    gets a stranger's query and an empty bias; its result is dropped, and so are those of the
    queries that fill up rows with fewer than the most.
    """

    def __init__(self, keys: Tensor, rows: Sequence[SlabRow]) -> None:
        _, live, self._heads, cap, _ = keys.shape
        self._rows = rows
        self._most = most = max(len(row.queries) for row in rows)
        take = [0] * (live * most)
        for row in rows:
            take[row.row * most : row.row * most + len(row.queries)] = row.queries
        self._take = _index(take)
        self._tokens = _index([token for row in rows for token in row.queries])
        self._found = _index([row.row * most + q for row in rows for q in range(len(row.queries))])
        bias = torch.zeros(live, 1, cap, dtype=keys.dtype)
        for row in rows:
            bias[row.row, :, row.length :] = float("-inf")
        self._bias = bias.repeat_interleave(self._heads, dim=0)
        self._biases: dict[ScoreRules, Tensor] = {}

    def attend(
        self,
        rule: ScoreRules,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        out: Tensor,
    ) -> None:
        live, heads, cap, width = keys.shape
        asked = query[self._take].view(live, self._most, heads, -1, width)
        grouped = asked.transpose(1, 2).reshape(live * heads, -1, width)
        flat = keys.view(live * heads, cap, width).transpose(1, 2)
        scores = self._scores(rule, grouped, flat, scaling)
        mixed = torch.bmm(scores.softmax(-1), values.view(live * heads, cap, -1))
        found = mixed.view(live, heads, self._most, -1, mixed.shape[-1]).transpose(1, 2)
        out[self._tokens] = found.reshape(live * self._most, *out.shape[1:])[self._found]

    def _scores(self, rule: ScoreRules, query: Tensor, keys: Tensor, scaling: float) -> Tensor:
        bias = self._bias_of(rule, query.shape[1])
        if rule.softcap is None:
            return torch.baddbmm(bias, query, keys, alpha=scaling)
        return soft_capped(torch.bmm(query, keys) * scaling, rule.softcap) + bias

    def _bias_of(self, rule: ScoreRules, groups: int) -> Tensor:
        if not rule.positional:
            return self._bias
        if rule not in self._biases:
            self._biases[rule] = self._positional_bias(rule, groups)
        return self._biases[rule]

    def _positional_bias(self, rule: ScoreRules, groups: int) -> Tensor:
        """`[live * H_kv, G, cap]` of rows with one query each."""
        assert self._most == 1, "positions are known of rows with one query only"
        live, cap = self._bias.shape[0] // self._heads, self._bias.shape[2]
        bias = self._bias.view(live, self._heads, 1, cap).repeat(1, 1, groups, 1)
        for row in self._rows:
            assert row.positions is not None, "these rules need positions"
            seen = row.positions[: row.length]
            distance = seen - row.positions[row.length - 1]
            target = bias[row.row, :, :, : row.length]
            if rule.bias is not None:
                target += relative_bias(rule.bias, distance[None]).view(target.shape)
            if rule.window is not None:
                target.masked_fill_(distance <= -rule.window, float("-inf"))
        return bias.view(-1, groups, cap)


class _Block:
    """One row's many queries over the first `length` cells of the row."""

    def __init__(self, row: SlabRow) -> None:
        self._row = row
        self._queries = _index(row.queries)
        self._masks: dict[ScoreRules, Tensor | None] = {}

    def attend(
        self,
        rule: ScoreRules,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        out: Tensor,
    ) -> None:
        row, length = self._row.row, self._row.length
        attended = attend_block(
            rule,
            query[self._queries].transpose(0, 1).unsqueeze(0),
            keys[row, :, :length].unsqueeze(0),
            values[row, :, :length].unsqueeze(0),
            self._mask(rule, query),
            scaling,
        )
        out[self._queries] = attended.squeeze(0).transpose(0, 1)

    def _mask(self, rule: ScoreRules, like: Tensor) -> Tensor | None:
        if rule not in self._masks:
            r = self._row
            mask = block_mask(rule, r.causal, len(r.queries), r.length, r.positions, like)
            self._masks[rule] = mask
        return self._masks[rule]


def _cells(rows: Sequence[SlabRow]) -> tuple[Tensor, Tensor]:
    """Rows and cells that the step's new keys and values go to."""
    return (
        torch.cat([torch.full((len(row.written),), row.row) for row in rows]),
        torch.cat([torch.arange(row.length - len(row.written), row.length) for row in rows]),
    )


def _index(values: Sequence[int]) -> slice | Tensor:
    """A slice where the values follow each other, as they mostly do: it copies nothing."""
    if values and list(values) == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.long)


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
