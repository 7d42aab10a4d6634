"""What the store tells about tasks and versions; frozen, times in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """One immutable version. `digests` in order; `position_offset` is resolved, one per site."""

    tenant: str
    task_id: str
    version: int
    digests: tuple[str, ...]
    method: str
    sites: Mapping[str, int]
    position_offset: Mapping[str, int]
    prefix_tokens: int
    bytes: int
    base_model: str | None
    description: str | None
    created_at: float


@dataclass(frozen=True)
class Task:
    """`versions` counts the live ones; without an `active` one the task serves only by number."""

    tenant: str
    task_id: str
    active: Version | None
    versions: int
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Page(Generic[T]):
    """`next_cursor` None: there is no more."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class VerifyReport:
    """`missing` and `corrupt` are (tenant, digest) pairs."""

    checked: int
    missing: tuple[tuple[str, str], ...] = ()
    corrupt: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        return not self.missing and not self.corrupt


@dataclass(frozen=True)
class GcReport:
    """What a collection removed; `temporary` counts the remains of uploads that never ended."""

    blobs: int
    bytes: int
    temporary: int
