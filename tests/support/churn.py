"""Canary tasks in a real store that never rests: uploads, switches, deletes, collections."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from prefixmux_store.store import PrefixStore
from prefixmux_store.validate import ModelShape
from support.canary import RESERVED, VOCABULARY, Codes

Name = tuple[str, str]
"""Tenant and task."""
LONGEST = 40
_BUSY = 50
"""So many tasks get all new versions, so that there is something to switch between."""


@dataclass
class Churn:
    """Every version of every task says a token of its own; `says` is that token by digest.

    `retired` are versions that the catalogue no longer names. A collection takes their files at
    once, so only memory can still serve them.
    """

    store: PrefixStore
    codes: Codes
    shape: ModelShape
    rng: random.Random
    live: list[Name] = field(default_factory=list)
    dead: list[Name] = field(default_factory=list)
    says: dict[str, int] = field(default_factory=dict)
    retired: list[tuple[str, str]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def create(self, names: list[Name]) -> None:
        for name in names:
            self._upload(name, activate=True)
            self.live.append(name)

    def turn(self) -> None:
        """One random change; none any more once every token is some version's own."""
        if RESERVED + len(self.says) >= VOCABULARY:
            return
        (action,) = self.rng.choices(
            [self._update, self._revive, self._switch, self._drop, self._delete, self._collect],
            [4, 2, 4, 1, 2, 2],
        )
        action()

    def resolve(self, name: Name) -> str:
        """The digest of the active version, or of any other one."""
        versions = self.store.list_versions(*name).items
        wanted = None if self.rng.random() < 0.7 else self.rng.choice(versions).version
        return self.store.resolve(*name, wanted).digests[0]

    def _update(self) -> None:
        self._upload(self.rng.choice(self.live[:_BUSY]), activate=self.rng.random() < 0.8)

    def _revive(self) -> None:
        if self.dead:
            name = self.dead.pop(self.rng.randrange(len(self.dead)))
            self._upload(name, activate=True)
            self.live.append(name)

    def _upload(self, name: Name, *, activate: bool) -> None:
        token = RESERVED + len(self.says)
        data = self.codes.prefix(token, 1 + token % LONGEST)
        staged = self.store.stage(name[0], data, shape=self.shape)
        _, created = self.store.commit(*name, staged, activate=activate)
        assert created
        self.says[staged.digest] = token
        self.done["uploads"] += 1

    def _switch(self) -> None:
        name = self.rng.choice(self.live[:_BUSY])
        version = self.rng.choice(self.store.list_versions(*name).items)
        before = self.store.resolve(*name, None)
        self.store.activate(*name, version.version)
        self.done["switches"] += before.version != version.version

    def _drop(self) -> None:
        name = self.rng.choice(self.live)
        active = self.store.resolve(*name, None).version
        for version in self.store.list_versions(*name).items:
            if version.version != active:
                self.store.delete_version(*name, version.version)
                self.retired.append((name[0], version.digests[0]))
                self.done["dropped versions"] += 1
                return

    def _delete(self) -> None:
        name = self.live.pop(self.rng.randrange(len(self.live)))
        versions = self.store.list_versions(*name).items
        self.store.delete_task(*name)
        self.retired += [(name[0], version.digests[0]) for version in versions]
        self.dead.append(name)
        self.done["deleted tasks"] += 1

    def _collect(self) -> None:
        self.done["collected files"] += self.store.gc(0.0).blobs
