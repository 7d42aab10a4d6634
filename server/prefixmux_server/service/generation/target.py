"""Which stored prefixes a request runs with, once its names are resolved.

What is found here is what the request keeps until it ends, whatever happens to the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prefixmux_server.errors import InvalidRequest
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_store.content import Content, composed
from prefixmux_store.meta import INFIX_METHODS
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Defaults, Part, Version


@dataclass(frozen=True)
class Target:
    """`task_id` None: the bare model without `parts`, else a composition of the request's own,
    which has no defaults. `sites`, `position_offset` and `prefix_tokens` are sums over the parts.
    """

    task_id: str | None = None
    version: int | None = None
    parts: tuple[Part, ...] = ()
    sites: Mapping[str, int] = field(default_factory=dict)
    position_offset: Mapping[str, int] = field(default_factory=dict)
    prefix_tokens: int = 0
    defaults: Defaults = field(default_factory=Defaults)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(part.digest for part in self.parts)

    @property
    def has_infix(self) -> bool:
        return any(part.method in INFIX_METHODS for part in self.parts)

    @property
    def has_text(self) -> bool:
        """Whether the prompt begins in a prefix, which then holds what stands before any text."""
        return any(part.method == "TEXT" for part in self.parts)


def resolve(store: PrefixStore, tenant: str, request: GenerationRequest) -> Target:
    """Raises the store's errors for unknown tasks and versions, `InvalidRequest` for names that
    do not go together."""
    if request.compose:
        return _composition(store, tenant, request)
    if request.task_id is not None:
        return _stored(store.resolve(tenant, request.task_id, request.version))
    if request.version is not None:
        raise InvalidRequest("A version needs the task_id it is of.", param="version")
    return Target()


def _composition(store: PrefixStore, tenant: str, request: GenerationRequest) -> Target:
    for name, value in (("task_id", request.task_id), ("version", request.version)):
        if value is not None:
            raise InvalidRequest(
                f"compose names the prefixes of the request; leave {name} out.", param=name
            )
    names = [(part.task_id, part.version) for part in request.compose]
    return of_content(composed(store.resolve_parts(tenant, names)))


def of_content(content: Content) -> Target:
    """A composition that no task stores."""
    return Target(
        parts=content.parts or (),
        sites=content.sites,
        position_offset=content.position_offset,
        prefix_tokens=content.prefix_tokens,
    )


def _stored(version: Version) -> Target:
    return Target(
        task_id=version.task_id,
        version=version.version,
        parts=version.parts,
        sites=version.sites,
        position_offset=version.position_offset,
        prefix_tokens=version.prefix_tokens,
        defaults=version.defaults,
    )
