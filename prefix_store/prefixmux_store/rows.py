"""Rows of the catalogue's tables to types, and the columns they are read from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prefixmux_store import strict_json
from prefixmux_store.types import Defaults, Part, Task, Version

VERSION_COLUMNS = (
    "v.tenant, v.task_id, v.version, v.digests, v.method, v.sites, v.position_offset,"
    " v.prefix_tokens, v.bytes, v.base_model, v.description, v.created_at, v.parts, v.defaults,"
    " v.base_fingerprint"
)
TASK_COLUMNS = (
    "t.tenant, t.task_id,"
    " (SELECT count(*) FROM version c WHERE c.tenant = t.tenant AND c.task_id = t.task_id),"
    " t.created_at, t.updated_at"
)
_TASK_WIDTH = 5


def version_of(row: Sequence[Any]) -> Version:
    tenant, task_id, version, digests, method, sites, offsets, tokens, *rest = row
    size, base_model, description, created_at, parts, about, fingerprint = rest
    names = tuple(json.loads(digests))
    itself = Part(task_id, version, names[0], tokens, method)
    return Version(
        tenant=tenant,
        task_id=task_id,
        version=version,
        digests=names,
        method=method,
        sites=json.loads(sites),
        position_offset=json.loads(offsets),
        prefix_tokens=tokens,
        bytes=size,
        base_model=base_model,
        base_fingerprint=fingerprint,
        description=description,
        created_at=created_at,
        parts=(itself,) if parts is None else tuple(Part(**part) for part in json.loads(parts)),
        defaults=Defaults() if about is None else Defaults(**json.loads(about)),
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
        _parts_text(version),
        defaults_text(version.defaults),
        version.base_fingerprint,
    )


def defaults_text(defaults: Defaults) -> str | None:
    """Canonical, so that equal defaults are equal text; None says nothing."""
    if defaults == Defaults():
        return None
    return strict_json.dumps(
        {"template": defaults.template, "parameters": dict(defaults.parameters)}
    )


def _parts_text(version: Version) -> str | None:
    """None for a version that is its own only part."""
    first = version.parts[0]
    if (first.task_id, first.version) == (version.task_id, version.version):
        return None
    return json.dumps([asdict(part) for part in version.parts])
