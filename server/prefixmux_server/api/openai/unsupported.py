"""Fields of OpenAI's that this server has nothing behind: they may be there, but say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_plain_validator_function


@dataclass(frozen=True)
class Unsupported:
    """Of a field that may be there, but say nothing: null, or one of the `harmless` values."""

    instead: str
    harmless: tuple[object, ...] = ()

    def __get_pydantic_core_schema__(self, _: object, __: object) -> CoreSchema:
        return no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, _: object, __: object) -> dict[str, Any]:
        return {"enum": [None, *self.harmless]}

    def _check(self, value: object) -> object:
        # `False` is no `0`, though it equals one.
        if value is None or any(value == one and type(value) is type(one) for one in self.harmless):
            return value
        raise PydanticCustomError(
            "unsupported", "This server does not have it; {instead}", {"instead": self.instead}
        )


def unsupported(*harmless: object, instead: str) -> Unsupported:
    return Unsupported(instead, harmless)
