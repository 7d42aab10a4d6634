"""The query of a request holds what its route declares, or the request is refused.

A field that is passed over in silence does harm: `DELETE /prefixes/e2e?version=1` would delete
the whole task.
"""

from __future__ import annotations

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from prefixmux_server.api.http.problems import param_of
from prefixmux_server.errors import InvalidRequest


async def only_declared(request: Request) -> None:
    """For whole routers. Raises `InvalidRequest`, which names the first unknown field."""
    declared = _declared(request.scope["route"])
    for name in request.query_params:
        if name not in declared:
            raise InvalidRequest("There is no such field; leave it out.", param=param_of(name))


def _declared(route: APIRoute) -> set[str]:
    names: set[str] = set()
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.update(kind.model_fields)
        else:
            names.add(field.alias)
    return names


OnlyDeclared = Depends(only_declared)
