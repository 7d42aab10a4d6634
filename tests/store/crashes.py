"""What a disk may hold after a power cut, given the log of what was done to it.

A change that was not synced may be there, in part or not at all, whatever came after it; a synced
one is there. Names are durable by a sync of their folder, content by a sync of the file.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.ledger import EMPTY, State
from store.recording import (
    Begun,
    Catalogued,
    Event,
    Folder,
    Link,
    Rename,
    Returned,
    Sync,
    SyncFolder,
    Unlink,
    Write,
)

RANDOM_CHOICES = 6
Change = Folder | Link | Rename | Unlink | Write
DROPPED, TORN, KEPT = 0, 1, 2


@dataclass(frozen=True)
class Disk:
    """One outcome of the cut. `allowed` are the states that the store may show on it."""

    files: frozenset[tuple[Path, bytes]]
    folders: frozenset[Path]
    catalogue: bytes = field(compare=False)
    catalogued: State
    allowed: tuple[State, ...]

    def lay_out(self, root: Path, catalogue_name: str) -> None:
        root.mkdir()
        (root / catalogue_name).write_bytes(self.catalogue)
        for folder in sorted(self.folders):
            (root / folder).mkdir()
        for path, data in self.files:
            (root / path).write_bytes(data)

    def __hash__(self) -> int:
        return hash((self.files, self.folders))


def disks(log: Sequence[Event], seed: int) -> Iterator[Disk]:
    """Every outcome worth a look of a cut right after the log's last event."""
    durable: list[Change] = []
    pending: list[Change] = []
    before = after = catalogued = EMPTY
    returned = True
    content = b""
    for event in log:
        match event:
            case Begun():
                before, after, returned = event.before, event.after, False
            case Returned():
                returned = True
            case Catalogued():
                content, catalogued = event.content, after
            case Sync() | SyncFolder():
                settled = [change for change in pending if _settles(event, change)]
                durable += settled
                pending = [change for change in pending if change not in settled]
            case _:
                pending.append(event)
    allowed = (after,) if returned else (before, after)
    for choice in _choices(len(pending), random.Random(seed)):
        kept = [
            *durable,
            *(_torn(change, how) for change, how in zip(pending, choice, strict=True) if how),
        ]
        files, folders = _outcome(kept)
        yield Disk(files, folders, content, catalogued, allowed)


def _settles(event: Sync | SyncFolder, change: Change) -> bool:
    match change:
        case Write():
            return isinstance(event, Sync) and change.file == event.file
        case Rename():
            return isinstance(event, SyncFolder) and change.target.parent == event.path
        case _:
            return isinstance(event, SyncFolder) and change.path.parent == event.path


def _choices(count: int, draw: random.Random) -> Iterator[tuple[int, ...]]:
    yield (KEPT,) * count
    yield (DROPPED,) * count
    for place in range(count):
        for one, others in ((KEPT, DROPPED), (TORN, DROPPED), (DROPPED, KEPT), (TORN, KEPT)):
            yield tuple(one if at == place else others for at in range(count))
    for _ in range(RANDOM_CHOICES if count > 2 else 0):
        yield tuple(draw.choice((DROPPED, TORN, KEPT)) for _ in range(count))


def _torn(change: Change, how: int) -> Change:
    if how == TORN and isinstance(change, Write):
        return Write(change.file, change.data[: len(change.data) // 2])
    return change


def _outcome(changes: list[Change]) -> tuple[frozenset[tuple[Path, bytes]], frozenset[Path]]:
    names: dict[Path, int] = {}
    content: dict[int, bytes] = {}
    folders: set[Path] = set()
    for change in changes:
        match change:
            case Folder():
                folders.add(change.path)
            case Link():
                names[change.path] = change.file
            case Write():
                content[change.file] = content.get(change.file, b"") + change.data
            case Rename():
                names.pop(change.source, None)
                names[change.target] = change.file
            case Unlink():
                names.pop(change.path, None)
    whole = {folder for folder in folders if set(folder.parents) <= {*folders, Path()}}
    return (
        frozenset(
            (path, content.get(file, b"")) for path, file in names.items() if path.parent in whole
        ),
        frozenset(whole),
    )
