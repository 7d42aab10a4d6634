"""Tasks, versions and the model as the wire shows them. Knows their names there, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from prefixmux_server.engine.messages import ModelInfo, ResidencyState, SiteInfo
from prefixmux_store.types import Task, Version


@dataclass(frozen=True)
class VersionView:
    """An immutable version of a task. `sites`: virtual tokens at each attention site."""

    task_id: str
    version: int
    prefix_digest: str
    method: str
    sites: dict[str, int]
    prefix_tokens: int
    bytes: int
    base_model: str | None
    description: str | None
    created_at: float
    residency: ResidencyState


@dataclass(frozen=True)
class TaskView:
    """A task of one tenant; `active` is the version served when none is asked for."""

    task_id: str
    active_version: int | None
    versions: int
    created_at: float
    updated_at: float
    active: VersionView | None


@dataclass(frozen=True)
class TaskPage:
    items: list[TaskView]
    next_cursor: str | None


@dataclass(frozen=True)
class VersionPage:
    items: list[VersionView]
    next_cursor: str | None


@dataclass(frozen=True)
class SiteView:
    """One attention site: what a prefix for it must be shaped like."""

    layers: int
    kv_heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True)
class ModelView:
    """The resident model. `context`: positions, null without a limit."""

    id: str
    family: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    dtype: str
    device: str
    context: int | None
    fingerprint: str
    methods: list[str]
    sites: dict[str, SiteView]


def version_view(version: Version, residency: ResidencyState) -> VersionView:
    return VersionView(
        task_id=version.task_id,
        version=version.version,
        prefix_digest=version.digests[0],
        method=version.method,
        sites=dict(version.sites),
        prefix_tokens=version.prefix_tokens,
        bytes=version.bytes,
        base_model=version.base_model,
        description=version.description,
        created_at=version.created_at,
        residency=residency,
    )


def task_view(task: Task, active: VersionView | None) -> TaskView:
    return TaskView(
        task_id=task.task_id,
        active_version=active.version if active else None,
        versions=task.versions,
        created_at=task.created_at,
        updated_at=task.updated_at,
        active=active,
    )


def model_view(model: ModelInfo) -> ModelView:
    return ModelView(
        id=model.id,
        family=model.family,
        layers=model.layers,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        hidden=model.hidden,
        vocabulary=model.vocabulary,
        dtype=model.dtype,
        device=model.device,
        context=model.context,
        fingerprint=model.fingerprint,
        methods=list(model.methods),
        sites={site.site: _site_view(site) for site in model.sites},
    )


def _site_view(site: SiteInfo) -> SiteView:
    return SiteView(site.layers, site.kv_heads, site.k_dim, site.v_dim)
