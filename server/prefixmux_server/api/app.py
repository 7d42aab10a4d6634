"""The HTTP application: routes, the frame around them and the answers to everything else."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from prefixmux_server.api import docs, generate, operations, prefixes, score, usage
from prefixmux_server.api.http import problems
from prefixmux_server.api.http.documented import errors, with_whole_limits
from prefixmux_server.api.http.methods import allowed
from prefixmux_server.api.http.middleware import OPEN_PATHS, Frame
from prefixmux_server.api.http.query import OnlyDeclared
from prefixmux_server.api.metrics import PATH as METRICS_PATH
from prefixmux_server.api.metrics import open_router as open_metrics
from prefixmux_server.api.metrics import router as metrics
from prefixmux_server.api.openai import chat, completions, models
from prefixmux_server.api.pins import router as pins
from prefixmux_server.api.services import Services
from prefixmux_server.api.ui import assets, calls, pages, session
from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_store.errors import StoreError

# What a request may get before its route is found.
OF_THE_FRAME = errors(401, 403, 500, 503)
ABOUT = "One frozen language model, a different prefix in every row of the batch."


class Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = with_whole_limits(super().openapi())
        return self.openapi_schema


def create_app(services: Services) -> FastAPI:
    """Stateless but for `services`, whose owner closes them."""
    app = Application(
        title="prefixmux",
        description=ABOUT,
        version=version("prefixmux"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.services = services
    closed = (
        generate.router,
        prefixes.router,
        prefixes.json_router,
        operations.router,
        usage.router,
        pins,
        score.router,
    )
    for router in closed:
        app.include_router(router, dependencies=[OnlyDeclared], responses=OF_THE_FRAME)
    for router in (models.router, completions.router, chat.router):
        app.include_router(router, dependencies=[OnlyDeclared])
    if services.metrics_open:
        app.include_router(open_metrics)
    else:
        app.include_router(metrics, dependencies=[OnlyDeclared], responses=OF_THE_FRAME)
    for router in (pages.router, session.router, calls.router, assets.router):
        app.include_router(router)
    app.include_router(operations.open_router)
    app.include_router(docs.router)
    for kind in (PrefixmuxServerError, StoreError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(
        Frame,
        lifecycle=services.lifecycle,
        keys=services.keys,
        open_paths=OPEN_PATHS | ({METRICS_PATH} if services.metrics_open else set()),
        told=services.metrics.http,
        denied=services.audit.denied,
        any_host=services.any_host,
    )
    return app


async def _answer(request: Request, error: Exception) -> Response:
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if "Allow" in headers:
        headers["Allow"] = allowed(request)
    return problems.response(problems.typed(error), request.state.request_id, headers)
