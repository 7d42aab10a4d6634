"""Which versions are kept loaded.

Pins live as long as the server process: the engine is told again when it is replaced, a new
server begins without any (`--preload` pins at its start). A version that is deleted is let go.
"""

from __future__ import annotations

from typing import TypeAlias

from prefixmux_server.engine.front import EngineFront
from prefixmux_store.types import Version

Pinned: TypeAlias = tuple[str, str, int]


class Pins:
    """Of one event loop. Versions may share prefixes; one stays until the last lets go of it."""

    def __init__(self, engine: EngineFront) -> None:
        self._engine = engine
        self._held: dict[Pinned, tuple[str, ...]] = {}

    def holds(self, version: Version) -> bool:
        return _name(version) in self._held

    def set(self, version: Version, *, pinned: bool) -> None:
        if not pinned:
            self._release([_name(version)])
        elif not self.holds(version):
            self._held[_name(version)] = version.digests
            for digest in version.digests:
                self._engine.pin(version.tenant, digest, pinned=True)

    def forget(self, tenant: str, task_id: str, version: int | None = None) -> None:
        """A version that is no more, or all of a task."""
        self._release(
            [
                held
                for held in self._held
                if held[:2] == (tenant, task_id) and version in (None, held[2])
            ]
        )

    def _release(self, names: list[Pinned]) -> None:
        for name in names:
            for digest in self._held.pop(name, ()):
                if not self._needs(name[0], digest):
                    self._engine.pin(name[0], digest, pinned=False)

    def _needs(self, tenant: str, digest: str) -> bool:
        return any(name[0] == tenant and digest in digests for name, digests in self._held.items())


def _name(version: Version) -> Pinned:
    return version.tenant, version.task_id, version.version
