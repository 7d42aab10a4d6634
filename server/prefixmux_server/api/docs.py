"""`/docs`: one page that shows `/openapi.json`, with nothing loaded from anywhere else."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

# The page's own inline script and style, and nothing from any other host.
POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
)


@router.get("/docs")
async def docs() -> HTMLResponse:
    page = files("prefixmux_server.api").joinpath("docs.html").read_text("utf-8")
    return HTMLResponse(page, headers={"content-security-policy": POLICY})
