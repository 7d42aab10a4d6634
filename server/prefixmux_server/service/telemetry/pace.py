"""How fast the engine works off its queue, and so when it is worth asking again.

Owned by the event loop; hears of every step.
"""

from __future__ import annotations

import math
from collections import deque

from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.service.generation.admission import monotonic

# The pace of the moment: enough ends to be no accident, few enough to be recent.
ENDS_KEPT = 64
SHORTEST_S, LONGEST_S = 1, 120


class Pace:
    """An engine that ended nothing yet gives no pace; then the shortest wait is told."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=ENDS_KEPT)
        self._waiting = 0

    def observe(self, output: StepOutput) -> None:
        if output.record is not None:
            self._waiting = output.record.waiting
        now = monotonic()
        self._ends.extend(now for _ in output.finished)

    def retry_after(self) -> int:
        """Whole seconds until those that wait now will have had their turn."""
        if len(self._ends) < 2:
            return SHORTEST_S
        # Up to now and not to the last end: a queue that stands still is not a fast one.
        seconds_each = (monotonic() - self._ends[0]) / (len(self._ends) - 1)
        wait = math.ceil(self._waiting * seconds_each)
        return min(max(wait, SHORTEST_S), LONGEST_S)
