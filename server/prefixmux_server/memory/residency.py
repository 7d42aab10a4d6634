"""Which prefixes are where: the only owner of that knowledge.

    ABSENT -> LOADING -> HOST -> DEVICE
                 `-----> FAILED

Keyed by (tenant, digest); one engine serves one dtype. A pin (of a waiting or running request)
keeps a prefix in host memory, a placement reference (of a running one) keeps it placed for rows.
What nobody references may be evicted, least recently used first, to stay within the byte budgets.
Eviction forgets the whole entry at once, so a prefix can never be believed present and be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cachetools import LRUCache

from prefixmux_server.memory.loader import Loaded, PrefixLoader
from prefixmux_server.memory.memory import PlacedPrefix
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.source import PrefixLoadError

# As many loads as the loader is given at a time: enough that it is never idle, and few, because
# whoever comes next waits for them all.
MAX_LOADS = 8
# Sizes are remembered of so many prefixes: to find one out costs a look at the stored file.
MAX_SIZES = 1 << 16

# Makes KV of virtual tokens that were stored as inputs. Raises PrefixLoadError.
Compile = Callable[[PrefixKV], PrefixKV]


class PrefixMemory(Protocol):
    """Where prefixes are placed for rows to see; see `KVMemory`."""

    @property
    def shares_prefixes(self) -> bool: ...

    def place(self, kv: PrefixKV) -> PlacedPrefix | None: ...

    def displace(self, prefix: PlacedPrefix) -> None: ...


def as_stored(kv: PrefixKV) -> PrefixKV:
    """For models with an encoder, before which virtual tokens stay inputs."""
    return kv


class State(Enum):
    LOADING = "loading"
    HOST = "host"
    DEVICE = "device"
    FAILED = "failed"


@dataclass(eq=False)
class _Entry:
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


class Residency:
    """Byte budgets are for prefixes alone; `device_bytes` is for layouts that share them."""

    def __init__(
        self,
        memory: PrefixMemory,
        loader: PrefixLoader,
        *,
        host_bytes: int,
        device_bytes: int,
        compile: Compile = as_stored,
    ) -> None:
        self._memory = memory
        self._compile = compile
        self._loader = loader
        self._host_budget = host_bytes
        self._device_budget = device_bytes
        # Insertion order is the order of last use: the first entry is the least recently used.
        self._entries: dict[PrefixKey, _Entry] = {}
        self._changes: dict[PrefixKey, State | None] = {}
        self._sizes: LRUCache[PrefixKey, int] = LRUCache(MAX_SIZES)
        self._loads = 0
        self.version = 0

    @property
    def busy(self) -> bool:
        """Whether what is absent has to wait for other loads to end."""
        return self._loads >= MAX_LOADS

    def state(self, key: PrefixKey) -> State | None:
        """None: absent."""
        entry = self._entries.get(key)
        return None if entry is None else entry.state

    def failure(self, key: PrefixKey) -> PrefixLoadError | None:
        entry = self._entries.get(key)
        return None if entry is None else entry.failure

    def get(self, key: PrefixKey) -> PrefixKV:
        """A pinned prefix that has been loaded."""
        kv = self._entries[key].kv
        assert kv is not None, "this prefix is not in host memory"
        return kv

    def fits(self, prefixes: Iterable[PrefixKV]) -> bool:
        """Whether these prefixes together could ever be placed for one row."""
        if not self._memory.shares_prefixes:
            return True
        return (
            sum(kv.nbytes for kv in {kv.key: kv for kv in prefixes}.values()) <= self._device_budget
        )

    def exceeds_budget(self, keys: Iterable[PrefixKey]) -> bool:
        """Whether these prefixes alone are more than the budget: then they can never be served."""
        return sum(map(self._size, set(keys))) > self._host_budget

    def pin(self, key: PrefixKey) -> bool:
        """Count one more request that needs this prefix, and see to it that it is loaded.

        False: no room in host memory now, or `busy`; nothing was counted. It may be tried again
        when `version` has changed.
        """
        entry = self._entries.get(key) or self._load(key)
        if entry is None:
            return False
        entry.pins += 1
        self._touch(key)
        return True

    def unpin(self, key: PrefixKey) -> None:
        entry = self._entries[key]
        entry.pins -= 1
        assert entry.pins >= entry.users >= 0
        self._touch(key)
        if not entry.pins:
            self.version += 1
        if entry.failure is not None and not entry.pins:
            del self._entries[key]

    def place(self, key: PrefixKey) -> PlacedPrefix | None:
        """Count one more row that sees this pinned prefix. None: no room on the device now."""
        entry = self._entries[key]
        assert entry.kv is not None and entry.pins
        placement = entry.placement or self._place(entry.kv)
        if placement is None:
            return None
        if self._memory.shares_prefixes and entry.placement is None:
            entry.placement = placement
            self._note(key)
        entry.users += 1
        return placement

    def unplace(self, key: PrefixKey) -> None:
        """A row is done with it. It stays placed until the room is needed."""
        entry = self._entries[key]
        entry.users -= 1
        assert entry.users >= 0

    def collect(self) -> None:
        """Take in the loads that have ended."""
        for loaded in self._loader.finished():
            self._take_in(loaded)

    def drain_changes(self) -> list[tuple[PrefixKey, State | None]]:
        """Where prefixes have gone since the last call; None: no longer in memory."""
        changes, self._changes = self._changes, {}
        return list(changes.items())

    def close(self) -> None:
        """End the loader's threads."""
        self._loader.close()

    def check_integrity(self) -> None:
        assert self.host_bytes <= self._host_budget, "more prefixes in memory than allowed"
        assert self.device_bytes <= self._device_budget, "more prefixes on the device than allowed"
        for entry in self._entries.values():
            assert entry.pins >= entry.users >= 0, "a row sees a prefix that nobody pinned"
            shared = self._memory.shares_prefixes and entry.users > 0
            assert not shared or entry.placement is not None, "a row sees no placement"

    @property
    def host_bytes(self) -> int:
        return sum(entry.size for entry in self._entries.values())

    @property
    def device_bytes(self) -> int:
        return sum(entry.size for entry in self._entries.values() if entry.placement)

    def _size(self, key: PrefixKey) -> int:
        """Of a prefix that is not there, as far as it can be known."""
        entry = self._entries.get(key)
        if entry is not None:
            return entry.size
        size = self._sizes.get(key) or self._loader.size(key)
        if size:
            self._sizes[key] = size
        return size

    def _load(self, key: PrefixKey) -> _Entry | None:
        """None: not now."""
        size = self._size(key)
        if self.busy or not self._make_host_room(size):
            return None
        entry = self._entries[key] = _Entry(size)
        self._loads += 1
        self._loader.start(key)
        return entry

    def _take_in(self, loaded: Loaded) -> None:
        self._loads -= 1
        self.version += 1
        entry = self._entries[loaded.key]
        result = self._compiled(loaded.result)
        if isinstance(result, PrefixLoadError):
            entry.failure = result
            entry.size = 0
            if not entry.pins:
                del self._entries[loaded.key]
        else:
            entry.kv = result
            entry.size = result.nbytes
        self._note(loaded.key)

    def _compiled(self, loaded: PrefixKV | PrefixLoadError) -> PrefixKV | PrefixLoadError:
        if isinstance(loaded, PrefixLoadError):
            return loaded
        try:
            return self._compile(loaded)
        except PrefixLoadError as error:
            return error

    def _make_host_room(self, size: int) -> bool:
        """Evict idle prefixes, oldest first, or nothing at all where that does not suffice."""
        missing = self.host_bytes + size - self._host_budget
        chosen: list[PrefixKey] = []
        for key, entry in self._entries.items():
            if missing <= 0:
                break
            if not entry.pins and entry.kv is not None:
                chosen.append(key)
                missing -= entry.size
        if missing > 0:
            return False
        for key in chosen:
            self._evict(key)
        return True

    def _place(self, kv: PrefixKV) -> PlacedPrefix | None:
        """Displace prefixes that no row sees, oldest first, until this one fits."""
        if not self._memory.shares_prefixes:
            return self._memory.place(kv)
        while True:
            if self.device_bytes + kv.nbytes <= self._device_budget:
                placement = self._memory.place(kv)
                if placement is not None:
                    return placement
            if not self.reclaim():
                return None

    def reclaim(self) -> bool:
        """Free the device memory of the oldest prefix that no row sees; False: there is none."""
        for key, entry in self._entries.items():
            if entry.placement is not None and not entry.users:
                self._displace(key)
                return True
        return False

    def _displace(self, key: PrefixKey) -> None:
        entry = self._entries[key]
        assert entry.placement is not None and not entry.users
        self._memory.displace(entry.placement)
        entry.placement = None
        self._note(key)

    def _evict(self, key: PrefixKey) -> None:
        if self._entries[key].placement is not None:
            self._displace(key)
        del self._entries[key]
        self._note(key)

    def _touch(self, key: PrefixKey) -> None:
        self._entries[key] = self._entries.pop(key)

    def _note(self, key: PrefixKey) -> None:
        self._changes[key] = self.state(key)
