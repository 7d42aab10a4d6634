"""Tokens that tenants have used in the last minute, against what a minute may hold.

Knows sums by name; who is admitted is another's business.
"""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from dataclasses import dataclass

from limits.storage import MemoryStorage

WINDOW_SECONDS = 60
# The window keeps an entry for each unit: a limit is told apart this finely, however large it is.
UNITS = 1024


@dataclass(frozen=True)
class Rate:
    """So many tokens a minute."""

    tenant: str
    limit: int

    @property
    def unit(self) -> int:
        return 1 + (self.limit - 1) // UNITS

    @property
    def units(self) -> int:
        return self.limit // self.unit

    @property
    def key(self) -> str:
        """Of its unit, too: a limit of another magnitude counts in others, from nothing."""
        return f"{self.tenant}/{self.unit}"


@dataclass
class Debt:
    """`tokens` do not fill a unit yet. `until`, in seconds since 1970, the tenant has to wait for
    what no window could hold."""

    tokens: int = 0
    until: float = 0.0


class TokenRates:
    """A moving window for each tenant. What does not fit into one costs as much time as it would
    have taken: in the long run nobody uses more than the limit."""

    def __init__(self) -> None:
        self._used = MemoryStorage()
        self._debts: dict[str, Debt] = {}

    def charge(self, rate: Rate, tokens: int) -> None:
        debt = self._debts.setdefault(rate.tenant, Debt())
        units, debt.tokens = divmod(debt.tokens + tokens, rate.unit)
        fits = max(min(units, rate.units - self._younger(rate, WINDOW_SECONDS)), 0)
        if fits:
            # What was used is used: not to be refused here.
            self._used.acquire_entry(rate.key, sys.maxsize, WINDOW_SECONDS, fits)
        if units > fits:
            begins = max(debt.until, time.time() + WINDOW_SECONDS)
            debt.until = begins + WINDOW_SECONDS * (units - fits) / rate.units

    def left(self, rate: Rate) -> int:
        """Tokens that may be used now; not above 0: none."""
        debt = self._debt(rate)
        used = self._younger(rate, WINDOW_SECONDS) * rate.unit + debt.tokens
        return 0 if debt.until > time.time() else rate.limit - used

    def idle(self, rate: Rate) -> bool:
        """Whether nothing was used in the last minute that is worth a unit."""
        return self._debt(rate).until <= time.time() and not self._younger(rate, WINDOW_SECONDS)

    def seconds_until(self, rate: Rate, tokens: int) -> int:
        """Until so many are left, or it is idle, if nothing is used meanwhile."""
        debt = self._debt(rate)
        if (wait := debt.until - time.time()) > 0:
            return math.ceil(wait)
        needed = min(-(-(tokens + debt.tokens) // rate.unit), rate.units)
        return bisect_left(
            range(WINDOW_SECONDS + 1),
            needed,
            key=lambda seconds: rate.units - self._younger(rate, WINDOW_SECONDS - seconds),
        )

    def _younger(self, rate: Rate, seconds: int) -> int:
        """Units that were used in the last so many seconds."""
        return self._used.get_moving_window(rate.key, rate.units, seconds)[1]

    def _debt(self, rate: Rate) -> Debt:
        return self._debts.get(rate.tenant) or Debt()
