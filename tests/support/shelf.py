"""A layout that only counts tokens, and refuses what a real one could not survive."""

from __future__ import annotations

from prefixmux_server.memory.memory import PlacedPrefix
from prefixmux_server.memory.prefix import PrefixKV


class Shelf:
    """Room for `capacity` tokens of prefixes; `displaced` lists what was taken away, in order."""

    def __init__(self, capacity: int, *, shares: bool = True) -> None:
        self.shares_prefixes = shares
        self.capacity_tokens = capacity
        self.placed: list[PlacedPrefix] = []
        self.displaced: list[str] = []

    def place(self, kv: PrefixKV) -> PlacedPrefix | None:
        placement = PlacedPrefix(kv, {})
        if self.shares_prefixes:
            if sum(p.kv.tokens() for p in self.placed) + kv.tokens() > self.capacity_tokens:
                return None
            self.placed.append(placement)
        return placement

    def displace(self, placement: PlacedPrefix) -> None:
        assert any(known is placement for known in self.placed), "not placed here"
        self.placed = [known for known in self.placed if known is not placement]
        self.displaced.append(placement.kv.key.digest)

    def check_integrity(self) -> None:
        keys = [placement.kv.key for placement in self.placed]
        assert len(keys) == len(set(keys)), "a prefix is placed twice"
