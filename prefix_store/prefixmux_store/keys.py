"""The keys of tenants: made, found by their hash, listed, revoked.

Only the sha256 of a key is kept: 256 random bits need no slower hash, and no salt. Knows nothing
of requests nor of what a scope permits.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prefixmux_store.checks import check_description
from prefixmux_store.connections import Connections
from prefixmux_store.errors import InvalidRequest, KeyNotFound
from prefixmux_store.guard import Guard
from prefixmux_store.names import check_tenant

SCOPES = ("generate", "read", "write", "admin")
_PREFIX = "pmx_"
_MARK = "keys"
_COLUMNS = "id, tenant, scopes, description, created_at, revoked_at"


@dataclass(frozen=True)
class Key:
    """What is known of a key but the key itself; times in seconds since 1970."""

    id: str
    tenant: str
    scopes: frozenset[str]
    description: str | None
    created_at: float
    revoked_at: float | None


@dataclass(frozen=True)
class NewKey:
    """`key` is told here and never again."""

    key: str
    record: Key

    def __repr__(self) -> str:
        return f"NewKey({self.record.id})"


def key_hash(key: str) -> str:
    """What `KeyRing.find` wants, of any text."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """Of one store; any thread. A change is seen by every process at its next `find`."""

    def __init__(self, connections: Connections, guard: Guard, clock: Callable[[], float]) -> None:
        self._connections = connections
        self._guard = guard
        self._clock = clock

    def create(self, tenant: str, scopes: Iterable[str], description: str | None = None) -> NewKey:
        """Durable when this returns. Raises `InvalidTenant`, `InvalidRequest` for no scope, an
        unknown one, or a description that cannot be kept."""
        key = _PREFIX + secrets.token_urlsafe(32)
        record = Key(
            id=f"key_{secrets.token_hex(8)}",
            tenant=check_tenant(tenant),
            scopes=_check_scopes(scopes),
            description=check_description(description),
            created_at=self._clock(),
            revoked_at=None,
        )
        with self._guard.writing(), self._connections.writing() as db:
            db.execute("INSERT OR IGNORE INTO mark VALUES (?)", (_MARK,))
            db.execute(
                f"INSERT INTO api_key (hash, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    key_hash(key),
                    record.id,
                    record.tenant,
                    " ".join(sorted(record.scopes, key=SCOPES.index)),
                    record.description,
                    record.created_at,
                    None,
                ),
            )
        return NewKey(key, record)

    def find(self, sha256_hex: str) -> Key | None:
        """None for a revoked key as for one that never was."""
        statement = f"SELECT {_COLUMNS} FROM api_key WHERE hash = ? AND revoked_at IS NULL"
        with self._connections.reading() as db:
            row = db.execute(statement, (sha256_hex,)).fetchone()
        return None if row is None else _key_of(row)

    def list(self, tenant: str | None = None) -> tuple[Key, ...]:
        """The oldest first, revoked ones too; None: of every tenant."""
        statement = f"""SELECT {_COLUMNS} FROM api_key WHERE tenant = coalesce(?, tenant)
            ORDER BY created_at, id"""
        with self._connections.reading() as db:
            return tuple(map(_key_of, db.execute(statement, (tenant,)).fetchall()))

    def revoke(self, key_id: str) -> Key:
        """Revoking again changes nothing. Raises `KeyNotFound`."""
        with self._guard.writing(), self._connections.writing() as db:
            db.execute(
                "UPDATE api_key SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
                (self._clock(), key_id),
            )
            statement = f"SELECT {_COLUMNS} FROM api_key WHERE id = ?"
            row = db.execute(statement, (key_id,)).fetchone()
        if row is None:
            raise KeyNotFound
        return _key_of(row)

    def required(self) -> bool:
        """Whether this store has ever had a key: true once, true for ever."""
        statement = "SELECT EXISTS (SELECT 1 FROM mark WHERE name = ?)"
        with self._connections.reading() as db:
            return bool(db.execute(statement, (_MARK,)).fetchone()[0])


def _check_scopes(scopes: Iterable[str]) -> frozenset[str]:
    found = frozenset(scopes)
    if not found or not found <= set(SCOPES):
        raise InvalidRequest(f"A key has one scope or more of {', '.join(SCOPES)}.", param="scopes")
    return found


def _key_of(row: Sequence[Any]) -> Key:
    key_id, tenant, scopes, *rest = row
    return Key(key_id, tenant, frozenset(scopes.split()), *rest)
