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

The parts are its own and shown to nobody: `entries.py`, `host.py`, `device.py`, `kept.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prefixmux_server.memory.device import DeviceRoom, PrefixMemory
from prefixmux_server.memory.entries import Entries, Entry, State
from prefixmux_server.memory.host import MAX_LOADS, Compile, HostRoom, as_stored
from prefixmux_server.memory.kept import Kept
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.memory import PlacedPrefix
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.source import PrefixLoadError


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
        self._entries = entries = Entries()
        self._kept = kept = Kept(host_bytes // 2)
        self._device = DeviceRoom(memory, entries, kept, device_bytes)
        self._host = HostRoom(loader, compile, entries, kept, self._device, host_bytes)
        self._awaited: set[PrefixKey] = set()
        self._settled = 0, True
        self.version = 0

    @property
    def host_bytes(self) -> int:
        """Also of what is only on its way."""
        return self._entries.host_bytes

    @property
    def device_bytes(self) -> int:
        return self._entries.device_bytes

    @property
    def busy(self) -> bool:
        """Whether what is absent has to wait for other loads to end."""
        return self._host.loads >= MAX_LOADS

    def state(self, key: PrefixKey) -> State | None:
        """None: absent."""
        return self._entries.state(key)

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
        return self._device.fits(prefixes)

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
        may_come = self._host.loads > 0 or self._settled != (self.version, True)
        return bool(self._awaited) or (open_wish and may_come)

    def settle(self, *, load: bool) -> None:
        """Hold what is to be kept, as far as there is room; `load` what is absent, leaving half
        of the loader to requests."""
        if self._settled == (self.version, load):
            return
        self._settled = self.version, load
        for key in self._kept.missing:
            size = self._host.size(key)
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
        missing = self._host.excess([*wanted, *others])
        given = False
        for key in others:
            if missing <= 0:
                break
            self._kept.miss(key)
            missing -= self._host.size(key)
            given = True
        return given

    def exceeds_budget(self, keys: Iterable[PrefixKey]) -> bool:
        """Whether these prefixes alone are more than the budget: then they can never be served."""
        return self._host.excess(set(keys)) > 0

    def pin(self, key: PrefixKey) -> bool:
        """Count one more request that needs this prefix, and see to it that it is loaded.

        False: no room in host memory now, or `busy`; nothing was counted. It may be tried again
        when `version` has changed.
        """
        entry = self._entries.get(key) or self._host.load(key)
        if entry is None:
            return False
        entry.pins += 1
        self._entries.touch(key)
        return True

    def unpin(self, key: PrefixKey) -> None:
        entry = self._entries[key]
        entry.pins -= 1
        assert entry.pins >= entry.users >= 0
        self._entries.touch(key)
        if not entry.pins:
            self.version += 1
        if entry.failure is not None and not entry.pins:
            self._entries.remove(key)

    def place(self, key: PrefixKey) -> PlacedPrefix | None:
        """Count one more row that sees this pinned prefix. None: no room on the device now."""
        return self._device.place(key)

    def unplace(self, key: PrefixKey) -> None:
        """A row is done with it. It stays placed until the room is needed."""
        self._device.unplace(key)

    def reclaim(self) -> bool:
        """Free the device memory of the oldest prefix that no row sees, of what is kept last;
        False: there is none."""
        return self._device.reclaim()

    def collect(self) -> None:
        """Take in the loads that have ended."""
        for key, entry in self._host.arrivals():
            self._take_in(key, entry)

    def drain_changes(self) -> list[tuple[PrefixKey, State | None]]:
        """Where prefixes have gone since the last call; None: no longer in memory."""
        return self._entries.drain_moves()

    def close(self) -> None:
        """End the loader's threads."""
        self._host.close()

    def references(self) -> dict[PrefixKey, tuple[int, int]]:
        """How many requests have pinned a prefix, and of how many it is placed for their rows."""
        return self._entries.references()

    def check_integrity(self) -> None:
        self._entries.check_integrity()
        self._host.check_integrity()
        self._device.check_integrity()
        self._kept.check_integrity()
        assert all(key in self._entries for key in self._kept.held), "what is kept is gone"

    def _take_in(self, key: PrefixKey, entry: Entry) -> None:
        self.version += 1
        self._awaited.discard(key)
        if entry.failure is not None:
            if self._kept.holds(key):
                self._give_up(key, entry.failure.code)
            if not entry.pins:
                self._entries.remove(key)
        else:
            self._kept.hope(key)
            if self._kept.holds(key):
                self._kept.resize(key, entry.size)
                self._device.place_ahead(entry)
        self._entries.note(key)

    def _is_coming(self, key: PrefixKey, *, load: bool) -> bool:
        """Whether it is there, or on its way, if only by now."""
        entry = self._entries.get(key)
        if entry is not None:
            return entry.failure is None
        return load and self._host.loads < MAX_LOADS // 2 and self._host.load(key) is not None

    def _give_up(self, key: PrefixKey, why: str) -> None:
        self._kept.give_up(key)
        logging.getLogger(__name__).warning(
            "pinned prefix %s of tenant %s is not kept loaded: %s", key.digest, key.tenant, why
        )
