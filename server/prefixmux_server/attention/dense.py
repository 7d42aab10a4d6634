"""Rows that ask little, all at once: two products over their pages, a softmax for each row.

A page is one operand of the batched products, and has the queries of the row that owns it. A
stranger's page may take part, if leaving it out would mean to copy the others; nobody looks at
what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from prefixmux_server.attention.rules import ScoreRules
from prefixmux_server.attention.scores import relative_bias, soft_capped
from prefixmux_server.attention.tokens import index

# Pages are copied to leave out strangers' that are so many times as many.
_STRANGERS = 2
# Rows share a softmax if none has more than so many times the pages of another.
_SPREAD = 4


class DenseRow(Protocol):
    """What is needed of a row: as in `PagedRow`."""

    @property
    def pages(self) -> Sequence[int]: ...
    @property
    def queries(self) -> Sequence[int]: ...
    @property
    def length(self) -> int: ...
    @property
    def positions(self) -> Tensor | None: ...


class DenseRows:
    """`keys` as `PagesPlan` has them, of which only the shape matters here."""

    def __init__(self, keys: Tensor, rows: Sequence[DenseRow]) -> None:
        _, live, self._heads, self._page, _ = keys.shape
        self._dtype = keys.dtype
        self._most = max(len(row.queries) for row in rows)
        pages = [list(row.pages) for row in rows]
        asked = sum(map(len, pages))
        self._chosen: Tensor | None = None
        if live > (1 + _STRANGERS) * asked:
            self._chosen = torch.tensor([page for own in pages for page in own])
            live, done = asked, 0
            for own in pages:
                own[:] = range(done, done + len(own))
                done += len(own)
        self._live = live
        self._rows = list(zip(rows, pages, strict=True))
        self._take = self._queries_of_pages()
        self._groups = [_Group(group, self._most) for group in _grouped(self._rows)]
        self._plain = self._ends()
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
        """Tensors are token-major here: `[T, heads, D]`; the rows' tokens are written to `out`."""
        if self._chosen is not None:
            keys, values = keys[self._chosen], values[self._chosen]
        live, heads, page, width = keys.shape
        asked = query[self._take].view(live, self._most, heads, -1, width)
        grouped = asked.transpose(1, 2).reshape(live * heads, -1, width)
        flat = keys.view(live * heads, page, width).transpose(1, 2)
        scores = self._scores(rule, grouped, flat, scaling).view(live, heads, -1, page)
        flat = self._softened(scores).view(live * heads, -1, page)
        mixed = torch.bmm(flat, values.view(live * heads, page, -1))
        mixed = mixed.view(live, heads, self._most, -1, mixed.shape[-1])
        for group in self._groups:
            out[group.tokens] = group.add_up(mixed)

    def _softened(self, scores: Tensor) -> Tensor:
        for group in self._groups:
            weights = group.softened(scores)
            if len(weights) == self._live:
                return weights
            scores[group.pages] = weights
        return scores

    def _scores(self, rule: ScoreRules, query: Tensor, keys: Tensor, scaling: float) -> Tensor:
        bias = self._bias_of(rule, query.shape[1])
        if rule.softcap is None:
            return torch.baddbmm(bias, query, keys, alpha=scaling)
        return soft_capped(torch.bmm(query, keys) * scaling, rule.softcap) + bias

    def _queries_of_pages(self) -> Tensor:
        """Tokens, so many for each page as the row with the most of them has."""
        take = [0] * (self._live * self._most)
        for row, pages in self._rows:
            for page in pages:
                first = page * self._most
                take[first : first + len(row.queries)] = row.queries
        return torch.tensor(take)

    def _ends(self) -> Tensor:
        """`[live * H_kv, 1, page]`: what is beyond the rows' last cells is not seen."""
        bias = torch.zeros(self._live, 1, self._page, dtype=self._dtype)
        for row, pages in self._rows:
            bias[pages[-1], :, row.length - (len(pages) - 1) * self._page :] = float("-inf")
        return bias.repeat_interleave(self._heads, dim=0)

    def _bias_of(self, rule: ScoreRules, groups: int) -> Tensor:
        if not rule.positional:
            return self._plain
        if rule not in self._biases:
            self._biases[rule] = self._positional_bias(rule, groups)
        return self._biases[rule]

    def _positional_bias(self, rule: ScoreRules, groups: int) -> Tensor:
        """`[live * H_kv, G, page]` of rows with one query each."""
        assert self._most == 1, "positions are known of rows with one query only"
        shape = (self._live, self._heads, 1, self._page)
        bias = self._plain.view(shape).repeat(1, 1, groups, 1)
        for row, pages in self._rows:
            assert row.positions is not None, "these rules need positions"
            seen = row.positions[: row.length]
            distance = seen - row.positions[row.length - 1]
            cells = bias.new_zeros(self._heads, groups, len(pages) * self._page)
            target = cells[:, :, : row.length]
            if rule.bias is not None:
                target += relative_bias(rule.bias, distance[None]).view(target.shape)
            if rule.window is not None:
                target.masked_fill_(distance <= -rule.window, float("-inf"))
            bias[pages] += cells.view(self._heads, groups, -1, self._page).movedim(2, 0)
        return bias.view(-1, groups, self._page)


class _Group:
    """Rows of about as many pages, which are `pages`; `tokens` are those that ask."""

    def __init__(self, rows: Sequence[tuple[DenseRow, list[int]]], most: int) -> None:
        self._size = len(rows), max(len(pages) for _, pages in rows)
        # In the order of memory: where all of it is asked for, nothing is picked out.
        cells = sorted(
            (page, row, place)
            for row, (_, pages) in enumerate(rows)
            for place, page in enumerate(pages)
        )
        self.pages = index([page for page, _, _ in cells])
        self._row, self._place = torch.tensor([cell[1:] for cell in cells]).unbind(1)
        self._flat = self._row * self._size[1] + self._place
        self.tokens = index([token for row, _ in rows for token in row.queries])
        asked = [n * most + q for n, (row, _) in enumerate(rows) for q in range(len(row.queries))]
        self._asked = index(asked)
        self._scores: Tensor | None = None
        self._parts: Tensor | None = None

    def softened(self, scores: Tensor) -> Tensor:
        """Of `scores` `[pages, H_kv, Q, page]` the group's own, as weights that add up to 1 over
        each row."""
        rows, places = self._size
        _, heads, queries, page = scores.shape
        if self._scores is None:
            # Filled once: each layer writes to the same places of it.
            size = (rows, heads, queries, places, page)
            self._scores = scores.new_full(size, float("-inf"))
        table = self._scores
        table[self._row, :, :, self._place] = scores[self.pages]
        table = table.view(rows, heads, queries, -1).softmax(-1).view(table.shape)
        return table[self._row, :, :, self._place]

    def add_up(self, mixed: Tensor) -> Tensor:
        """`mixed` `[pages, H_kv, most, G, D]`; of the queries asked, `[tokens, H, D]`."""
        if self._parts is None:
            self._parts = mixed.new_zeros(*self._size, *mixed.shape[1:])
        self._parts.flatten(0, 1).index_copy_(0, self._flat, mixed[self.pages])
        whole = self._parts.sum(1).transpose(1, 2)
        return whole.reshape(-1, whole.shape[2] * whole.shape[3], whole.shape[4])[self._asked]


def _grouped(
    rows: Sequence[tuple[DenseRow, list[int]]],
) -> list[list[tuple[DenseRow, list[int]]]]:
    """By their numbers of pages, in the order given where that is possible."""
    groups: list[list[tuple[DenseRow, list[int]]]] = []
    if max(len(pages) for _, pages in rows) <= _SPREAD * min(len(pages) for _, pages in rows):
        return [list(rows)]
    for row in sorted(rows, key=lambda row: len(row[1])):
        if not groups or len(row[1]) > _SPREAD * len(groups[-1][0][1]):
            groups.append([])
        groups[-1].append(row)
    return groups
