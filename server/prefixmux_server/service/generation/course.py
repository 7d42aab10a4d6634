"""One request from its arrival to its end, as far as it came: what its outcome is told from."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from prefixmux_server.engine.front import Generation
from prefixmux_server.errors import STATUS_OF_CODE, PrefixmuxServerError
from prefixmux_server.service.generation.admission import Admitted, monotonic
from prefixmux_server.service.generation.assemble import timing
from prefixmux_server.service.generation.collect import Collected
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import StoreError


@dataclass
class Course:
    """`arrived` is in seconds of CLOCK_MONOTONIC, `began` in seconds since 1970. `late`: it was
    given up because its time was over."""

    tenant: Tenant
    request: GenerationRequest
    arrived: float = field(default_factory=monotonic)
    began: float = field(default_factory=time.time)
    admitted: Admitted | None = None
    collected: Collected | None = None
    late: bool = False

    def give_up(self, generation: Generation) -> None:
        self.late = True
        generation.abort()

    def outcome(self, code: str) -> Outcome:
        """A task is named once it is known to exist."""
        admitted, collected = self.admitted, self.collected
        row = None if collected is None else collected.finished or collected.started
        return Outcome(
            id=admitted.submit.id if admitted else "",
            request_id=self.request.request_id,
            tenant=self.tenant.name,
            key_id=self.tenant.key_id,
            task_id=admitted.target.task_id if admitted else None,
            version=admitted.target.version if admitted else None,
            digests=row.prefixes if row else (),
            prompt_tokens=admitted.prompt_tokens if admitted else 0,
            prefix_tokens=sum(row.prefix_tokens) if row else 0,
            generated_tokens=collected.generated if collected else 0,
            code=code,
            started=self.began,
            seconds=monotonic() - self.arrived,
            timing=timing(admitted, collected) if admitted and collected and row else None,
        )


def code_of(error: BaseException) -> str:
    """Who cancels a request that is to get an error names its code in doing so."""
    if isinstance(error, PrefixmuxServerError | StoreError):
        return error.code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        named = str(error.args[0]) if error.args else ""
        return named if named in STATUS_OF_CODE else "cancelled"
    return "internal_error"
