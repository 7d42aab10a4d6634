"""The CPU's fast path: attention over pages, all rows of a step in two batched matrix products.

Memory is `[pages, H_kv, page, D]`, the pages in use dense in the front, each with one owner. A
product over all of them takes as long as there are pages in use, whatever lengths the rows have;
slabs of equally long rows, one product for each, took longer the more lengths there were.

Cells beyond a row's length are masked by a bias of -inf, which does not stop a NaN: whoever owns
the memory keeps every cell of a page in use finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefixmux_server.attention.dense import DenseRows
from prefixmux_server.attention.rules import PLAIN, ScoreRules
from prefixmux_server.attention.scores import attend_block, block_mask
from prefixmux_server.attention.tokens import index

# Of one row that is only read, more queries than this are better off alone than padded together.
_MOST_SHARED_QUERIES = 16


@dataclass(frozen=True, eq=False)
class PagedRow:
    """One row of the step, whose cells fill `pages` in order; its queries see `length` of them.

    `queries` are tokens of the ragged batch. `written` are those of the step's keys and values
    that go to the row's cells up to `length`. Queries of a `causal` row are its written tokens:
    none sees the cells after its own. `positions` are those of the cells, where rules need them.
    """

    pages: Sequence[int]
    queries: Sequence[int]
    written: range
    length: int
    causal: bool = True
    positions: Tensor | None = None

    @property
    def dense(self) -> bool:
        """Whether it is computed together with others."""
        return len(self.queries) <= (1 if self.causal else _MOST_SHARED_QUERIES)


class PagesPlan:
    """A step over `keys` `[L, pages in use, H_kv, page, D_k]`, `values` likewise; `rules` per
    layer, none given means all plain."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        rows: Sequence[PagedRow],
        rules: Sequence[ScoreRules] = (),
    ) -> None:
        self._keys = keys
        self._values = values
        self._rules = rules or (PLAIN,) * keys.shape[0]
        written = [row for row in rows if row.written]
        self._written = index([token for row in written for token in row.written])
        self._cells = _cells(written, keys.shape[3]) if written else None
        dense = [row for row in rows if row.dense and row.queries]
        self._dense = DenseRows(keys, dense) if dense else None
        self._blocks = [_Block(row) for row in rows if not row.dense]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        keys, values, rule = self._keys[layer], self._values[layer], self._rules[layer]
        if self._cells is not None:
            keys.transpose(1, 2).index_put_(self._cells, key[self._written])
            values.transpose(1, 2).index_put_(self._cells, value[self._written])
        out = query.new_empty(query.shape[0], query.shape[1], value.shape[2])
        if self._dense is not None:
            self._dense.attend(rule, query, keys, values, scaling, out)
        for block in self._blocks:
            block.attend(rule, query, keys, values, scaling, out)
        return out


class _Block:
    """One row's many queries over the row's cells, which are put together for them."""

    def __init__(self, row: PagedRow) -> None:
        self._row = row
        self._queries = index(row.queries)
        self._pages = index(row.pages)
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
        attended = attend_block(
            rule,
            query[self._queries].transpose(0, 1).unsqueeze(0),
            self._joined(keys),
            self._joined(values),
            self._mask(rule, query),
            scaling,
        )
        out[self._queries] = attended.squeeze(0).transpose(0, 1)

    def _joined(self, cells: Tensor) -> Tensor:
        """`[1, H_kv, length, D]`."""
        _, heads, _, width = cells.shape
        pages = cells.transpose(0, 1)[:, self._pages]
        return pages.reshape(1, heads, -1, width)[:, :, : self._row.length]

    def _mask(self, rule: ScoreRules, like: Tensor) -> Tensor | None:
        if rule not in self._masks:
            r = self._row
            mask = block_mask(rule, r.causal, len(r.queries), r.length, r.positions, like)
            self._masks[rule] = mask
        return self._masks[rule]


def _cells(rows: Sequence[PagedRow], page: int) -> tuple[Tensor, Tensor]:
    """Pages, and cells in them, that the step's new keys and values go to."""
    places = [
        (row.pages[cell // page], cell % page)
        for row in rows
        for cell in range(row.length - len(row.written), row.length)
    ]
    pages, cells = torch.tensor(places).unbind(1)
    return pages, cells
