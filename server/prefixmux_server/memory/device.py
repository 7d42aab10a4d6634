"""Room for prefixes on the device, of layouts that place them once for all rows that see them.

Owns the byte budget there and who makes way within it; the other layouts copy a prefix into each
row's own room, which no budget counts. Knows neither loads nor requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prefixmux_server.memory.entries import Entries, Entry
from prefixmux_server.memory.kept import Kept
from prefixmux_server.memory.memory import PlacedPrefix
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV


class PrefixMemory(Protocol):
    """Where prefixes are placed for rows to see; see `KVMemory`."""

    @property
    def shares_prefixes(self) -> bool: ...

    def place(self, kv: PrefixKV) -> PlacedPrefix | None: ...

    def displace(self, prefix: PlacedPrefix) -> None: ...


class DeviceRoom:
    """What no row sees is displaced as room is needed: the oldest first, what is kept last."""

    def __init__(self, memory: PrefixMemory, entries: Entries, kept: Kept, budget: int) -> None:
        self._memory = memory
        self._entries = entries
        self._kept = kept
        self._budget = budget

    def fits(self, prefixes: Iterable[PrefixKV]) -> bool:
        """Whether these together could ever be placed for one row."""
        if not self._memory.shares_prefixes:
            return True
        return sum(kv.nbytes for kv in {kv.key: kv for kv in prefixes}.values()) <= self._budget

    def place(self, key: PrefixKey) -> PlacedPrefix | None:
        """For one more row. None: no room now."""
        entry = self._entries[key]
        assert entry.kv is not None and entry.pins
        placement = entry.placement or self._place(entry.kv)
        if placement is None:
            return None
        if self._memory.shares_prefixes and entry.placement is None:
            self._entries.set_placement(entry, placement)
            self._entries.note(key)
        entry.users += 1
        return placement

    def unplace(self, key: PrefixKey) -> None:
        """A row is done with it."""
        entry = self._entries[key]
        entry.users -= 1
        assert entry.users >= 0

    def place_ahead(self, entry: Entry) -> None:
        """For no row yet, where that costs nobody anything."""
        assert entry.kv is not None
        free = self._budget - self._entries.device_bytes
        if self._memory.shares_prefixes and entry.size <= free:
            placement = self._memory.place(entry.kv)
            if placement is not None:
                self._entries.set_placement(entry, placement)

    def reclaim(self) -> bool:
        """Free the room of one prefix that no row sees. False: there is none."""
        for kept in (False, True):
            for key, entry in self._entries.oldest_first():
                idle = entry.placement is not None and not entry.users
                if idle and self._kept.holds(key) == kept:
                    self.displace(key)
                    return True
        return False

    def displace(self, key: PrefixKey) -> None:
        entry = self._entries[key]
        assert entry.placement is not None and not entry.users
        self._memory.displace(entry.placement)
        self._entries.set_placement(entry, None)
        self._entries.note(key)

    def check_integrity(self) -> None:
        entries = self._entries
        assert entries.device_bytes <= self._budget, "more prefixes on the device than allowed"
        for _, entry in entries.oldest_first():
            shared = self._memory.shares_prefixes and entry.users > 0
            assert not shared or entry.placement is not None, "a row sees no placement"

    def _place(self, kv: PrefixKV) -> PlacedPrefix | None:
        """Displace others until this one fits."""
        if not self._memory.shares_prefixes:
            return self._memory.place(kv)
        while True:
            if self._entries.device_bytes + kv.nbytes <= self._budget:
                placement = self._memory.place(kv)
                if placement is not None:
                    return placement
            if not self.reclaim():
                return None
