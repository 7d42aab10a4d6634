"""What each tenant may have under way, and what it is due of the batch.

Limits are the store's, believed for half a second. A request counts as one from its arrival to its
end, whether it waits or runs. Its tokens are reserved at the most it can use once that is known,
and charged with what it has used when it ends.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from prefixmux_server.engine.messages import Share
from prefixmux_server.errors import QuotaExceeded
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.tenants.rates import Rate, TokenRates
from prefixmux_store.tenants import TenantLimits

BELIEVED_SECONDS = 0.5
LONGEST_WAIT = 60
# How much the newest request counts in the average duration.
NEWEST = 0.2


@dataclass
class Account:
    """Of one tenant, now. `reserved` are tokens that requests under way may still use."""

    limits: TenantLimits = field(default_factory=TenantLimits)
    read_at: float = -math.inf
    under_way: int = 0
    reserved: int = 0
    mean_seconds: float | None = None

    def next_end(self) -> int:
        """Whole seconds until one of those under way ends, as far as can be told."""
        if self.mean_seconds is None or not self.under_way:
            return 1
        return min(max(math.ceil(self.mean_seconds / self.under_way), 1), LONGEST_WAIT)


class Entry:
    """One request under way."""

    def __init__(self, accounts: Accounts, tenant: str) -> None:
        self._accounts = accounts
        self._tenant = tenant
        self.reserved = 0

    def reserve(self, tokens: int) -> None:
        """Before it runs: the most that it can use. Raises `QuotaExceeded`."""
        self._accounts.reserve(self._tenant, tokens)
        self.reserved += tokens


class Accounts:
    """Of one event loop. `limits_of` reads the store, where nobody is limited unless it says so;
    `max_rows` are those of a batch."""

    def __init__(
        self,
        limits_of: Callable[[str], TenantLimits] = lambda _: TenantLimits(),
        max_rows: int = sys.maxsize,
        rates: TokenRates | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._limits_of = limits_of
        self._max_rows = max_rows
        self._rates = rates or TokenRates()
        self._clock = clock
        self._accounts: dict[str, Account] = {}

    def share(self, tenant: str) -> Share:
        """Of the batch, for the tenant's next request."""
        limits = self._account(tenant).limits
        return Share(limits.weight, limits.max_running)

    def under_way(self, tenant: str) -> int:
        return self._account(tenant).under_way

    def reserved(self, tenant: str) -> int:
        return self._account(tenant).reserved

    @contextmanager
    def enter(self, tenant: str) -> Iterator[Entry]:
        """One request under way. Raises `QuotaExceeded` if the tenant may have no more now."""
        account = self._account(tenant)
        self._check_count(account)
        self._check_tokens(tenant, account, 1)
        entry = Entry(self, tenant)
        account.under_way += 1
        try:
            yield entry
        finally:
            account.under_way -= 1
            account.reserved -= entry.reserved

    def reserve(self, tenant: str, tokens: int) -> None:
        account = self._account(tenant)
        self._check_tokens(tenant, account, tokens)
        account.reserved += tokens

    def finished(self, outcome: Outcome) -> None:
        """Charge what the request has used. Never fails: the last limits known are good enough."""
        account = self._accounts.setdefault(outcome.tenant, Account())
        if outcome.timing is None:
            return
        mean = account.mean_seconds
        newest = outcome.seconds
        account.mean_seconds = newest if mean is None else mean + NEWEST * (newest - mean)
        if (limit := account.limits.tokens_per_minute) is not None:
            self._rates.charge(Rate(outcome.tenant, limit), outcome.tokens)

    def _check_count(self, account: Account) -> None:
        """Without `max_running` the batch bounds what runs."""
        limits = account.limits
        if limits.max_waiting is None:
            return
        running = min(limits.max_running or self._max_rows, self._max_rows)
        if account.under_way >= running + limits.max_waiting:
            raise QuotaExceeded(
                f"Your tenant has {account.under_way} requests under way, which is all it may"
                " have: send this one again when another has ended.",
                account.next_end(),
                reason="max_waiting",
            )

    def _check_tokens(self, tenant: str, account: Account, tokens: int) -> None:
        """A request that is larger than the limit runs when nothing else of its tenant does and
        nothing did in the last minute: refusing it for ever would help nobody."""
        if (limit := account.limits.tokens_per_minute) is None:
            return
        rate = Rate(tenant, limit)
        left = self._rates.left(rate)
        if tokens + account.reserved <= left:
            return
        if not account.reserved and self._rates.idle(rate):
            return
        raise QuotaExceeded(
            f"This would take your tenant beyond its {limit} tokens per minute: send it again"
            " later, or ask for fewer tokens.",
            self._wait(rate, account, tokens, left),
            reason="tokens_per_minute",
        )

    def _wait(self, rate: Rate, account: Account, tokens: int, left: int) -> int:
        """Until what was used is old enough; if only what runs is in the way, until some of that
        ends."""
        if tokens <= left:
            return account.next_end()
        return max(self._rates.seconds_until(rate, tokens), 1)

    def _account(self, tenant: str) -> Account:
        account = self._accounts.setdefault(tenant, Account())
        if self._clock() - account.read_at >= BELIEVED_SECONDS:
            account.limits = self._limits_of(tenant)
            account.read_at = self._clock()
        return account
