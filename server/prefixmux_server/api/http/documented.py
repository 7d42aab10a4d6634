"""How errors, and bodies that routes read themselves, appear in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from prefixmux_server.api.schemas import ErrorBody
from prefixmux_server.errors import STATUS_OF_CODE

LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
MOST = 2**63 - 1


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


def with_whole_limits(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI keeps all limits as floats, and the nearest to 2**63 - 1 is beyond it: those of
    integers are integers here again."""

    def whole(node: object) -> object:
        if isinstance(node, list):
            return [whole(item) for item in node]
        if not isinstance(node, dict):
            return node
        made = {key: whole(value) for key, value in node.items()}
        if made.get("type") == "integer":
            made |= {name: min(int(node[name]), MOST) for name in LIMITS if name in node}
        return made

    return {key: whole(value) for key, value in document.items()}
