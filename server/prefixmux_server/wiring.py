"""Puts the services together over one store and one engine.

Knows who needs whom; owns no process, no socket and no signal.
"""

from __future__ import annotations

from prefixmux_server.api.services import Services
from prefixmux_server.engine.front import EngineFront
from prefixmux_server.service.admission import Admission
from prefixmux_server.service.generation import GenerationService
from prefixmux_server.service.keys import KeyService
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.prefixes import PrefixService
from prefixmux_server.service.steps import StepLog
from prefixmux_server.settings import Settings
from prefixmux_store.store import PrefixStore


def build_services(
    settings: Settings, store: PrefixStore, engine: EngineFront, lifecycle: Lifecycle
) -> Services:
    """Everything the routes work with. `generation` has to be closed."""
    steps = StepLog(engine)
    return Services(
        engine=engine,
        generation=GenerationService(engine, Admission(store, settings.max_batch_rows), steps),
        prefixes=PrefixService(engine, store, settings.max_prefix_tokens, settings.max_batch_rows),
        steps=steps,
        lifecycle=lifecycle,
        keys=KeyService(store.keys),
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
