"""Which prefixes are where: the only owner of that knowledge.

    ABSENT -> LOADING -> HOST -> DEVICE
                 `-----> FAILED

Keyed by (tenant, digest); one engine serves one dtype. A pin (of a waiting or running request)
keeps a prefix in host memory, a placement reference (of a running one) keeps it placed for rows.
What nobody references may be evicted, least recently used first, to stay within the byte budgets.
Eviction forgets the whole entry at once, so a prefix can never be believed present and be gone.

What is kept (`keep`) is loaded without a request as soon as there is room, and not evicted. It has
at most half of the budget, so that there is always room for others, and it makes way for a request
that fits into nothing less. On the device it goes last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cachetools import LRUCache

from prefixmux_server.memory.kept import Kept
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
        self._kept = Kept(host_bytes // 2)
        self._loads = 0
        self._host_bytes = self._device_bytes = 0
        self._awaited: set[PrefixKey] = set()
        self._settled = 0, True
        self.version = 0

    @property
    def host_bytes(self) -> int:
        """Also of what is only on its way."""
        return self._host_bytes

    @property
    def device_bytes(self) -> int:
        return self._device_bytes

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

    def keep(self, key: PrefixKey) -> None:
        """From now on. What has failed before is tried again."""
        if not self._kept.holds(key):
            self._kept.miss(key)
            self.version += 1

    def let_go(self, key: PrefixKey) -> None:
        """Keep it no more; it stays until its room is needed."""
        self._kept.forget(key)
        self.version += 1

    def keeps(self, key: PrefixKey) -> bool:
        """Whether it is there, or on its way, and safe."""
        return self._kept.holds(key)

    @property
    def unsettled(self) -> bool:
        """Whether there is something to do, or to wait for, for what is kept."""
        open_wish = not self._kept.complete
        return bool(self._awaited) or (
            open_wish and (self._loads > 0 or self._settled != (self.version, True))
        )

    def settle(self, *, load: bool) -> None:
        """Hold what is to be kept, as far as there is room; `load` what is absent, leaving half
        of the loader to requests."""
        if self._settled == (self.version, load):
            return
        self._settled = self.version, load
        for key in self._kept.missing:
            size = self._size(key)
            if size > self._kept.most:
                self._give_up(key, "it is larger than half of the memory for prefixes")
            elif self._kept.fits(size) and self._is_coming(key, load=load):
                self._kept.hold(key, size)
                if self.state(key) is State.LOADING:
                    self._awaited.add(key)

    def make_way(self, keys: Iterable[PrefixKey]) -> bool:
        """Keep no more what these could not be loaded beside. False: that is not what hinders."""
        wanted = set(keys)
        others = [key for key in self._entries if self._kept.holds(key) and key not in wanted]
        missing = sum(map(self._size, [*wanted, *others])) - self._host_budget
        given = False
        for key in others:
            if missing <= 0:
                break
            self._kept.miss(key)
            missing -= self._size(key)
            given = True
        return given

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
            self._set_placement(entry, placement)
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
        entries = self._entries.values()
        assert self.host_bytes == sum(entry.size for entry in entries), "bytes are miscounted"
        placed = sum(entry.size for entry in entries if entry.placement is not None)
        assert self.device_bytes == placed, "bytes on the device are miscounted"
        assert self.host_bytes <= self._host_budget, "more prefixes in memory than allowed"
        assert self.device_bytes <= self._device_budget, "more prefixes on the device than allowed"
        self._kept.check_integrity()
        assert all(key in self._entries for key in self._kept.held), "what is kept is gone"
        for entry in self._entries.values():
            assert entry.pins >= entry.users >= 0, "a row sees a prefix that nobody pinned"
            shared = self._memory.shares_prefixes and entry.users > 0
            assert not shared or entry.placement is not None, "a row sees no placement"

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
        self._host_bytes += size
        self._loads += 1
        self._loader.start(key)
        return entry

    def _take_in(self, loaded: Loaded) -> None:
        self._loads -= 1
        self.version += 1
        self._awaited.discard(loaded.key)
        entry = self._entries[loaded.key]
        result = self._compiled(loaded.result)
        if isinstance(result, PrefixLoadError):
            entry.failure = result
            self._resize(entry, 0)
            if self._kept.holds(loaded.key):
                self._give_up(loaded.key, result.code)
            if not entry.pins:
                del self._entries[loaded.key]
        else:
            entry.kv = result
            self._sizes[loaded.key] = result.nbytes
            self._resize(entry, result.nbytes)
            self._kept.hope(loaded.key)
            if self._kept.holds(loaded.key):
                self._kept.resize(loaded.key, entry.size)
                self._place_ahead(entry, result)
        self._note(loaded.key)

    def _resize(self, entry: _Entry, size: int) -> None:
        self._host_bytes += size - entry.size
        entry.size = size

    def _is_coming(self, key: PrefixKey, *, load: bool) -> bool:
        """Whether it is there, or on its way, if only by now."""
        entry = self._entries.get(key)
        if entry is not None:
            return entry.failure is None
        return load and self._loads < MAX_LOADS // 2 and self._load(key) is not None

    def _give_up(self, key: PrefixKey, why: str) -> None:
        self._kept.give_up(key)
        logging.getLogger(__name__).warning(
            "pinned prefix %s of tenant %s is not kept loaded: %s", key.digest, key.tenant, why
        )

    def _place_ahead(self, entry: _Entry, kv: PrefixKV) -> None:
        """On the device, too, where that costs nobody anything."""
        free = self._device_budget - self.device_bytes
        if self._memory.shares_prefixes and entry.size <= free:
            placement = self._memory.place(kv)
            if placement is not None:
                self._set_placement(entry, placement)

    def _set_placement(self, entry: _Entry, placement: PlacedPrefix | None) -> None:
        before = entry.size if entry.placement is not None else 0
        entry.placement = placement
        self._device_bytes += (entry.size if placement is not None else 0) - before

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
            if not entry.pins and entry.kv is not None and not self._kept.holds(key):
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
        """Free the device memory of the oldest prefix that no row sees, of what is kept last;
        False: there is none."""
        for kept in (False, True):
            for key, entry in self._entries.items():
                idle = entry.placement is not None and not entry.users
                if idle and self._kept.holds(key) == kept:
                    self._displace(key)
                    return True
        return False

    def _displace(self, key: PrefixKey) -> None:
        entry = self._entries[key]
        assert entry.placement is not None and not entry.users
        self._memory.displace(entry.placement)
        self._set_placement(entry, None)
        self._note(key)

    def _evict(self, key: PrefixKey) -> None:
        if self._entries[key].placement is not None:
            self._displace(key)
        self._host_bytes -= self._entries.pop(key).size
        self._note(key)

    def _touch(self, key: PrefixKey) -> None:
        self._entries[key] = self._entries.pop(key)

    def _note(self, key: PrefixKey) -> None:
        self._changes[key] = self.state(key)
