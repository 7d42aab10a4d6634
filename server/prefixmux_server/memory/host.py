"""Room for prefixes in host memory: what is loaded into it, and what is evicted for that.

Owns the byte budget there, the loads that are under way, and the sizes of what is not there. Who
needs a prefix, and what shall stay without being needed, is told by `residency.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cachetools import LRUCache

from prefixmux_server.memory.device import DeviceRoom
from prefixmux_server.memory.entries import Entries, Entry
from prefixmux_server.memory.kept import Kept
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.source import PrefixLoadError

# As many loads as the loader is given at a time: enough that it is never idle, and few, because
# whoever comes next waits for them all.
MAX_LOADS = 8
# Sizes are remembered of so many prefixes: to find one out costs a look at the stored file.
MAX_SIZES = 1 << 16

# Makes KV of virtual tokens that were stored as inputs. Raises PrefixLoadError.
Compile = Callable[[PrefixKV], PrefixKV]


def as_stored(kv: PrefixKV) -> PrefixKV:
    """For models with an encoder, before which virtual tokens stay inputs."""
    return kv


class HostRoom:
    """`loads` are under way, at most `MAX_LOADS`. Each load's bytes are taken as it starts."""

    def __init__(
        self,
        loader: PrefixLoader,
        compile: Compile,
        entries: Entries,
        kept: Kept,
        device: DeviceRoom,
        budget: int,
    ) -> None:
        self._loader = loader
        self._compile = compile
        self._entries = entries
        self._kept = kept
        self._device = device
        self._budget = budget
        self._sizes: LRUCache[PrefixKey, int] = LRUCache(MAX_SIZES)
        self.loads = 0

    def size(self, key: PrefixKey) -> int:
        """Also of a prefix that is not there, as far as it can be known."""
        entry = self._entries.get(key)
        if entry is not None:
            return entry.size
        size = self._sizes.get(key) or self._loader.size(key)
        if size:
            self._sizes[key] = size
        return size

    def excess(self, keys: Iterable[PrefixKey]) -> int:
        """By how many bytes these prefixes together are more than the budget."""
        return sum(map(self.size, keys)) - self._budget

    def load(self, key: PrefixKey) -> Entry | None:
        """Start to load what is absent. None: not now; nothing has changed then."""
        size = self.size(key)
        if self.loads >= MAX_LOADS or not self._make_room(size):
            return None
        entry = self._entries.add(key, size)
        self.loads += 1
        self._loader.start(key)
        return entry

    def arrivals(self) -> Iterator[tuple[PrefixKey, Entry]]:
        """Take in the loads that have ended: each entry now has its prefix or its failure."""
        for loaded in self._loader.finished():
            self.loads -= 1
            entry = self._entries[loaded.key]
            result = self._compiled(loaded.result)
            if isinstance(result, PrefixLoadError):
                entry.failure = result
                self._entries.resize(entry, 0)
            else:
                entry.kv = result
                self._sizes[loaded.key] = result.nbytes
                self._entries.resize(entry, result.nbytes)
            yield loaded.key, entry

    def close(self) -> None:
        """End the loader's threads."""
        self._loader.close()

    def check_integrity(self) -> None:
        assert self._entries.host_bytes <= self._budget, "more prefixes in memory than allowed"

    def _compiled(self, loaded: PrefixKV | PrefixLoadError) -> PrefixKV | PrefixLoadError:
        if isinstance(loaded, PrefixLoadError):
            return loaded
        try:
            return self._compile(loaded)
        except PrefixLoadError as error:
            return error

    def _make_room(self, size: int) -> bool:
        """Evict idle prefixes, oldest first, or nothing at all where that does not suffice."""
        missing = self._entries.host_bytes + size - self._budget
        chosen: list[PrefixKey] = []
        for key, entry in self._entries.oldest_first():
            if missing <= 0:
                break
            if not entry.pins and entry.kv is not None and not self._kept.holds(key):
                chosen.append(key)
                missing -= entry.size
        if missing > 0:
            return False
        for key in chosen:
            self._evict(key)
        return True

    def _evict(self, key: PrefixKey) -> None:
        if self._entries[key].placement is not None:
            self._device.displace(key)
        self._entries.remove(key)
        self._entries.note(key)
