"""Who a request is for. Owns the scopes; does not know how a tenant is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefixmux_server.errors import Forbidden

Scope = Literal["generate", "read", "write", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset(("generate", "read", "write", "admin"))


@dataclass(frozen=True)
class Tenant:
    """Owns every task, version and request made in its name. `key_id` None: no key was needed."""

    name: str
    scopes: frozenset[Scope] = ALL_SCOPES
    key_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """`admin` is all of its own tenant."""
        return scope in self.scopes or "admin" in self.scopes

    def require(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the tenant may do this."""
        if not self.may(scope):
            raise Forbidden(f"This key has no scope {scope}; use one that has it.")


def anonymous() -> Tenant:
    """The one tenant of a store that never had a key."""
    return Tenant("default")
