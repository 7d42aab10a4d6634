"""What the fields of a body are made of: strict types, closed ranges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

TASK_ID = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MAX_VERSION = 2**63 - 1


class Strict(BaseModel):
    """Types as they are written, no unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


def well_formed(text: str) -> str:
    """JSON can write half of a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "Text must not hold lone surrogates") from None
    return text


Text = Annotated[str, AfterValidator(well_formed)]
TaskId = Annotated[str, Field(pattern=TASK_ID, examples=["e2e"])]
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]
