"""What one look found, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`advice` is what to do; an `ok` needs none."""

    check: str
    state: State
    message: str
    advice: str | None = None

    def body(self) -> dict[str, object]:
        return asdict(self)
