"""Whether a tenant has room for what it wants to keep.

Looks at sums inside a transaction: what they say before a change and after it.
"""

from __future__ import annotations

import sqlite3

from prefixmux_store.errors import QuotaExceeded, TenantFull
from prefixmux_store.tenants import Footprint, footprint_of, limits_of


def check_grown(db: sqlite3.Connection, tenant: str, before: Footprint) -> None:
    """Raises `QuotaExceeded` or `TenantFull` if the tenant grew beyond a limit. One that was
    lowered below what is there forbids growth alone."""
    after, limits = footprint_of(db, tenant), limits_of(db, tenant)
    if limits.max_tasks is not None and after.tasks > max(before.tasks, limits.max_tasks):
        raise QuotaExceeded(limits.max_tasks)
    if limits.max_bytes is not None and after.bytes > max(before.bytes, limits.max_bytes):
        raise TenantFull(limits.max_bytes)


def check_room(db: sqlite3.Connection, tenant: str, digest: str, size: int) -> None:
    """Raises `TenantFull` if a file of `size` bytes would take the tenant beyond its limit. One
    that is there already takes nothing."""
    limit = limits_of(db, tenant).max_bytes
    if limit is None or footprint_of(db, tenant).bytes + size <= limit:
        return
    statement = "SELECT 1 FROM blob WHERE tenant = ? AND digest = ?"
    if db.execute(statement, (tenant, digest)).fetchone() is None:
        raise TenantFull(limit)
