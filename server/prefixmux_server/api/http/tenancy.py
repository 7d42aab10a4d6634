"""Which tenant a request is of: found by the frame, before routing; every route but the open ones
asks for it here, and says by the type which scope it needs.
"""

from __future__ import annotations

import re
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.datastructures import Headers

from prefixmux_server.service.tenants.keys import unauthorized
from prefixmux_server.service.tenants.tenant import Scope, Tenant

CREDENTIALS = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
# For the documents alone: the frame has looked at the key.
SCHEME = HTTPBearer(description="A key of `prefixmux keys create`.", auto_error=False)


def bearer_key(headers: Headers) -> str | None:
    """The key of the one `Authorization` header; None where that holds none."""
    sent = headers.getlist("authorization")
    found = CREDENTIALS.fullmatch(sent[0]) if len(sent) == 1 else None
    return None if found is None else found[1]


async def current_tenant(
    request: Request,
    needed: SecurityScopes,
    _: Annotated[object, Security(SCHEME)] = None,
) -> Tenant:
    """Raises `Unauthorized` on an open path, where nobody was looked for, and `Forbidden`."""
    return _checked(request, needed.scopes)


def check_scopes(route: APIRoute, request: Request) -> None:
    """What the route's own tenant would raise, before anything else of the request is looked at."""
    for dependency in route.dependant.dependencies:
        if dependency.call is current_tenant:
            _checked(request, dependency.own_oauth_scopes or [])


def _checked(request: Request, scopes: list[str]) -> Tenant:
    tenant: Tenant | None = request.state.tenant
    if tenant is None:
        raise unauthorized()
    for scope in scopes:
        tenant.require(cast(Scope, scope))
    return tenant


# Whoever has a key, and those whose key has a scope.
CurrentTenant = Annotated[Tenant, Depends(current_tenant)]
Reader = Annotated[Tenant, Security(current_tenant, scopes=["read"])]
Writer = Annotated[Tenant, Security(current_tenant, scopes=["write"])]
Generator = Annotated[Tenant, Security(current_tenant, scopes=["generate"])]
