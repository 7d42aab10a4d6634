"""`prefixmux serve`: from flags to an exit status.

Owns the signals and the drain; each piece closes what it opened. `wiring.py` puts them together.
Exit status: 0 after a drain, 2 for usage, a refused bind or an unsupported model, 1 else.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn

from prefixmux_server.api.app import create_app
from prefixmux_server.api.http.protocol import Limits
from prefixmux_server.api.http.server import (
    BindError,
    allow_connections,
    bind,
    is_loopback,
    serving,
    url_of,
)
from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.heap import keep_what_is_loaded
from prefixmux_server.engine.pipes.client import EngineClient
from prefixmux_server.errors import UsageError
from prefixmux_server.logs import configure_logging
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.prefixes.preload import Loading, named
from prefixmux_server.service.prefixes.upkeep import collecting, grace_of
from prefixmux_server.settings import Settings, resolve
from prefixmux_server.wiring import build_services
from prefixmux_store.errors import StoreError
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Version

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A prefix that is not loaded by then is loaded later; what is wrong with it requests will tell.
PRELOAD_SECONDS = 30.0


def main(flags: Mapping[str, object]) -> int:
    """Serve until SIGTERM or SIGINT. `flags` by name; None for one that was not given."""
    try:
        settings = resolve(flags)
        exposed = not is_loopback(settings.host)
        configure_logging()
        return _run(_open_and_serve(settings, exposed=exposed))
    except UsageError as error:
        return _fail(error.message, 2)
    except StoreError as error:
        return _fail(error.message, 1)
    except BindError as error:
        return _fail(f"{error.url} cannot be bound; choose another --host or --port.", 2)
    except EngineStartError as error:
        return _fail(error.message, 2 if error.code == "unsupported_model" else 1)


def _run(serve: Coroutine[Any, Any, int]) -> int:
    loop_factory = uvicorn.Config("", loop="auto", log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(serve)


def _check_exposed(settings: Settings, store: PrefixStore) -> None:
    if settings.allow_anonymous or store.keys.required():
        return
    raise UsageError(
        f"Without API keys the server binds loopback only, not {settings.host}: make a key with"
        f" `prefixmux keys create --store {settings.store} --tenant NAME --scope admin`, take"
        " --host 127.0.0.1, or let everyone in with --allow-anonymous."
    )


async def _open_and_serve(settings: Settings, *, exposed: bool) -> int:
    """`exposed`: other machines reach the address."""
    structlog.get_logger("prefixmux").info("settings", **settings.model_dump(mode="json"))
    with PrefixStore.open(settings.store) as store:
        if exposed:
            _check_exposed(settings, store)
        preloaded = named(store, settings.preload)
        with bind(settings.host, settings.port) as listening:
            engine = EngineClient(settings.engine, hang_seconds=settings.hang_seconds)
            try:
                await _serve(settings, store, engine, listening, preloaded)
            finally:
                await engine.close()
    return 0


async def _serve(
    settings: Settings,
    store: PrefixStore,
    engine: EngineClient,
    listening: socket.socket,
    preloaded: tuple[Version, ...],
) -> None:
    """Health answers while the model loads; the ready line comes once requests are served."""
    lifecycle = Lifecycle()
    services = build_services(settings, store, engine, lifecycle)
    url, log = url_of(listening), structlog.get_logger("prefixmux")
    limits = Limits(connections=allow_connections(settings.max_connections))
    if limits.connections < settings.max_connections:
        log.warning("too few files may be open", connections=limits.connections)
    for version in preloaded:
        services.pins.set(version, pinned=True)
    loading = Loading(engine, preloaded)
    with stop_signals(lifecycle) as stopping, services.audit, services.generation:
        async with (
            services.usage.running(),
            services.lag.sampling(),
            serving(create_app(services), listening, limits, services.metrics.http),
        ):
            if not await _first(stopping, engine.start()):
                return
            if not await _first(stopping, loading.finish(PRELOAD_SECONDS)):
                return
            keep_what_is_loaded()
            print(f"ready {url}", flush=True)  # noqa: T201 - what scripts wait for
            log.info("ready", url=url)
            async with collecting(store, grace=grace_of(settings.max_request_seconds)):
                await stopping.wait()
            log.info("draining", requests=lifecycle.accepted, seconds=settings.drain_seconds)
            await lifecycle.idle(settings.drain_seconds)
            log.info("drained", requests_cut=lifecycle.accepted)
            lifecycle.cut()


async def _first(stopping: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Whether the work is done; False if a signal came first, which ends it."""
    working = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    await asyncio.wait((working,))
    return False


@contextmanager
def stop_signals(lifecycle: Lifecycle) -> Iterator[asyncio.Event]:
    """The first SIGTERM or SIGINT begins the drain, the second ends it at once."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            lifecycle.cut()
        lifecycle.drain()
        stopping.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield stopping
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201 - the command's own last words
    return status
