"""Reads `Retry-After`: seconds, or an HTTP date."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds from `now` (unix seconds), none of them negative; None when absent or unreadable."""
    with suppress(ValueError):
        seconds = float(value or "")
        return None if math.isnan(seconds) else max(0.0, seconds)
    try:
        date = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - now)
