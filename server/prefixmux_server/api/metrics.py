"""`GET /metrics`, as Prometheus reads it.

Figures of the whole server are for whoever may read; those of a tenant are its own key's, or
everyone's where the operator opened the route.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from prefixmux_server.api.http.documented import errors
from prefixmux_server.api.http.tenancy import Reader
from prefixmux_server.api.services import AppServices
from prefixmux_server.service.telemetry.readings import Shown

router = APIRouter(tags=["operations"])
open_router = APIRouter(tags=["operations"])
PATH = "/metrics"
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get(PATH, response_class=Response, responses={**errors(403), **TEXT})
async def metrics(tenant: Reader, services: AppServices) -> Response:
    """Of the whole server; what has a label `tenant`, of this key's tenant only."""
    return _text(Shown(services.metrics.registry.collect, tenant.name))


@open_router.get(PATH, response_class=Response, responses=TEXT)
async def all_metrics(services: AppServices) -> Response:
    """Of the whole server and of all tenants."""
    return _text(Shown(services.metrics.registry.collect, None))


def _text(collector: Collector) -> Response:
    return Response(generate_latest(collector), media_type=CONTENT_TYPE_PLAIN_0_0_4)
