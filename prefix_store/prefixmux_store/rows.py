"""Rows of the catalogue's tables to types, and the columns they are read from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prefixmux_store.types import Task, Version

VERSION_COLUMNS = (
    "v.tenant, v.task_id, v.version, v.digests, v.method, v.sites, v.position_offset,"
    " v.prefix_tokens, v.bytes, v.base_model, v.description, v.created_at"
)
TASK_COLUMNS = (
    "t.tenant, t.task_id,"
    " (SELECT count(*) FROM version c WHERE c.tenant = t.tenant AND c.task_id = t.task_id),"
    " t.created_at, t.updated_at"
)
_TASK_WIDTH = 5


def version_of(row: Sequence[Any]) -> Version:
    tenant, task_id, version, digests, method, sites, offsets, *rest = row
    return Version(
        tenant,
        task_id,
        version,
        tuple(json.loads(digests)),
        method,
        json.loads(sites),
        json.loads(offsets),
        *rest,
    )


def task_of(row: Sequence[Any]) -> Task:
    """`row` is a task's columns and those of its active version, all null without one."""
    tenant, task_id, versions, created_at, updated_at = row[:_TASK_WIDTH]
    active = row[_TASK_WIDTH:]
    return Task(
        tenant=tenant,
        task_id=task_id,
        active=None if active[0] is None else version_of(active),
        versions=versions,
        created_at=created_at,
        updated_at=updated_at,
    )


def values_of(version: Version) -> tuple[object, ...]:
    """In the order of the table's columns."""
    return (
        version.tenant,
        version.task_id,
        version.version,
        json.dumps(version.digests),
        version.method,
        json.dumps(dict(version.sites)),
        json.dumps(dict(version.position_offset)),
        version.prefix_tokens,
        version.bytes,
        version.base_model,
        version.description,
        version.created_at,
    )
