"""Which tenant a request is of: found by the frame, before routing; every route but the open ones
asks for it here.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers

from prefixmux_server.service.keys import unauthorized
from prefixmux_server.service.tenant import Tenant

CREDENTIALS = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)
# For the documents alone: the frame has looked at the key.
SCHEME = HTTPBearer(description="A key of `prefixmux keys create`.", auto_error=False)


def bearer_key(headers: Headers) -> str | None:
    """The key of the one `Authorization` header; None where that holds none."""
    sent = headers.getlist("authorization")
    found = CREDENTIALS.fullmatch(sent[0]) if len(sent) == 1 else None
    return None if found is None else found[1]


async def current_tenant(request: Request, _: Annotated[object, Security(SCHEME)] = None) -> Tenant:
    """Raises `Unauthorized` on an open path, where nobody was looked for."""
    tenant: Tenant | None = request.state.tenant
    if tenant is None:
        raise unauthorized()
    return tenant


CurrentTenant = Annotated[Tenant, Depends(current_tenant)]
