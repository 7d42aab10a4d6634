"""From a key to its tenant. Owns how long an answer of the store is believed.

A store that never had a key is open to everyone as the tenant `default`; once it had one it never
is again.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import cast

from cachetools import TTLCache

from prefixmux_server.errors import Unauthorized
from prefixmux_server.service.tenants.tenant import ALL_SCOPES, Scope, Tenant, anonymous
from prefixmux_store.keys import KeyRing, key_hash

# Half of the second within which a new or a revoked key has to count.
BELIEVED_SECONDS = 0.5
MAX_KNOWN = 4096


class KeyService:
    """Of one event loop: a look-up in the store takes tens of microseconds, in the cache one."""

    def __init__(self, keys: KeyRing, clock: Callable[[], float] = monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._known: TTLCache[str, Tenant] = TTLCache(MAX_KNOWN, BELIEVED_SECONDS, clock)
        self._required = False
        self._open_until = float("-inf")

    def tenant_of(self, key: str | None) -> Tenant:
        """None: the request has no key, or nothing that could be one.

        Raises `Unauthorized`. Only keys that are good are remembered, so that no key and any bad
        one cost the same: a hash and a look-up, which compares hashes and never keys.
        """
        if not self.required():
            return anonymous()
        digest = key_hash(key or "")
        tenant = self._known.get(digest) or self._find(digest)
        if tenant is None:
            raise unauthorized()
        return tenant

    def required(self) -> bool:
        """Whether requests need a key."""
        if not self._required and self._clock() >= self._open_until:
            self._required = self._keys.required()
            self._open_until = self._clock() + BELIEVED_SECONDS
        return self._required

    def _find(self, digest: str) -> Tenant | None:
        if (found := self._keys.find(digest)) is None:
            return None
        scopes = cast("frozenset[Scope]", found.scopes & ALL_SCOPES)
        tenant = self._known[digest] = Tenant(found.tenant, scopes, found.id)
        return tenant


def unauthorized() -> Unauthorized:
    """The same for no key, a bad one and a revoked one."""
    return Unauthorized("Send a valid key of this server as `Authorization: Bearer <key>`.")
