"""What a server should know: a model of it in a few dicts, for tests that do things at random."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class TaskBook:
    """`live`: digests by version; numbers are never used twice, `last` survives a deletion."""

    live: dict[int, str] = field(default_factory=dict)
    last: int = 0
    active: int | None = None

    def digest(self, version: int | None) -> str | None:
        """None: there is no such version."""
        number = self.active if version is None else version
        return None if number is None else self.live.get(number)


@dataclass
class TenantBook:
    """`pinned`: (task, version); `requests`: those that had a row, by task."""

    tasks: dict[str, TaskBook] = field(default_factory=dict)
    pinned: set[tuple[str, int]] = field(default_factory=set)
    requests: Counter[str | None] = field(default_factory=Counter)
    deleted: dict[str, int] = field(default_factory=dict)

    def upload(self, task_id: str, digest: str, *, activate: bool) -> tuple[int, bool]:
        """The version that holds the content, and whether it is new."""
        task = self.tasks.setdefault(task_id, TaskBook(last=self.deleted.get(task_id, 0)))
        held = [number for number, known in task.live.items() if known == digest]
        if not held:
            task.last += 1
            task.live[task.last] = digest
        version = max(held, default=task.last)
        if activate:
            task.active = version
        return version, not held

    def delete(self, task_id: str, version: int | None = None) -> int:
        """Returns the status that says how it went."""
        task = self.tasks.get(task_id)
        if task is None or (version is not None and version not in task.live):
            return 404
        if version is None:
            self.deleted[task_id] = task.last
            del self.tasks[task_id]
        elif version == task.active:
            return 409
        else:
            del task.live[version]
        gone = (None, version)
        self.pinned = {
            pin for pin in self.pinned if pin[0] != task_id or (version and pin[1] not in gone)
        }
        return 204

    def activate(self, task_id: str, version: int) -> int:
        task = self.tasks.get(task_id)
        if task is None or version not in task.live:
            return 404
        task.active = version
        return 200

    def named(self, task_id: str, version: int | None) -> tuple[int, str] | None:
        """Version and digest that a request gets, if there are any."""
        task = self.tasks.get(task_id)
        number = None if task is None else (task.active if version is None else version)
        if task is None or number is None or number not in task.live:
            return None
        return number, task.live[number]
