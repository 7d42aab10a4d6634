"""What the store tells about tasks and versions; frozen, times in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from prefixmux_store.names import joint_digest

T = TypeVar("T")
JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"

COMPOSITION = "COMPOSITION"


@dataclass(frozen=True)
class Defaults:
    """What a version says for requests that do not: the text around their input, in which
    `{input}` stands for it, and their parameters. Changes no digest."""

    template: str | None = None
    parameters: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One stored prefix of a version, by the name it had when the version was made; its task may
    be gone since. `tokens` are its virtual tokens."""

    task_id: str
    version: int
    digest: str
    tokens: int
    method: str


@dataclass(frozen=True)
class Version:
    """One immutable version. `position_offset` is resolved, one per site.

    `parts` names each of the `digests`, in order. An upload is its own only part; with several,
    `method` is COMPOSITION and sites, offsets, tokens and bytes are sums. `base_model` and
    `base_fingerprint` are what the file says it was made for, if all of several say the same.
    """

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
    base_fingerprint: str | None
    description: str | None
    created_at: float
    parts: tuple[Part, ...]
    defaults: Defaults

    @property
    def prefix_digest(self) -> str:
        """One name for all the digests."""
        return joint_digest(self.digests)


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
