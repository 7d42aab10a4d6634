"""Which methods a path has: one route knows its own only."""

from __future__ import annotations

from fastapi import Request
from starlette.routing import Match

METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def allowed(request: Request) -> str:
    """For the `Allow` header of the request's path. HEAD is wherever GET is."""
    found = {method for method in METHODS if _has(request, method)}
    if "GET" in found:
        found.add("HEAD")
    return ", ".join(sorted(found))


def _has(request: Request, method: str) -> bool:
    scope = {
        "type": "http",
        "method": method,
        "path": request.scope["path"],
        "root_path": request.scope["root_path"],
        "headers": [],
    }
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
