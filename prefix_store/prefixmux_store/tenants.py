"""What each tenant may have and do at most, set by an operator, and how much it has.

Keeps figures; who enforces them, and when, is another's business.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass

from prefixmux_store.connections import Connections
from prefixmux_store.errors import InvalidRequest
from prefixmux_store.guard import Guard
from prefixmux_store.names import check_tenant

# Integers up to here survive every JSON parser.
_LARGEST = 2**53
_LEAST_WEIGHT, _LARGEST_WEIGHT = 1e-6, 1e6


@dataclass(frozen=True)
class TenantLimits:
    """None: no limit. `weight` is the tenant's share of the batch beside others'."""

    max_tasks: int | None = None
    max_bytes: int | None = None
    max_running: int | None = None
    max_waiting: int | None = None
    tokens_per_minute: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Footprint:
    """Of what is live: a file that several versions need counts once."""

    tasks: int = 0
    versions: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class KnownTenant:
    name: str
    limits: TenantLimits
    footprint: Footprint


_DEFAULT = asdict(TenantLimits())
_COUNTS = "max_tasks, max_bytes, max_running, max_waiting, tokens_per_minute"
_COLUMNS = f"{_COUNTS}, weight"
_KNOWN = f"""
SELECT known.tenant, coalesce(tasks, 0), coalesce(versions, 0), coalesce(bytes, 0),
    {_COUNTS}, coalesce(weight, {TenantLimits.weight})
FROM (SELECT tenant FROM footprint UNION SELECT tenant FROM tenant_limits
    UNION SELECT tenant FROM api_key UNION SELECT tenant FROM usage) known
LEFT JOIN footprint USING (tenant) LEFT JOIN tenant_limits USING (tenant)
ORDER BY known.tenant
"""


class Tenants:
    """Of one store; any thread."""

    def __init__(self, connections: Connections, guard: Guard) -> None:
        self._connections = connections
        self._guard = guard

    def limits(self, tenant: str) -> TenantLimits:
        """Those of a tenant that none were set for are the default ones."""
        with self._connections.reading() as db:
            return limits_of(db, tenant)

    def set(self, tenant: str, **changes: float | None) -> TenantLimits:
        """Changes the limits named; None takes one away. Raises `InvalidTenant`,
        `InvalidRequest`."""
        check_tenant(tenant)
        for name, value in changes.items():
            _check(name, value)
        with self._guard.writing(), self._connections.writing() as db:
            cleared = {name: _DEFAULT[name] for name, value in changes.items() if value is None}
            values = asdict(limits_of(db, tenant)) | changes | cleared
            marks = ", ".join("?" * len(values))
            db.execute(
                f"INSERT OR REPLACE INTO tenant_limits (tenant, {_COLUMNS}) VALUES (?, {marks})",
                (tenant, *values.values()),
            )
            return limits_of(db, tenant)

    def list(self) -> tuple[KnownTenant, ...]:
        """By name, all that have or had a task, a key, a limit or usage."""
        with self._connections.reading() as db:
            rows = db.execute(_KNOWN).fetchall()
        return tuple(
            KnownTenant(name, TenantLimits(*limits), Footprint(tasks, versions, size))
            for name, tasks, versions, size, *limits in rows
        )

    def get(self, tenant: str) -> KnownTenant:
        """Of any name that a tenant can have. Raises `InvalidTenant`."""
        return KnownTenant(check_tenant(tenant), self.limits(tenant), self.footprint(tenant))

    def footprint(self, tenant: str) -> Footprint:
        with self._connections.reading() as db:
            return footprint_of(db, tenant)


def limits_of(db: sqlite3.Connection, tenant: str) -> TenantLimits:
    statement = f"SELECT {_COLUMNS} FROM tenant_limits WHERE tenant = ?"
    row = db.execute(statement, (tenant,)).fetchone()
    return TenantLimits() if row is None else TenantLimits(*row)


def footprint_of(db: sqlite3.Connection, tenant: str) -> Footprint:
    statement = "SELECT tasks, versions, bytes FROM footprint WHERE tenant = ?"
    row = db.execute(statement, (tenant,)).fetchone()
    return Footprint() if row is None else Footprint(*row)


def _check(name: str, value: float | None) -> None:
    if name not in _DEFAULT:
        raise InvalidRequest(
            f"There is no such limit; those are {', '.join(_DEFAULT)}.", param=name
        )
    if value is None:
        return
    if name == "weight":
        # A NaN is in no range.
        if type(value) not in {int, float} or not _LEAST_WEIGHT <= value <= _LARGEST_WEIGHT:
            message = f"A weight is a number from {_LEAST_WEIGHT:g} to {_LARGEST_WEIGHT:g}."
            raise InvalidRequest(message, param=name)
    elif type(value) is not int or not 1 <= value <= _LARGEST:
        raise InvalidRequest(f"{name} is a whole number from 1 to {_LARGEST}.", param=name)
