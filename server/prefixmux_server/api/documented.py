"""How errors appear in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from prefixmux_server.api.schemas import ErrorBody
from prefixmux_server.errors import STATUS_OF_CODE


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses of a route, each with the codes of its status."""
    return {
        status: {
            "model": ErrorBody,
            "description": ", ".join(
                code for code, of_code in STATUS_OF_CODE.items() if of_code == status
            ),
        }
        for status in statuses
    }
