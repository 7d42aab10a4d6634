"""Steps over the rows of many requests, each site of each held against the formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from memory.groups import SPECS, Branch, Group
from support.eager import eager
from torch import Tensor

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.memory.memory import KVMemory, PlacedPrefix, RowLease, RowNeeds, RowSpan
from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER

SCALING = 0.4


@dataclass(frozen=True)
class Piece:
    """The next `count` tokens of one row, and what they and its encoder's leave behind."""

    group: Group
    row: Branch
    fresh: Tensor
    encoder: Tensor | None = None

    @property
    def count(self) -> int:
        return self.fresh.shape[2]


@dataclass
class Steps:
    memory: KVMemory
    generator: torch.Generator = field(default_factory=torch.Generator)

    def admit(self, prefixes: Sequence[PlacedPrefix], needs: RowNeeds) -> Group | None:
        leases = self.memory.admit(prefixes, needs)
        if leases is None:
            return None
        assert len(leases) == needs.rows
        return Group(prefixes, needs, leases, [Branch(leases[0], self._kv(DECODER, 0))])

    def run(self, *work: tuple[Group, int]) -> None:
        """So many tokens of each row of each group; its first step has its encoder pass."""
        pieces: list[Piece] = []
        for group, count in work:
            encoder = self._kv(ENCODER, group.needs.encoded) if group.cross is None else None
            if encoder is not None:
                group.cross = self._kv(CROSS, group.needs.encoded)
            for row in group.rows:
                pieces.append(Piece(group, row, self._kv(DECODER, count), encoder))
                encoder = None
        plans = self.memory.plans(
            [
                RowSpan(
                    piece.row.lease,
                    piece.row.computed,
                    piece.count,
                    0 if piece.encoder is None else piece.group.needs.encoded,
                )
                for piece in pieces
            ]
        )
        first = [piece for piece in pieces if piece.encoder is not None]
        assert (ENCODER in plans) == bool(first)
        if first:
            self._encode(plans[ENCODER], first)
        self._decode(plans[DECODER], pieces)
        self._read(
            plans[CROSS], pieces, [p.group.cross for p in first if p.group.cross is not None]
        )
        for piece in pieces:
            piece.row.own = torch.cat([piece.row.own, piece.fresh], dim=2)

    def branch(self, group: Group, parents: Sequence[int]) -> None:
        """Row i goes on from what row `parents[i]` was; the prompt goes to all of them first."""
        shared, done = group.needs.shared, group.rows[0].computed
        leases = group.leases[: len(parents)]
        if done == shared:
            self.memory.fork(group.leases, range(shared))
        else:
            sources = [group.rows[parent].lease for parent in parents]
            self.memory.copy(leases, sources, range(shared, done))
        kept = [group.rows[parent].own for parent in parents]
        group.rows = [Branch(lease, own) for lease, own in zip(leases, kept, strict=True)]

    def drop(self, group: Group, lease: RowLease) -> None:
        """One row less, in use or not yet; the others go on."""
        self.memory.drop(lease)
        group.leases = [other for other in group.leases if other is not lease]
        group.rows = [row for row in group.rows if row.lease is not lease]
        group.needs = replace(group.needs, rows=len(group.leases))

    def add(self, group: Group, start: int, count: int) -> None:
        """Something to tokens of its only row."""
        (row,), delta = group.rows, self._kv(DECODER, count)
        self.memory.add(row.lease, start, delta)
        row.own = row.own.clone()
        row.own[:, :, start : start + count] += delta

    def _encode(self, plan: StepPlan, pieces: Sequence[Piece]) -> None:
        fresh = [piece.encoder for piece in pieces if piece.encoder is not None]
        asked = [kv.shape[2] for kv in fresh]
        seen = [p.group.encoding(kv) for p, kv in zip(pieces, fresh, strict=True)]
        self._check(plan, ENCODER, asked, fresh, seen, causal=False)

    def _decode(self, plan: StepPlan, pieces: Sequence[Piece]) -> None:
        seen = [piece.group.seen(piece.row, piece.fresh) for piece in pieces]
        for piece, (_, places) in zip(pieces, seen, strict=True):
            lease = piece.row.lease.decoder
            assert lease.position(piece.row.computed) == places[-piece.count]
            assert lease.cell(piece.row.computed) == len(places) - piece.count
        fresh = [piece.fresh for piece in pieces]
        self._check(plan, DECODER, [piece.count for piece in pieces], fresh, seen, causal=True)

    def _read(self, plan: StepPlan, pieces: Sequence[Piece], fresh: Sequence[Tensor]) -> None:
        seen = [(piece.group.read(), list[int | None]()) for piece in pieces]
        self._check(plan, CROSS, [piece.count for piece in pieces], fresh, seen, causal=False)

    def _check(
        self,
        plan: StepPlan,
        site: str,
        asked: Sequence[int],
        fresh: Sequence[Tensor],
        seen: Sequence[tuple[Tensor, list[int | None]]],
        *,
        causal: bool,
    ) -> None:
        """`asked` queries of each row; `fresh` is stored in the step, `seen` by row."""
        spec = SPECS[site]
        stored = torch.cat([self._kv(site, 0), *fresh], dim=2).transpose(2, 3)
        for layer in range(spec.layers):
            query = self._draw(spec.heads, sum(asked), spec.k_dim)
            found = plan.attend(layer, query, stored[layer, 0], stored[layer, 1], SCALING)
            first = 0
            for count, (cells, places) in zip(asked, seen, strict=True):
                own = slice(first, first + count)
                first += count
                keys, values = cells[layer]
                rule = spec.rule(layer)
                wanted = eager(query[:, own], keys, values, SCALING, rule, places, causal=causal)
                torch.testing.assert_close(found[own].double(), wanted, atol=2e-5, rtol=2e-5)

    def _kv(self, site: str, tokens: int) -> Tensor:
        spec = SPECS[site]
        return self._draw(spec.layers, 2, tokens, spec.kv_heads, spec.k_dim)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)
