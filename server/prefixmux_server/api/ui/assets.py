"""The style and the scripts of the page, from the package itself."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header, Response

from prefixmux_server.api.http.query import OnlyDeclared
from prefixmux_server.api.http.tenancy import CurrentTenant
from prefixmux_server.api.ui.identity import ROOT
from prefixmux_server.api.ui.rendering import HEADERS, PACKAGE
from prefixmux_server.errors import NotFound

TYPES = {"css": "text/css", "js": "text/javascript"}

router = APIRouter(prefix=ROOT, include_in_schema=False, dependencies=[OnlyDeclared])


@router.get("/static/{name}")
async def asset(
    name: str, tenant: CurrentTenant, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Asked for again with each page, sent again when it has changed."""
    kind = TYPES.get(name.rpartition(".")[2])
    found = {file.name: file for file in files(PACKAGE).joinpath("static").iterdir()}
    if kind is None or name not in found:
        raise NotFound("The page has no such file.")
    data = found[name].read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {**HEADERS, "cache-control": "private, no-cache", "etag": tag}
    if if_none_match == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)
