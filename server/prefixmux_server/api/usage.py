"""`/usage`: what the key's tenant keeps, may have and has used."""

from __future__ import annotations

from fastapi import APIRouter

from prefixmux_server.api.http.documented import errors
from prefixmux_server.api.http.tenancy import Reader
from prefixmux_server.api.services import AppServices
from prefixmux_server.service.tenants.usage import TenantUsage

router = APIRouter(tags=["operations"])


@router.get("/usage", responses=errors(403, 503))
async def usage(tenant: Reader, services: AppServices) -> TenantUsage:
    """Counts requests that had a row, however they ended; the bare model's have no task_id."""
    return await services.usage.of(tenant)
