"""Which tenant a request is of: the one dependency that every route but the open ones uses.

A store that never had a key is open: everyone is the tenant `default` with all scopes.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from prefixmux_server.service.tenant import Tenant, anonymous


async def current_tenant() -> Tenant:
    return anonymous()


CurrentTenant = Annotated[Tenant, Depends(current_tenant)]
