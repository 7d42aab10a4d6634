"""`POST /prefixes/{task_id}/pin`: keep a version loaded, or no longer."""

from __future__ import annotations

from fastapi import APIRouter

from prefixmux_server.api.http.body import StrictRoute
from prefixmux_server.api.http.documented import errors
from prefixmux_server.api.http.paths import PathTask
from prefixmux_server.api.http.tenancy import Writer
from prefixmux_server.api.http.values import Strict, VersionNumber
from prefixmux_server.api.services import AppServices
from prefixmux_server.service.prefixes.views import VersionView

router = APIRouter(prefix="/prefixes", tags=["prefixes"], route_class=StrictRoute)


class PinBody(Strict):
    """`version` null: the active one, as it is now."""

    version: VersionNumber | None = None
    pinned: bool


@router.post("/{task_id}/pin", responses=errors(400, 403, 404, 413, 415, 422, 500, 503))
async def pin(
    task_id: PathTask, body: PinBody, tenant: Writer, services: AppServices
) -> VersionView:
    """Pins count against the budgets of loaded prefixes, and end with the server."""
    return await services.prefixes.pin(tenant, task_id, body.version, pinned=body.pinned)
