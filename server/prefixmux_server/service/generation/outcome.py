"""What became of one request: told once, at its end, to whoever keeps account of it.

Never holds text or token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from prefixmux_server.service.generation.answer import AnswerTiming


@dataclass(frozen=True)
class Outcome:
    """`id` is the engine's name for the request, `request_id` its caller's `x-request-id`.

    `code` is `ok`, `cancelled` (the client left), or the code of the error that it got. `digests`
    are those that the engine read from the row's lease; empty for the bare model and for a request
    that never had a row. `started` is in seconds since 1970; `timing` None: it never had a row.
    """

    id: str
    request_id: str
    tenant: str
    key_id: str | None
    task_id: str | None
    version: int | None
    digests: tuple[str, ...]
    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int
    code: str
    started: float
    seconds: float
    timing: AnswerTiming | None = None

    @property
    def tokens(self) -> int:
        """All that were read or made."""
        return self.prompt_tokens + self.prefix_tokens + self.generated_tokens


OutcomeObserver: TypeAlias = Callable[[Outcome], None]
