"""Whether there is a model to serve with, asked by everything that needs one."""

from __future__ import annotations

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import Ready
from prefixmux_server.errors import EngineUnavailable


def ready_of(engine: EngineFront) -> Ready:
    """Raises `EngineUnavailable` while it starts, restarts or does not answer."""
    ready = engine.ready
    if ready is None or not engine.health.ok:
        raise EngineUnavailable("The engine is not ready; try again in a few seconds.")
    return ready
