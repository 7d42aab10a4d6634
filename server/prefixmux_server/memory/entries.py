"""The prefixes that are in memory or on their way there, in the order of their last use.

Owns the entries, the bytes that they count for, and which moves are still to be told. It decides
nothing: what comes and what goes is up to `residency.py` and its rooms.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator
from dataclasses import dataclass
from enum import Enum

from prefixmux_server.memory.memory import PlacedPrefix
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.source import PrefixLoadError


class State(Enum):
    LOADING = "loading"
    HOST = "host"
    DEVICE = "device"
    FAILED = "failed"


@dataclass(eq=False)
class Entry:
    """`pins` are requests that need the prefix, `users` rows that see it."""

    size: int
    pins: int = 0
    users: int = 0
    kv: PrefixKV | None = None
    placement: PlacedPrefix | None = None
    failure: PrefixLoadError | None = None

    @property
    def state(self) -> State:
        if self.failure is not None:
            return State.FAILED
        if self.placement is not None:
            return State.DEVICE
        return State.LOADING if self.kv is None else State.HOST


class Entries:
    """`host_bytes` are also of what is only on its way, `device_bytes` of what is placed."""

    def __init__(self) -> None:
        # Insertion order is the order of last use: the first entry is the least recently used.
        self._entries: dict[PrefixKey, Entry] = {}
        self._moves: dict[PrefixKey, State | None] = {}
        self.host_bytes = self.device_bytes = 0

    def __iter__(self) -> Iterator[PrefixKey]:
        return iter(self._entries)

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._entries

    def __getitem__(self, key: PrefixKey) -> Entry:
        return self._entries[key]

    def get(self, key: PrefixKey) -> Entry | None:
        return self._entries.get(key)

    def oldest_first(self) -> ItemsView[PrefixKey, Entry]:
        return self._entries.items()

    def state(self, key: PrefixKey) -> State | None:
        """None: absent."""
        entry = self._entries.get(key)
        return None if entry is None else entry.state

    def add(self, key: PrefixKey, size: int) -> Entry:
        entry = self._entries[key] = Entry(size)
        self.host_bytes += size
        return entry

    def remove(self, key: PrefixKey) -> None:
        entry = self._entries.pop(key)
        assert entry.placement is None
        self.host_bytes -= entry.size

    def touch(self, key: PrefixKey) -> None:
        """It is used now."""
        self._entries[key] = self._entries.pop(key)

    def resize(self, entry: Entry, size: int) -> None:
        """Of one that is not placed."""
        self.host_bytes += size - entry.size
        entry.size = size

    def set_placement(self, entry: Entry, placement: PlacedPrefix | None) -> None:
        before = entry.size if entry.placement is not None else 0
        entry.placement = placement
        self.device_bytes += (entry.size if placement is not None else 0) - before

    def note(self, key: PrefixKey) -> None:
        """That it has moved, to where it now is."""
        self._moves[key] = self.state(key)

    def drain_moves(self) -> list[tuple[PrefixKey, State | None]]:
        moves, self._moves = self._moves, {}
        return list(moves.items())

    def references(self) -> dict[PrefixKey, tuple[int, int]]:
        """Pins and users of what is pinned."""
        return {key: (e.pins, e.users) for key, e in self._entries.items() if e.pins}

    def check_integrity(self) -> None:
        entries = self._entries.values()
        assert self.host_bytes == sum(entry.size for entry in entries), "bytes are miscounted"
        placed = sum(entry.size for entry in entries if entry.placement is not None)
        assert self.device_bytes == placed, "bytes on the device are miscounted"
        for entry in entries:
            assert entry.pins >= entry.users >= 0, "a row sees a prefix that nobody pinned"
