"""Signing in to the page: a key kept in a cookie that no script can read and no other site sends.

The cookie is the key itself, so that revoking the key signs its user out within a second and
nothing is kept here.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from prefixmux_server.api.http.body import media_type, read, too_large
from prefixmux_server.api.http.query import OnlyDeclared
from prefixmux_server.api.http.tenancy import CurrentTenant
from prefixmux_server.api.services import AppServices
from prefixmux_server.api.ui.identity import COOKIE, ROOT
from prefixmux_server.errors import UnsupportedMediaType

FORM = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 4096

router = APIRouter(prefix=ROOT, include_in_schema=False, dependencies=[OnlyDeclared])


@router.post("/sign-in")
async def sign_in(request: Request, services: AppServices) -> Response:
    """Raises `Unauthorized`: for no key and for any bad one after the same work."""
    key = await _posted_key(request)
    services.keys.tenant_of(key)
    response = RedirectResponse(ROOT, 303)
    if key is not None and services.keys.required():
        response.set_cookie(
            COOKIE, key, path=ROOT, httponly=True, samesite="strict", secure=_came_by_tls(request)
        )
    return response


@router.post("/sign-out")
async def sign_out(tenant: CurrentTenant) -> Response:
    response = RedirectResponse(ROOT, 303)
    response.delete_cookie(COOKIE, path=ROOT, httponly=True, samesite="strict")
    return response


async def _posted_key(request: Request) -> str | None:
    if media_type(request) != FORM:
        raise UnsupportedMediaType(f"Send the key as {FORM}.")
    raw = await read(request, MAX_FORM_BYTES, too_large(MAX_FORM_BYTES))
    sent = parse_qs(raw.decode("latin-1")).get("key", [])
    key = sent[0].strip() if len(sent) == 1 else ""
    return key if key.isascii() and key.isprintable() and key else None


def _came_by_tls(request: Request) -> bool:
    """By what the browser says of the page that it shows. A proxy ends TLS before this server, and
    what a header claims of that anybody may have written; a browser writes `Origin` itself."""
    return request.headers.get("origin", "").startswith("https://")
