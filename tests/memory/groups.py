"""Requests over a memory of three sites: what their rows see, and where that stands.

Both are written down here a second time, for the memory to be held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from memory.ragged import bias_of
from torch import Tensor

from prefixmux_server.attention.rules import PLAIN, ScoreRules
from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.memory import KVMemory, PlacedPrefix, RowLease, RowNeeds
from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER, PrefixKey, PrefixKV
from prefixmux_server.memory.select import LayoutName, make_layout

SPECS = {
    ENCODER: SiteSpec(ENCODER, 3, 2, 2, 8, 8, rules=(ScoreRules(bias=bias_of(2, 5)),) * 3),
    DECODER: SiteSpec(
        DECODER, 2, 4, 2, 8, 8, rules=(ScoreRules(window=40, bias=bias_of(4, 20)), PLAIN)
    ),
    CROSS: SiteSpec(CROSS, 2, 3, 3, 8, 8),
}


def memory_of(name: LayoutName, capacity: int = 448, cross: int = 448) -> KVMemory:
    """Of three sites; all that nobody owns is NaN."""
    layouts = {
        site: make_layout(
            name, SPECS[site], tokens, torch.float32, torch.device("cpu"), poison=True
        )
        for site, tokens in ((DECODER, capacity), (CROSS, cross))
    }
    return KVMemory(layouts, SPECS[ENCODER])


def prefix_of(seed: int, *, shifts: bool = True, infix: bool = False, **tokens: int) -> PrefixKV:
    """Of so many tokens at each named site."""
    generator = torch.Generator().manual_seed(seed)
    sites = {}
    for site, count in tokens.items():
        spec = SPECS[site]
        shape = (spec.layers, 2, count, spec.kv_heads, spec.k_dim)
        sites[site] = torch.randn(shape, generator=generator)
    offset = tokens.get(DECODER, 0) if shifts else 0
    return PrefixKV(PrefixKey("t", f"{seed}"), sites, {DECODER: offset}, infix=infix)


def placed(memory: KVMemory, *prefixes: PrefixKV) -> list[PlacedPrefix]:
    found = [memory.place(prefix) for prefix in prefixes]
    return [prefix for prefix in found if prefix is not None]


@dataclass(eq=False)
class Branch:
    """One decoder row and its own tokens so far, `[L, 2, n, H_kv, D]`."""

    lease: RowLease
    own: Tensor

    @property
    def computed(self) -> int:
        return self.own.shape[2]


@dataclass
class _Line:
    """Cells as one query sees them, `[L, 2, cells, H_kv, D]`, and their places."""

    parts: list[Tensor] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)
    shift: int = 0

    def prefix(self, kv: PrefixKV, start: int) -> None:
        """Behind `start` own tokens."""
        if DECODER not in kv.sites:
            return
        count, offset, first = kv.sites[DECODER].shape[2], kv.offsets[DECODER], start + self.shift
        self.parts.append(kv.sites[DECODER])
        self.places += range(first, first + count) if offset else [None] * count
        self.shift += offset

    def tokens(self, own: Tensor, start: int) -> None:
        first = start + self.shift
        self.parts.append(own)
        self.places += range(first, first + own.shape[2])


@dataclass(eq=False)
class Group:
    """A request: what it needs, and its rows in use; `cross` is what its encoder left behind."""

    prefixes: Sequence[PlacedPrefix]
    needs: RowNeeds
    leases: Sequence[RowLease]
    rows: list[Branch]
    cross: Tensor | None = None

    @property
    def runnable(self) -> int:
        """Tokens of each row that may run in one step: up to an infix, a branching, or the end."""
        done, needs = self.rows[0].computed, self.needs
        breaks = [needs.infix_at, needs.shared if needs.rows > 1 else 0, needs.own]
        return next(at for at in breaks if at > done or at == needs.own) - done

    @property
    def branches(self) -> bool:
        """Whether its rows go different ways from here on."""
        return self.needs.rows > 1 and self.rows[0].computed >= self.needs.shared

    def seen(self, row: Branch, fresh: Tensor) -> tuple[Tensor, list[int | None]]:
        """What the row's next tokens see, themselves included."""
        own, line = torch.cat([row.own, fresh], dim=2), _Line()
        begun = row.computed >= self.needs.infix_at
        infixes = [p.kv for p in self.prefixes if p.kv.infix and begun]
        cut = self.needs.infix_at if infixes else own.shape[2]
        for kv in (p.kv for p in self.prefixes if not p.kv.infix):
            line.prefix(kv, 0)
        line.tokens(own[:, :, :cut], 0)
        for kv in infixes:
            line.prefix(kv, cut)
        line.tokens(own[:, :, cut:], cut)
        return torch.cat(line.parts, dim=2), line.places

    def read(self) -> Tensor:
        """What cross attention sees."""
        assert self.cross is not None, "its first step has its encoder pass"
        held = [p.kv.sites[CROSS] for p in self.prefixes if CROSS in p.kv.sites]
        return torch.cat([*held, self.cross], dim=2)

    def encoding(self, own: Tensor) -> tuple[Tensor, list[int | None]]:
        """What its encoder's tokens see."""
        held = [p.kv.sites[ENCODER] for p in self.prefixes if ENCODER in p.kv.sites]
        outside = sum(kv.shape[2] for kv in held)
        return torch.cat([*held, own], dim=2), [*([None] * outside), *range(own.shape[2])]
