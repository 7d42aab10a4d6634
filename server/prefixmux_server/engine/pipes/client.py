"""The engine seen from the HTTP process: `front.EngineFront` over a supervised child process.

Owns the open requests, what is known of residency and steps, and the child's life: it starts one,
watches it, replaces it when it dies or hangs, and ends it. Knows nothing of HTTP and of torch.

Nothing here blocks the event loop or polls a pipe. Outgoing commands queue in the pipe's transport;
`Overloaded` bounds that queue, by requests and by bytes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import uuid
from collections.abc import Sequence

from prefixmux_server.engine.errors import EngineUnavailable, Overloaded
from prefixmux_server.engine.front import EngineHealth, Observer
from prefixmux_server.engine.messages import (
    Abort,
    Alive,
    EngineError,
    EngineEvent,
    Finished,
    Pin,
    Ready,
    ResidencyState,
    Shutdown,
    StepOutput,
    Submit,
)
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.pipes.generation import PipedGeneration
from prefixmux_server.engine.pipes.launch import launch, relaunch
from prefixmux_server.engine.pipes.link import EngineLink
from prefixmux_server.engine.pipes.process import Start
from prefixmux_server.engine.pipes.schema import WireError
from prefixmux_server.engine.pipes.steplog import StepLog
from prefixmux_server.engine.pipes.waiters import Waiters
from prefixmux_server.engine.pipes.watch import Watch, beat_seconds
from prefixmux_server.engine.record import StepRecord
from prefixmux_server.engine.settings import EngineSettings

DEFAULT_FACTORY = "prefixmux_server.engine.build:start_engine"
# Commands that a slow engine has not taken yet; beyond it new requests are refused.
MAX_BACKLOG_BYTES = 64 << 20
# What the last step may take at `close`; then the engine is killed.
GRACE_SECONDS = 5.0
DOWN = EngineError("engine_unavailable", "The engine is not running; try again shortly.")
FULL = EngineError("overloaded", "Too many requests are waiting; try again shortly.")


class EngineClient:
    """One engine for one event loop: `start`, use, `close`, once each.

    `restart`: replace an engine that ended by itself. `hang_seconds`: the longest that a step may
    take; an engine that is at one for longer is replaced, and a silent one sooner (`Watch`).
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        factory: str = DEFAULT_FACTORY,
        restart: bool = True,
        hang_seconds: float = 30.0,
    ) -> None:
        self._start = Start(settings, factory, tuple(sys.path), beat_seconds(hang_seconds))
        self._max_open = settings.max_batch_rows + settings.max_waiting
        self._restart = restart
        self._hang_seconds = hang_seconds
        self._waiters = Waiters()
        self._residency: dict[tuple[str, str], ResidencyState] = {}
        self._pinned: set[tuple[str, str]] = set()
        self._observers: list[Observer] = []
        self._steps = StepLog()
        self._link: EngineLink | None = None
        self._watch: Watch | None = None
        self._ready: Ready | None = None
        self._reason = "stopped"
        self._restarts = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._log = logging.getLogger(__name__)

    @property
    def ready(self) -> Ready | None:
        return self._ready

    @property
    def health(self) -> EngineHealth:
        unresponsive = self._watch is not None and self._watch.unresponsive
        reason = "unresponsive" if unresponsive else self._reason
        return EngineHealth(ok=reason == "ready", reason=reason, restarts=self._restarts)

    async def start(self) -> Ready:
        """Load the model. Raises `errors.EngineStartError`; there is no second attempt then."""
        self._reason = "starting"
        try:
            link, ready = await launch(self._start)
        except BaseException:
            self._reason = "stopped"
            raise
        self._attach(link, ready)
        self._supervisor = asyncio.create_task(self._supervise(link))
        return ready

    async def close(self) -> None:
        """End the engine after its current step; open requests end as `engine_unavailable`."""
        self._restart = False
        link = self._detach("stopped")
        if self._supervisor is None:
            return
        if link is not None:
            link.send(Shutdown())
            await asyncio.wait([self._supervisor], timeout=GRACE_SECONDS)
        self._supervisor.cancel()
        await asyncio.wait([self._supervisor])

    def submit(self, submit: Submit) -> PipedGeneration:
        """Raises `errors.EngineUnavailable`, `errors.Overloaded` when open requests fill the
        batch's rows and `max_waiting` places beside, and `ValueError` for an id in use.

        With all places taken, a tenant that has fewer waiting than another still gets one: the
        newest of whoever has most ends as `overloaded`.
        """
        if self._link is None:
            raise EngineUnavailable
        if self._link.backlog > MAX_BACKLOG_BYTES:
            raise Overloaded
        if len(self._waiters) >= self._max_open:
            self._displace(submit.tenant, self._link)
        generation = PipedGeneration(submit.id, self._forget)
        self._waiters.add(generation, submit.tenant)
        self._link.send(submit)
        return generation

    def has_room(self, tenant: str) -> bool:
        return len(self._waiters) < self._max_open or self._waiters.may_displace(tenant)

    async def probe(
        self, tenant: str, prefixes: tuple[str, ...], decoder_ids: tuple[int, ...] = ()
    ) -> EngineError | None:
        """One token of a request of its own. A full queue answers `overloaded`."""
        sampling = SamplingParams(max_new_tokens=1, ignore_eos=True)
        request = Submit(
            id=f"probe_{uuid.uuid4().hex}",
            tenant=tenant,
            prefixes=prefixes,
            input_ids=(0,),
            sampling=sampling,
            decoder_ids=decoder_ids,
            cache_domain=tenant,
        )
        try:
            generation = self.submit(request)
        except EngineUnavailable:
            return DOWN
        except Overloaded:
            return FULL
        try:
            async for item in generation:
                if isinstance(item, Finished):
                    return item.error
        finally:
            generation.abort()
        return None

    def residency(self, tenant: str, digest: str) -> ResidencyState:
        return self._residency.get((tenant, digest), "disk")

    def pin(self, tenant: str, digest: str, *, pinned: bool) -> None:
        if pinned == self.is_pinned(tenant, digest):
            return
        (self._pinned.add if pinned else self._pinned.remove)((tenant, digest))
        if self._link is not None:
            self._link.send(Pin(tenant, digest, pinned))

    def is_pinned(self, tenant: str, digest: str) -> bool:
        return (tenant, digest) in self._pinned

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def steps(self, since: int) -> Sequence[StepRecord]:
        return self._steps.since(since)

    def _displace(self, tenant: str, link: EngineLink) -> None:
        displaced = self._waiters.displace(tenant, FULL)
        if displaced is None:
            raise Overloaded
        link.send(Abort(displaced))

    def _forget(self, generation: PipedGeneration, index: int | None) -> None:
        """All of a request, or one of its outputs."""
        if index is not None:
            known = self._waiters.holds(generation)
        else:
            known = self._waiters.remove(generation)
        if known and self._link is not None:
            self._link.send(Abort(generation.id, index))

    def _attach(self, link: EngineLink, ready: Ready) -> None:
        self._link, self._ready, self._reason = link, ready, "ready"
        for tenant, digest in sorted(self._pinned):
            link.send(Pin(tenant, digest, True))

    def _detach(self, reason: str) -> EngineLink | None:
        """From here on there is no engine: tell every waiter, and forget what it told."""
        link, self._link, self._watch, self._ready = self._link, None, None, None
        self._reason = reason
        self._waiters.fail_all(DOWN)
        self._residency.clear()
        self._steps.restart()
        return link

    async def _supervise(self, link: EngineLink) -> None:
        try:
            await self._serve(link)
            while self._restart:
                link, ready = await relaunch(self._start, self._log)
                self._restarts += 1
                self._attach(link, ready)
                await self._serve(link)
        finally:
            self._reason = "stopped"

    async def _serve(self, link: EngineLink) -> None:
        """Until this engine's end, its process included. Waiters hear of it before that: a process
        that is killed may take its time."""
        watch = self._watch = Watch(link, self._hang_seconds)
        watching = asyncio.create_task(watch.run())
        reading = asyncio.create_task(self._read(link, watch))
        try:
            await asyncio.wait((watching, reading), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                self._log.error("engine killed: %s", watching.result())
            else:
                reading.result()
        except BaseException:
            link.kill()
            raise
        finally:
            watching.cancel()
            reading.cancel()
            self._detach("restarting" if self._restart else "stopped")
            status = await link.reap()
            self._log.log(logging.ERROR if status else logging.INFO, "engine ended: %d", status)

    async def _read(self, link: EngineLink, watch: Watch) -> None:
        """Until the pipe's end."""
        try:
            while (event := await link.receive()) is not None:
                watch.heard(event.busy if isinstance(event, Alive) else 0.0)
                self._take(event)
        except WireError:
            self._log.error("the engine sent no valid message")
            link.kill()

    def _take(self, event: EngineEvent) -> None:
        if not isinstance(event, StepOutput):
            return
        self._waiters.take(event)
        for observe in self._observers:
            observe(event)
        if event.record is not None:
            self._steps.add(event.record)
        for change in event.residency:
            self._residency[change.tenant, change.digest] = change.state
            if change.state == "disk":
                del self._residency[change.tenant, change.digest]
