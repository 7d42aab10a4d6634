"""What a store has to hold: the simplest model of tasks and versions, in plain values.

Shared by everything that compares a store with what it should be: the state machine, the killed
writers and the replayed crashes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from prefixmux_store.content import MAX_PARTS
from prefixmux_store.errors import InvalidRequest, TaskNotFound, VersionActive, VersionNotFound
from prefixmux_store.names import digest_of
from prefixmux_store.store import PrefixStore
from prefixmux_store.tenants import Footprint
from prefixmux_store.types import Version
from store.makers import prefix

TENANT = "default"
Kind = Literal[
    "put", "quiet_put", "compose", "activate", "delete_task", "delete_version", "discard", "gc"
]
# Task, version and digest of each part, by the names it had when the version was made.
Parts = tuple[tuple[str, int, str], ...]
# An upload is its own part, by its number.
PartsOf = Callable[[int], Parts]


@dataclass(frozen=True)
class Op:
    """One operation; `content` is a seed of `prefix`, `version` a number or 0, `parts` the tasks
    whose active versions are composed."""

    kind: Kind
    task_id: str = ""
    content: int = 0
    version: int = 0
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskState:
    versions: tuple[tuple[int, Parts], ...]
    active: int | None

    def number_of(self, parts: PartsOf) -> int | None:
        return max(
            (number for number, held in self.versions if held == parts(number)), default=None
        )

    @property
    def digests(self) -> set[str]:
        return {digest for _, parts in self.versions for _, _, digest in parts}


@dataclass(frozen=True)
class State:
    """Live tasks, and the last number ever given to each, dead ones too."""

    tasks: Mapping[str, TaskState]
    last: Mapping[str, int]

    def of(self, names: frozenset[str]) -> dict[str, TaskState]:
        return {name: task for name, task in self.tasks.items() if name in names}

    @property
    def digests(self) -> set[str]:
        """All that a live version needs."""
        return {digest for task in self.tasks.values() for digest in task.digests}


EMPTY = State({}, {})


def expected(state: State, op: Op) -> tuple[State, str]:
    """The state after an operation, and a word for its outcome."""
    if op.kind in {"discard", "gc"}:
        return state, "done"
    task = state.tasks.get(op.task_id)
    if op.kind in {"put", "quiet_put"}:
        digest = digest_of(prefix(op.content))
        return _put(state, op, lambda number: ((op.task_id, number, digest),))
    if op.kind == "compose":
        parts = _composed(state, op)
        return (state, parts) if isinstance(parts, str) else _put(state, op, lambda _: parts)
    if task is None:
        return state, "no task"
    if op.kind == "delete_task":
        rest = {name: kept for name, kept in state.tasks.items() if name != op.task_id}
        return replace(state, tasks=rest), "done"
    if op.kind == "delete_version" and op.version == task.active:
        return state, "active"
    if op.version not in dict(task.versions):
        return state, "no version"
    if op.kind == "activate":
        return _with(state, op.task_id, replace(task, active=op.version)), "done"
    versions = tuple(pair for pair in task.versions if pair[0] != op.version)
    return _with(state, op.task_id, replace(task, versions=versions)), "done"


def perform(store: PrefixStore, op: Op) -> str:
    """The same outcome, from the store itself."""
    try:
        match op.kind:
            case "put" | "quiet_put":
                staged = store.stage(TENANT, prefix(op.content))
                active = op.kind == "put"
                version, created = store.commit(TENANT, op.task_id, staged, activate=active)
                return f"{'new' if created else 'old'} {version.version}"
            case "compose":
                parts = [(name, None) for name in op.parts]
                version, created = store.compose(TENANT, op.task_id, parts)
                return f"{'new' if created else 'old'} {version.version}"
            case "activate":
                store.activate(TENANT, op.task_id, op.version)
            case "delete_task":
                store.delete_task(TENANT, op.task_id)
            case "delete_version":
                store.delete_version(TENANT, op.task_id, op.version)
            case "discard":
                store.discard(TENANT, store.stage(TENANT, prefix(op.content)).digest)
            case "gc":
                # The file system's clock may lag: everything that exists by now is old enough.
                store.gc(-10)
    except TaskNotFound:
        return "no task"
    except VersionNotFound:
        return "no version"
    except VersionActive:
        return "active"
    except InvalidRequest:
        return "too many"
    return "done"


def observed(store: PrefixStore) -> dict[str, TaskState]:
    """All that the store shows, by every way of asking that has to agree."""
    tasks: dict[str, TaskState] = {}
    for task in store.list_tasks(TENANT, limit=500).items:
        assert store.get_task(TENANT, task.task_id) == task
        versions = store.list_versions(TENANT, task.task_id, limit=500).items
        assert task.versions == len(versions)
        assert task.active is None or task.active in versions
        for version in versions:
            assert store.get_version(TENANT, task.task_id, version.version) == version
            assert tuple(part.digest for part in version.parts) == version.digests
        pairs = tuple((version.version, _parts(version)) for version in versions)
        tasks[task.task_id] = TaskState(pairs, task.active.version if task.active else None)
    assert store.footprint(TENANT) == _footprint(tasks)
    return tasks


def _footprint(tasks: Mapping[str, TaskState]) -> Footprint:
    """All files of the ledger are of one size."""
    digests = {digest for task in tasks.values() for digest in task.digests}
    versions = sum(len(task.versions) for task in tasks.values())
    return Footprint(len(tasks), versions, len(digests) * len(prefix()))


def _parts(version: Version) -> Parts:
    return tuple((part.task_id, part.version, part.digest) for part in version.parts)


def _composed(state: State, op: Op) -> Parts | str:
    """The parts, or a word for why there are none."""
    found: Parts = ()
    for name in op.parts:
        if (task := state.tasks.get(name)) is None:
            return "no task"
        if task.active is None:
            return "no version"
        found += dict(task.versions)[task.active]
    return found if len(found) <= MAX_PARTS else "too many"


def _put(state: State, op: Op, parts: PartsOf) -> tuple[State, str]:
    task = state.tasks.get(op.task_id) or TaskState((), None)
    number = task.number_of(parts)
    outcome = f"old {number}"
    if number is None:
        number = state.last.get(op.task_id, 0) + 1
        state = replace(state, last={**state.last, op.task_id: number})
        task = replace(task, versions=(*task.versions, (number, parts(number))))
        outcome = f"new {number}"
    if op.kind in {"put", "compose"}:
        task = replace(task, active=number)
    return _with(state, op.task_id, task), outcome


def _with(state: State, task_id: str, task: TaskState) -> State:
    return replace(state, tasks={**state.tasks, task_id: task})
