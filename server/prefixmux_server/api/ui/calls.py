"""What the page's scripts call: routes of the API under `/ui/api`, where the cookie counts.

They are the API's own routes, included a second time; only the picture of the batch is new.
"""

from __future__ import annotations

from fastapi import APIRouter

from prefixmux_server.api import generate, prefixes
from prefixmux_server.api.http.query import OnlyDeclared
from prefixmux_server.api.http.tenancy import Reader
from prefixmux_server.api.pins import router as pins
from prefixmux_server.api.services import AppServices
from prefixmux_server.api.ui.identity import ROOT
from prefixmux_server.service.telemetry.live import LiveBatch

router = APIRouter(prefix=f"{ROOT}/api", include_in_schema=False, dependencies=[OnlyDeclared])
for api in (generate.router, prefixes.router, prefixes.json_router, pins):
    router.include_router(api)


@router.get("/live")
async def live(tenant: Reader, services: AppServices) -> LiveBatch:
    """The batch of this moment; rows of other tenants have no name."""
    return services.live.of(tenant.name)
