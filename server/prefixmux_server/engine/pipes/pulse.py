"""The engine process says by itself, every so often, that it lives and how far it has come.

From a thread of its own, so that a long step is told from a process that does not run at all.
Knows nothing of what the work is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from prefixmux_server.engine.messages import Alive


class Pulse:
    """`work` begins a piece of work, `rest` ends it; both are called by the thread that works."""

    def __init__(
        self, send: Callable[[Alive], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._clock = clock
        self._since: float | None = None

    def work(self) -> None:
        self._since = self._clock()

    def rest(self) -> None:
        self._since = None

    def beat(self) -> None:
        since = self._since
        self._send(Alive(0.0 if since is None else self._clock() - since))

    def start(self, period: float) -> None:
        """Beat from now on, until the process ends or nobody listens any more."""

        def beat() -> None:
            with suppress(SystemExit):
                while True:
                    self.beat()
                    time.sleep(period)

        threading.Thread(target=beat, name="pulse", daemon=True).start()
