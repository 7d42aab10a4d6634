"""Tasks, versions and the model as the wire shows them. Knows their names there, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefixmux_server.engine.messages import ResidencyState
from prefixmux_server.engine.model_info import ModelInfo, SiteInfo
from prefixmux_store.types import Part, Task, Version


@dataclass(frozen=True)
class PartView:
    """One stored prefix of a version, by the name it had when the version was made."""

    task_id: str
    version: int
    digest: str
    tokens: int
    method: str


@dataclass(frozen=True)
class VersionView:
    """An immutable version of a task. `sites`: virtual tokens at each attention site.

    `parts`: its prefixes in order, itself alone unless it was composed. `template`: what stands
    around a text input, as `{input}`; `parameters`: what holds where a request says nothing.
    `base_fingerprint`: of the model that the file claims. `pinned`: it is kept loaded.
    """

    task_id: str
    version: int
    prefix_digest: str
    method: str
    sites: dict[str, int]
    prefix_tokens: int
    bytes: int
    base_model: str | None
    base_fingerprint: str | None
    description: str | None
    created_at: float
    residency: ResidencyState
    pinned: bool
    parts: list[PartView]
    template: str | None
    parameters: dict[str, Any]


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
    """The resident model. `context`: positions, null without a limit. `embedding_width`: of a
    virtual token's embedding. A special id is null where the model names none."""

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
    embedding_width: int
    eos_token_ids: list[int]
    bos_token_id: int | None
    decoder_start_token_id: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None


def version_view(version: Version, residency: ResidencyState, pinned: bool) -> VersionView:
    return VersionView(
        task_id=version.task_id,
        version=version.version,
        prefix_digest=version.prefix_digest,
        method=version.method,
        sites=dict(version.sites),
        prefix_tokens=version.prefix_tokens,
        bytes=version.bytes,
        base_model=version.base_model,
        base_fingerprint=version.base_fingerprint,
        description=version.description,
        created_at=version.created_at,
        residency=residency,
        pinned=pinned,
        parts=[_part_view(part) for part in version.parts],
        template=version.defaults.template,
        parameters=dict(version.defaults.parameters),
    )


def _part_view(part: Part) -> PartView:
    return PartView(part.task_id, part.version, part.digest, part.tokens, part.method)


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
        embedding_width=model.embedding_width or model.hidden,
        eos_token_ids=list(model.eos_token_ids),
        bos_token_id=model.bos_token_id,
        decoder_start_token_id=model.decoder_start_token_id,
        forced_bos_token_id=model.forced_bos_token_id,
        forced_eos_token_id=model.forced_eos_token_id,
    )


def _site_view(site: SiteInfo) -> SiteView:
    return SiteView(site.layers, site.kv_heads, site.k_dim, site.v_dim)
