"""Health, version, the model and the steps: what an operator asks."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from prefixmux_server.api.http.documented import errors
from prefixmux_server.api.http.tenancy import CurrentTenant, Reader
from prefixmux_server.api.services import AppServices
from prefixmux_server.errors import EngineUnavailable
from prefixmux_server.service.prefixes.views import ModelView, model_view
from prefixmux_server.service.telemetry.steps import Steps
from prefixmux_server.service.telemetry.timeline import Timeline

router = APIRouter(tags=["operations"])
# What probes ask, in whatever way they ask it.
open_router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """`reason`: `ready`, or why not."""

    status: str
    reason: str


class ServerVersion(BaseModel):
    version: str


class StepsQuery(BaseModel):
    """The first `limit` steps after `since`."""

    since: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@open_router.get("/health/live")
async def live() -> Health:
    return Health(status="ok", reason="live")


@open_router.get("/health/ready", responses={503: {"model": Health, "description": "Not ready."}})
async def ready(response: Response, services: AppServices) -> Health:
    if services.lifecycle.draining:
        reason = "draining"
    elif (health := services.engine.health).ok:
        return Health(status="ok", reason="ready")
    else:
        reason = health.reason
    response.status_code = 503
    return Health(status="unavailable", reason=reason)


@open_router.get("/version")
async def version() -> ServerVersion:
    return ServerVersion(version=installed_version("prefixmux"))


@router.get("/model", responses=errors(503))
async def model(tenant: CurrentTenant, services: AppServices) -> ModelView:
    if services.engine.ready is None:
        raise EngineUnavailable("The model is not loaded yet; try again in a few seconds.")
    return model_view(services.engine.ready.model)


@router.get("/requests/{id}/timeline", responses=errors(403, 404, 422))
async def timeline(id: str, tenant: Reader, services: AppServices) -> Timeline:
    """Where the time of one of the last requests went, by its id or its `x-request-id`."""
    return services.timelines.find(tenant.name, id)


@router.get("/steps", responses=errors(403, 422))
async def steps(
    page: Annotated[StepsQuery, Query()], tenant: Reader, services: AppServices
) -> Steps:
    """Recent forward passes, the oldest first; rows of other tenants have no id and no task."""
    return services.steps.since(page.since, page.limit, tenant.name)
