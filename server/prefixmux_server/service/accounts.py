"""What each tenant may have under way, and what it is due of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefixmux_server.engine.messages import Share
from prefixmux_server.service.outcome import Outcome


class Accounts:
    """Of one event loop."""

    def share(self, tenant: str) -> Share:
        """Of the batch, for the tenant's next request."""
        return Share()

    @contextmanager
    def enter(self, tenant: str) -> Iterator[None]:
        """One request under way. Raises `QuotaExceeded` if the tenant may have no more now."""
        yield

    def finished(self, outcome: Outcome) -> None:
        """Charge what the request has used."""
