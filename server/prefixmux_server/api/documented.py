"""How errors, and bodies that routes read themselves, appear in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

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


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body with everything it refers to in its place; nothing refers to itself."""
    schema = model.model_json_schema()
    known = schema.pop("$defs", {})

    def resolved(node: object) -> object:
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(known[node["$ref"].rpartition("/")[2]])
        return {key: resolved(value) for key, value in node.items()}

    return {key: resolved(value) for key, value in schema.items()}
