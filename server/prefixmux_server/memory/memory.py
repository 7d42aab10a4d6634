"""The KV memory of all of a model's sites: a row has its place at every site, or at none.

Decoder rows grow token by token. What cross attention reads is written once, in a row's first
step, and is shared by all rows of its request. An encoder keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.attention.encoder import EncoderPlan, EncoderRow
from prefixmux_server.attention.rules import PLAIN
from prefixmux_server.memory.layout import (
    KVLayout,
    Lease,
    Placement,
    Read,
    Segment,
    SiteSpec,
    Span,
)
from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER, PrefixKV


@dataclass(frozen=True, eq=False)
class PlacedPrefix:
    """An immutable prefix where rows can see it, by site."""

    kv: PrefixKV
    sites: Mapping[str, Placement]


@dataclass(frozen=True)
class RowNeeds:
    """What a request needs beside its prefixes.

    `own` tokens in each of `rows` decoder rows, of which the rows have the first `shared` in
    common; `infix_at` of these come before an infix. `encoded` tokens are there for cross
    attention.
    """

    own: int
    infix_at: int = 0
    encoded: int = 0
    rows: int = 1
    shared: int = 0


@dataclass(frozen=True, eq=False)
class RowLease:
    """One decoder row and what it reads of the encoder's output; `cross` is its request's."""

    prefixes: tuple[PlacedPrefix, ...]
    decoder: Lease
    cross: Lease | None = None


@dataclass(frozen=True)
class RowSpan:
    """Own decoder tokens `start .. start + count` of a row. `encoded`: how many tokens of the
    encoder's output it writes in this step; those of several rows follow each other."""

    lease: RowLease
    start: int
    count: int
    encoded: int = 0


class KVMemory:
    """`layouts` are of the sites that keep KV: the decoder's, and cross attention's if any;
    `encoder` is the site that keeps none, on `device` as the others are."""

    def __init__(
        self,
        layouts: Mapping[str, KVLayout],
        encoder: SiteSpec | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.layouts = layouts
        self._decoder = layouts[DECODER]
        self._cross = layouts.get(CROSS)
        self._encoder = encoder
        self._device = device or torch.device("cpu")

    @property
    def capacity_tokens(self) -> int:
        """Of each site."""
        return self._decoder.capacity_tokens

    @property
    def used_tokens(self) -> int:
        """Of the decoder's site."""
        return self._decoder.used_tokens

    @property
    def shares_prefixes(self) -> bool:
        return self._decoder.shares_prefixes

    def fits(self, prefixes: Sequence[PrefixKV], needs: RowNeeds) -> bool:
        """Whether such a request fits into the empty memory: if not, it never will."""
        # Where rows share a prefix it is there once, however often a row names it.
        held = {kv.key: kv for kv in prefixes}.values() if self.shares_prefixes else prefixes
        tokens = sum(kv.tokens(DECODER) for kv in held)
        forks, shared = needs.rows - 1, needs.shared
        if not self._decoder.fits(tokens, needs.own, forks=forks, shared=shared):
            return False
        crossing = sum(kv.tokens(CROSS) for kv in held)
        return self._cross is None or self._cross.fits(crossing, needs.encoded)

    def place(self, kv: PrefixKV) -> PlacedPrefix | None:
        """Make a prefix visible to rows, at all sites; None when there is no room now."""
        placed: dict[str, Placement] = {}
        for site, layout in self.layouts.items():
            placement = layout.place(kv)
            if placement is None:
                self.displace(PlacedPrefix(kv, placed))
                return None
            placed[site] = placement
        return PlacedPrefix(kv, placed)

    def displace(self, prefix: PlacedPrefix) -> None:
        """Take a placed prefix away; no live lease may hold it."""
        for site, placement in prefix.sites.items():
            self.layouts[site].displace(placement)

    def admit(
        self, prefixes: Sequence[PlacedPrefix], needs: RowNeeds
    ) -> tuple[RowLease, ...] | None:
        """`needs.rows` rows behind these prefixes, or None and nothing held: no room now."""
        cross = None
        if self._cross is not None:
            segments = [Segment(prefix.sites[CROSS], site=CROSS) for prefix in prefixes]
            cross = self._cross.admit(segments, needs.encoded)
            if cross is None:
                return None
        rows = self._admit_rows(prefixes, needs)
        if rows is None and self._cross is not None and cross is not None:
            self._cross.release(cross)
        return None if rows is None else tuple(RowLease(tuple(prefixes), r, cross) for r in rows)

    def drop(self, lease: RowLease) -> None:
        """Give back one row of a request that goes on in others."""
        self._decoder.release(lease.decoder)

    def release(self, leases: Sequence[RowLease]) -> None:
        """Give back all rows that a request has left."""
        for lease in leases:
            self._decoder.release(lease.decoder)
        cross = leases[0].cross
        if self._cross is not None and cross is not None:
            self._cross.release(cross)

    def plans(self, spans: Sequence[RowSpan]) -> dict[str, StepPlan]:
        """The attention of one step, by site; spans in the order of the ragged batch."""
        decoder = [Span(span.lease.decoder, span.start, span.count) for span in spans]
        plans: dict[str, StepPlan] = {DECODER: self._decoder.plan(decoder)}
        if self._cross is not None:
            plans[CROSS] = self._cross.plan_reads(_reads(spans))
        if any(span.encoded for span in spans):
            plans[ENCODER] = self._plan_encoder([span for span in spans if span.encoded])
        return plans

    def fork(self, leases: Sequence[RowLease], own: range) -> None:
        """The first row's own tokens `own` become those of all rows of its request."""
        self.copy(leases[1:], [leases[0]] * (len(leases) - 1), own)

    def copy(self, targets: Sequence[RowLease], sources: Sequence[RowLease], own: range) -> None:
        """As `KVLayout.copy`."""
        self._decoder.copy(
            [lease.decoder for lease in targets], [lease.decoder for lease in sources], own
        )

    def add(self, lease: RowLease, start: int, kv: Tensor) -> None:
        """As `KVLayout.add`."""
        self._decoder.add(lease.decoder, start, kv)

    def read(self, lease: RowLease) -> Tensor:
        """As `KVLayout.read`."""
        return self._decoder.read(lease.decoder)

    def check_integrity(self) -> None:
        for layout in self.layouts.values():
            layout.check_integrity()

    def _admit_rows(self, prefixes: Sequence[PlacedPrefix], needs: RowNeeds) -> list[Lease] | None:
        segments = [
            Segment(p.sites[DECODER], needs.infix_at if p.kv.infix else 0) for p in prefixes
        ]
        rows: list[Lease] = []
        for _ in range(needs.rows):
            if rows:
                row = self._decoder.fork(rows[0], needs.shared)
            else:
                row = self._decoder.admit(segments, needs.own)
            if row is None:
                for held in rows:
                    self._decoder.release(held)
                return None
            rows.append(row)
        return rows

    def _plan_encoder(self, spans: Sequence[RowSpan]) -> EncoderPlan:
        assert self._encoder is not None, "a decoder-only model encodes nothing"
        rows, first = [], 0
        for span in spans:
            held = [p.kv.sites[ENCODER] for p in span.lease.prefixes if p.kv.tokens(ENCODER)]
            here = [kv.to(self._device, non_blocking=True) for kv in held]
            rows.append(EncoderRow(first, span.encoded, here))
            first += span.encoded
        return EncoderPlan(rows, self._encoder.rules or (PLAIN,) * self._encoder.layers)


def _reads(spans: Sequence[RowSpan]) -> list[Read]:
    """Rows of one request read the same lease, and come next to each other or not."""
    queries: dict[Lease, list[int]] = {}
    written: dict[Lease, range] = {}
    first = encoded = 0
    for span in spans:
        assert span.lease.cross is not None, "a row without cross attention in such a model"
        tokens = range(first, first + span.count)
        queries.setdefault(span.lease.cross, []).extend(tokens)
        if span.encoded:
            written[span.lease.cross] = range(encoded, encoded + span.encoded)
        first += span.count
        encoded += span.encoded
    return [Read(lease, asked, written.get(lease, range(0))) for lease, asked in queries.items()]
