"""The reference backend: KV gathered by slot table, then scaled dot-product attention.

Correct on every device and for every head shape; faster backends are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prefixmux_server.attention.rules import OUTSIDE, PLAIN, ScoreRules
from prefixmux_server.attention.scores import attend_block, block_mask, rule_mask


@dataclass(frozen=True, eq=False)
class TableRow:
    """One row of the step. `slots` lists the slots of everything that its queries see, in order.

    `queries` are tokens of the ragged batch. `written` are those of the step's keys and values
    that go to the last of the slots. Queries of a `causal` row are its written tokens: none sees
    the slots after its own. `positions` are those of the slots, where rules need them.
    """

    queries: Sequence[int]
    written: range
    slots: Tensor
    causal: bool = True
    positions: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Decode:
    """All rows with one query: one padded table. Padding points at slot 0, always finite."""

    tokens: Tensor
    table: Tensor
    mask: Tensor
    positions: Tensor | None
    asking: Tensor | None


class GatherPlan:
    """A step over `keys [L, slots, H_kv, D_k]` and `values [L, slots, H_kv, D_v]`; `rules` per
    layer, none given means all plain."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        rows: Sequence[TableRow],
        rules: Sequence[ScoreRules] = (),
    ) -> None:
        self._keys = keys
        self._values = values
        self._rules = rules or (PLAIN,) * keys.shape[0]
        self._plan_write([row for row in rows if row.written])
        single = [row for row in rows if len(row.queries) == 1]
        self._decode = self._plan_decode(single) if single else None
        self._blocks = [row for row in rows if len(row.queries) > 1]
        self._tokens = [torch.tensor(r.queries, device=keys.device) for r in self._blocks]
        self._masks: dict[tuple[int, ScoreRules], Tensor | None] = {}

    def _plan_write(self, rows: Sequence[TableRow]) -> None:
        none = torch.empty(0, dtype=torch.long)
        tokens = [none, *(torch.arange(row.written.start, row.written.stop) for row in rows)]
        slots = [none.to(self._keys.device), *(row.slots[-len(row.written) :] for row in rows)]
        self._written = torch.cat(tokens).to(self._keys.device)
        self._write = torch.cat(slots)

    def _plan_decode(self, rows: Sequence[TableRow]) -> _Decode:
        device = self._keys.device
        lengths = torch.tensor([len(row.slots) for row in rows], device=device)
        table = pad_sequence([row.slots for row in rows], batch_first=True)
        mask = torch.arange(table.shape[1], device=device) < lengths[:, None]
        tokens = torch.tensor([row.queries[0] for row in rows], device=device)
        known = [row.positions for row in rows if row.positions is not None]
        if len(known) < len(rows):
            return _Decode(tokens, table, mask[:, None, :], None, None)
        positions = pad_sequence(known, batch_first=True, padding_value=OUTSIDE).to(device)
        asking = positions.gather(1, lengths[:, None] - 1)
        return _Decode(tokens, table, mask[:, None, :], positions, asking)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        keys, values, rule = self._keys[layer], self._values[layer], self._rules[layer]
        if len(self._write):
            keys.index_copy_(0, self._write, key[:, self._written].transpose(0, 1))
            values.index_copy_(0, self._write, value[:, self._written].transpose(0, 1))
        out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        if self._decode is not None:
            rows = self._decode
            found = attend_block(
                rule,
                query[:, rows.tokens].transpose(0, 1).unsqueeze(2),
                keys[rows.table].transpose(1, 2),
                values[rows.table].transpose(1, 2),
                self._decode_mask(rows, rule, query),
                scaling,
            )
            out[rows.tokens] = found.squeeze(2)
        for index, row in enumerate(self._blocks):
            tokens = self._tokens[index]
            found = attend_block(
                rule,
                query[:, tokens].unsqueeze(0),
                keys[row.slots].transpose(0, 1).unsqueeze(0),
                values[row.slots].transpose(0, 1).unsqueeze(0),
                self._block_mask(index, rule, query),
                scaling,
            )
            out[tokens] = found.squeeze(0).transpose(0, 1)
        return out

    def _decode_mask(self, rows: _Decode, rule: ScoreRules, like: Tensor) -> Tensor | None:
        if (-1, rule) not in self._masks:
            mask = rule_mask(rule, rows.mask, rows.asking, rows.positions, like.dtype)
            self._masks[-1, rule] = mask
        return self._masks[-1, rule]

    def _block_mask(self, index: int, rule: ScoreRules, like: Tensor) -> Tensor | None:
        if (index, rule) not in self._masks:
            row = self._blocks[index]
            mask = block_mask(
                rule, row.causal, len(row.queries), len(row.slots), row.positions, like
            )
            self._masks[index, rule] = mask
        return self._masks[index, rule]
