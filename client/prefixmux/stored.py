"""Answers about what is stored: tasks, their versions, and pages of both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prefixmux.answer import Answer, Wire


class VersionPart(Wire):
    """One stored prefix of a version, by the name it had when the version was made."""

    task_id: str
    version: int
    digest: str
    tokens: int
    method: str


class Version(Answer):
    """One immutable version of a task's prefix; sizes in bytes, `created_at` in unix seconds.

    A `pinned` version stays in memory. `parts` are its prefixes in order, itself alone unless it
    was composed. `template` and `parameters` hold for requests that say nothing themselves.
    """

    task_id: str
    version: int
    prefix_digest: str
    method: str
    sites: dict[str, int] = Field(default_factory=dict)
    prefix_tokens: int
    bytes: int
    base_model: str | None = None
    description: str | None = None
    created_at: float
    residency: Literal["device", "host", "disk"] | str | None = None
    pinned: bool = False
    base_fingerprint: str | None = None
    parts: tuple[VersionPart, ...] = ()
    template: str | None = None
    parameters: dict[str, object] = Field(default_factory=dict)


class Task(Answer):
    """A task: how many versions it has and the one that serves (None: none activated yet)."""

    task_id: str
    active_version: int | None
    versions: int
    created_at: float
    updated_at: float
    active: Version | None = None


class TaskPage(Answer):
    items: tuple[Task, ...]
    next_cursor: str | None = None


class VersionPage(Answer):
    items: tuple[Version, ...]
    next_cursor: str | None = None
