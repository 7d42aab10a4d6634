"""`/v1/models`, and which prefix the `model` of a request names.

A model is the base model, by its id, or a task of the key's tenant: `e2e`, or `e2e@3` for its
version 3. No task_id holds an `@`. The base model's id is always the bare model.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from fastapi import APIRouter
from pydantic import BaseModel

from prefixmux_server.api.http.tenancy import Reader
from prefixmux_server.api.http.values import MAX_VERSION, TASK_ID
from prefixmux_server.api.openai.errors import responses
from prefixmux_server.api.services import AppServices, Services
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.errors import EngineUnavailable
from prefixmux_server.service.generation.request import PartName
from prefixmux_server.service.prefixes.views import TaskView
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import TaskNotFound

NAME = re.compile(rf"(?P<task_id>{TASK_ID[1:-1]})(?:@(?P<version>[1-9][0-9]{{0,18}}))?")
PAGE = 500
OWNER = "prefixmux"

router = APIRouter(tags=["openai"])


class Model(BaseModel):
    """`created` is in seconds since 1970; `parent`: the base model that a task's prefix is for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = OWNER
    parent: str | None = None


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


def named(model: str, base: ModelInfo) -> PartName | None:
    """The prefix that a model's name stands for; None for the bare model.

    Raises `TaskNotFound` for what can be the name of neither.
    """
    if model == base.id:
        return None
    found = NAME.fullmatch(model)
    version = int(found["version"] or 1) if found else 0
    if found is None or version > MAX_VERSION:
        raise TaskNotFound
    return PartName(found["task_id"], version if found["version"] else None)


def base_model(services: Services) -> ModelInfo:
    """Raises `EngineUnavailable` while none is loaded."""
    if services.engine.ready is None:
        raise EngineUnavailable("The model is not loaded yet; try again in a few seconds.")
    return services.engine.ready.model


@router.get("/v1/models", responses=responses(503))
async def models(tenant: Reader, services: AppServices) -> Models:
    """The base model and every task of the tenant that has an active version."""
    base = base_model(services)
    return Models(data=[_base(base), *await _tasks(tenant, services, base)])


@router.get("/v1/models/{model}", responses=responses(404, 503))
async def model(model: str, tenant: Reader, services: AppServices) -> Model:
    """A `/` in the name has to be escaped."""
    base, name = base_model(services), unquote(model)
    part = named(name, base)
    if part is None:
        return _base(base)
    task = await services.prefixes.task(tenant, part.task_id)
    version = part.version or task.active_version
    if version is None:
        raise TaskNotFound
    found = await services.prefixes.version(tenant, part.task_id, version)
    return Model(id=name, created=int(found.created_at), parent=base.id)


async def _tasks(tenant: Tenant, services: Services, base: ModelInfo) -> list[Model]:
    """OpenAI's list has no pages."""
    found: list[TaskView] = []
    cursor: str | None = None
    while True:
        page = await services.prefixes.list_tasks(tenant, PAGE, cursor, None)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return [
        Model(id=task.task_id, created=int(task.created_at), parent=base.id)
        for task in found
        if task.active_version is not None and task.task_id != base.id
    ]


def _base(base: ModelInfo) -> Model:
    return Model(id=base.id, created=0)
