"""`/prefixes`: uploads and the life of tasks and versions."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from prefixmux_server.api.http.body import StrictRoute
from prefixmux_server.api.http.documented import errors, inlined
from prefixmux_server.api.http.paths import PathTask, PathVersion
from prefixmux_server.api.http.tenancy import Reader, Writer
from prefixmux_server.api.http.values import TASK_ID
from prefixmux_server.api.schemas import ActivateBody
from prefixmux_server.api.services import AppServices
from prefixmux_server.api.upload_schemas import RECIPES
from prefixmux_server.api.uploads import posted_upload, raw_upload
from prefixmux_server.service.prefixes.views import TaskPage, TaskView, VersionPage, VersionView

PUT_REFUSALS = errors(403, 412, 413, 415, 422, 429, 500, 503, 507)
POST_REFUSALS = errors(400, 403, 404, 413, 415, 422, 429, 500, 503, 507)
READ_REFUSALS = errors(403, 404, 422, 500, 503)
WRITE_REFUSALS = READ_REFUSALS | errors(507)
BINARY = {"schema": {"type": "string", "format": "binary"}}
UPLOADED: dict[int | str, dict[str, Any]] = {
    200: {"model": VersionView, "description": "The version that holds this content already."},
    201: {"model": VersionView, "description": "A new version, durable."},
}
FORM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["task_id"],
    "properties": {
        "task_id": {"type": "string", "pattern": TASK_ID, "example": "e2e"},
        "file": {"type": "string", "format": "binary", "description": "A native file."},
        "adapter_config": {"type": "string", "format": "binary", "description": "PEFT's."},
        "adapter_model": {"type": "string", "format": "binary", "description": "PEFT's."},
        "activate": {"type": "string", "enum": ["true", "false"], "default": "true"},
        "description": {"type": "string"},
        "sha256": {"type": "string", "description": "Of `file`."},
        "task_index": {"type": "string", "description": "Of a file with several tasks."},
        "template": {"type": "string", "description": "Text around a request's {input}."},
        "parameters": {"type": "string", "description": "JSON: what requests leave out."},
    },
}
POSTED = {
    "multipart/form-data": {"schema": FORM},
    "application/json": {"schema": {"oneOf": [inlined(body) for body in RECIPES.values()]}},
}

router = APIRouter(prefix="/prefixes", tags=["prefixes"])
json_router = APIRouter(prefix="/prefixes", tags=["prefixes"], route_class=StrictRoute)


class PageQuery(BaseModel):
    """Where a listing goes on."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: Annotated[str, Field(max_length=512)] | None = None


class PutQuery(BaseModel):
    """`template`: text around a request's `{input}`; `parameters`: JSON of what it leaves out."""

    template: str | None = None
    parameters: str | None = None


class TaskQuery(PageQuery):
    """`query`: part of a task_id."""

    query: Annotated[str, Field(max_length=64)] | None = None


@router.post(
    "",
    status_code=201,
    responses={**UPLOADED, **POST_REFUSALS},
    openapi_extra={"requestBody": {"required": True, "content": POSTED}},
)
async def upload(
    request: Request, response: Response, tenant: Writer, services: AppServices
) -> VersionView:
    posted = await posted_upload(request, services.max_body_bytes, services.max_upload_bytes)
    version, created = await services.prefixes.upload(tenant, posted)
    response.status_code = 201 if created else 200
    return version


@router.put(
    "/{task_id}",
    status_code=201,
    responses={**UPLOADED, **PUT_REFUSALS},
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": BINARY}}
    },
)
async def put(
    request: Request,
    response: Response,
    task_id: str,
    said: Annotated[PutQuery, Query()],
    tenant: Writer,
    services: AppServices,
) -> VersionView:
    limit = services.max_upload_bytes
    raw = await raw_upload(request, task_id, limit, said.template, said.parameters)
    version, created = await services.prefixes.upload(tenant, raw)
    response.status_code = 201 if created else 200
    return version


@router.get("", responses=READ_REFUSALS)
async def list_tasks(
    page: Annotated[TaskQuery, Query()], tenant: Reader, services: AppServices
) -> TaskPage:
    return await services.prefixes.list_tasks(tenant, page.limit, page.cursor, page.query)


@router.get("/{task_id}", responses=READ_REFUSALS)
async def task(task_id: PathTask, tenant: Reader, services: AppServices) -> TaskView:
    return await services.prefixes.task(tenant, task_id)


@router.delete("/{task_id}", status_code=204, response_class=Response, responses=WRITE_REFUSALS)
async def delete_task(task_id: PathTask, tenant: Writer, services: AppServices) -> None:
    await services.prefixes.delete_task(tenant, task_id)


@json_router.post("/{task_id}/activate", responses=WRITE_REFUSALS | errors(400, 413, 415))
async def activate(
    task_id: PathTask, body: ActivateBody, tenant: Writer, services: AppServices
) -> TaskView:
    return await services.prefixes.activate(tenant, task_id, body.version)


@router.get("/{task_id}/versions", responses=READ_REFUSALS)
async def list_versions(
    task_id: PathTask,
    page: Annotated[PageQuery, Query()],
    tenant: Reader,
    services: AppServices,
) -> VersionPage:
    return await services.prefixes.versions(tenant, task_id, page.limit, page.cursor)


@router.get("/{task_id}/versions/{version}", responses=READ_REFUSALS)
async def version(
    task_id: PathTask, version: PathVersion, tenant: Reader, services: AppServices
) -> VersionView:
    return await services.prefixes.version(tenant, task_id, version)


@router.get(
    "/{task_id}/versions/{version}/file",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": BINARY}, "description": "As stored."},
        **READ_REFUSALS,
    },
)
async def file(
    task_id: PathTask, version: PathVersion, tenant: Reader, services: AppServices
) -> Response:
    data = await services.prefixes.file(tenant, task_id, version)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return Response(
        data,
        media_type="application/octet-stream",
        headers={"content-digest": f"sha-256=:{digest}:"},
    )


@router.delete(
    "/{task_id}/versions/{version}",
    status_code=204,
    response_class=Response,
    responses=WRITE_REFUSALS | errors(409),
)
async def delete_version(
    task_id: PathTask, version: PathVersion, tenant: Writer, services: AppServices
) -> None:
    await services.prefixes.delete_version(tenant, task_id, version)
