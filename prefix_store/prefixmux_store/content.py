"""What a version will serve, before it has a number: one file, or stored prefixes in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prefixmux_store.errors import InvalidRequest
from prefixmux_store.format import PrefixFile
from prefixmux_store.meta import INFIX_METHODS
from prefixmux_store.names import joint_digest
from prefixmux_store.types import COMPOSITION, Part, Version

MAX_PARTS = 8


@dataclass(frozen=True)
class Content:
    """As in `Version`; `parts` None: the version is to be its own only part."""

    digests: tuple[str, ...]
    method: str
    sites: Mapping[str, int]
    position_offset: Mapping[str, int]
    prefix_tokens: int
    bytes: int
    base_model: str | None
    base_fingerprint: str | None
    parts: tuple[Part, ...] | None = None

    @property
    def prefix_digest(self) -> str:
        return joint_digest(self.digests)


def of_file(file: PrefixFile) -> Content:
    return Content(
        digests=(file.digest,),
        method=file.meta.method,
        sites=file.sites,
        position_offset={site: file.offset(site) for site in file.sites},
        prefix_tokens=file.tokens,
        bytes=file.nbytes,
        base_model=file.meta.base_model,
        base_fingerprint=file.meta.base.fingerprint,
    )


def composed(versions: Sequence[Version]) -> Content:
    """The versions one after another; one that is composed itself stands for its parts.

    Raises `InvalidRequest` for none, for more than `MAX_PARTS` prefixes and for two infixes.
    """
    parts = tuple(part for version in versions for part in version.parts)
    check_count(len(parts))
    _check_infixes(parts)
    return Content(
        digests=tuple(part.digest for part in parts),
        method=parts[0].method if len(parts) == 1 else COMPOSITION,
        sites=_sums([version.sites for version in versions]),
        position_offset=_sums([version.position_offset for version in versions]),
        prefix_tokens=sum(version.prefix_tokens for version in versions),
        bytes=sum(version.bytes for version in versions),
        base_model=_common(version.base_model for version in versions),
        base_fingerprint=_common(version.base_fingerprint for version in versions),
        parts=parts,
    )


def check_count(parts: int) -> None:
    if not 1 <= parts <= MAX_PARTS:
        raise InvalidRequest(
            f"A composition has 1 to {MAX_PARTS} prefixes, those of composed parts counted;"
            f" these are {parts}.",
            param="compose",
        )


def _check_infixes(parts: Sequence[Part]) -> None:
    if sum(part.method in INFIX_METHODS for part in parts) > 1:
        raise InvalidRequest(
            "A composition has one infix at most: leave all infixes but one out.", param="compose"
        )


def _common(claims: Iterable[str | None]) -> str | None:
    """What all say; None unless they agree."""
    said = set(claims)
    return said.pop() if len(said) == 1 else None


def _sums(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return {site: total[site] for site in sorted(total)}
