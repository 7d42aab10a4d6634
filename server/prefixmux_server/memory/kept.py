"""Which prefixes shall stay in memory though no request needs them, and which of them do.

Owns wishes and byte counts; what is in memory is told by `residency.py`, which loads and evicts.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefixmux_server.memory.prefix import PrefixKey


class Kept:
    """Every wish is held (in memory or on its way there, and safe), missing, or hopeless: it could
    not be loaded, which nobody tries again by itself. What is held is at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: dict[PrefixKey, int] = {}
        self._missing: dict[PrefixKey, None] = {}
        self._hopeless: set[PrefixKey] = set()
        self._bytes = 0

    @property
    def missing(self) -> Iterator[PrefixKey]:
        """In the order of the wishes. They may change meanwhile."""
        return iter(list(self._missing))

    @property
    def held(self) -> Iterator[PrefixKey]:
        return iter(self._held)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing that might be had."""
        return not self._missing

    def holds(self, key: PrefixKey) -> bool:
        return key in self._held

    def fits(self, size: int) -> bool:
        return self._bytes + size <= self.most

    def forget(self, key: PrefixKey) -> None:
        """Whatever became of the wish; a wish that was never made is none to forget."""
        self._release(key)
        self._missing.pop(key, None)
        self._hopeless.discard(key)

    def hold(self, key: PrefixKey, size: int) -> None:
        self.forget(key)
        self._held[key] = size
        self._bytes += size

    def miss(self, key: PrefixKey) -> None:
        """It is safe no more, or there is hope again."""
        self.forget(key)
        self._missing[key] = None

    def resize(self, key: PrefixKey, size: int) -> None:
        """What is held turns out to be as large as this: now that it is there."""
        self.miss(key)
        if self.fits(size):
            self.hold(key, size)

    def give_up(self, key: PrefixKey) -> None:
        self.forget(key)
        self._hopeless.add(key)

    def hope(self, key: PrefixKey) -> None:
        """It could be loaded after all."""
        if key in self._hopeless:
            self.miss(key)

    def check_integrity(self) -> None:
        assert self._bytes == sum(self._held.values()) <= self.most, "more is kept than allowed"
        wishes = [*self._held, *self._missing, *self._hopeless]
        assert len(wishes) == len(set(wishes)), "a wish has come to two things"

    def _release(self, key: PrefixKey) -> None:
        self._bytes -= self._held.pop(key, 0)
