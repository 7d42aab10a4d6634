"""How far the server's event loop lagged behind, by its own account."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

_LAG = "prefixmux:event_loop_lag_seconds_bucket"


def lags(url: str) -> dict[float, float]:
    """How often by at most so many seconds, since the server's start."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return {
        float(line.partition('le="')[2].partition('"')[0]): float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(_LAG)
    }


def quantile(after: Mapping[float, float], share: float, before: Mapping[float, float]) -> float:
    """The upper end of the histogram's bucket that holds it, of what came after `before`."""
    counts = {edge: count - before.get(edge, 0) for edge, count in after.items()}
    total = max(counts.values(), default=0.0)
    return min((edge for edge, count in counts.items() if count >= share * total), default=0.0)
