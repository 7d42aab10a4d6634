"""The generation service: the one way from a request to an answer, for every API.

Authorise, resolve, tokenise, submit, collect, assemble. It never logs what was asked or answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Self, TypeVar

import structlog

from prefixmux_server.engine import errors as engine_errors
from prefixmux_server.engine.front import EngineFront, Generation
from prefixmux_server.engine.messages import Ready, Submit
from prefixmux_server.errors import (
    EngineUnavailable,
    InternalError,
    Overloaded,
    Relayed,
)
from prefixmux_server.service.generation.admission import Admission, Admitted, monotonic
from prefixmux_server.service.generation.answer import Answer, TokenEvent
from prefixmux_server.service.generation.assemble import answer
from prefixmux_server.service.generation.collect import Collected
from prefixmux_server.service.generation.course import Course, code_of
from prefixmux_server.service.generation.deadline import in_time, too_late
from prefixmux_server.service.generation.limits import check_share, check_streamed
from prefixmux_server.service.generation.outcome import Outcome, OutcomeObserver
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.generation.turns import Turns
from prefixmux_server.service.readiness import ready_of
from prefixmux_server.service.telemetry.pace import Pace
from prefixmux_server.service.telemetry.steps import StepLog
from prefixmux_server.service.tenants.accounts import Accounts
from prefixmux_server.service.tenants.tenant import Tenant

# Separate from the threads of uploads, so that hashing a large file delays no request.
ADMISSION_THREADS = 4
MAX_SECONDS = 3600.0

T = TypeVar("T")


class GenerationService:
    """Of one event loop. A request that is cancelled or times out frees its row at once.

    `max_seconds`: the longest any request may take. What became of each is told, once, to the
    accounts and to `observers`.
    """

    def __init__(
        self,
        engine: EngineFront,
        admission: Admission,
        steps: StepLog,
        accounts: Accounts,
        observers: Sequence[OutcomeObserver] = (),
        max_seconds: float = MAX_SECONDS,
        pace: Pace | None = None,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._steps = steps
        self._accounts = accounts
        self._observers = tuple(observers)
        self._max_seconds = max_seconds
        self._pace = pace or Pace()
        self._turns = Turns(ADMISSION_THREADS, "prefixmux-admission")
        self._log = structlog.get_logger("prefixmux.generation")

    async def generate(self, tenant: Tenant, request: GenerationRequest) -> Answer:
        """Raises the server's and the store's errors, whose codes the contract names."""
        async with aclosing(self._serve(tenant, request, streamed=False)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return event
        raise InternalError("The request ended without an answer.")

    def stream(
        self, tenant: Tenant, request: GenerationRequest
    ) -> AsyncGenerator[TokenEvent | Answer, None]:
        """Tokens as they come, then exactly one answer; or it raises, as `generate`, at any time.

        To be closed by the caller, who is its only reader.
        """
        return self._serve(tenant, request, streamed=True)

    async def aside(
        self, tenant: Tenant, request: GenerationRequest, work: Callable[[Ready], T]
    ) -> T:
        """`work` that is done before `request` can be said whole, in a thread and at its tenant's
        account. What goes wrong is what became of the request; else that is told by what follows.
        """
        course = Course(tenant, request)
        try:
            tenant.require("generate")
            with self._accounts.enter(tenant.name):
                ready = self._ready(tenant.name)
                return await self._in_thread(course, lambda: work(ready))
        except BaseException as error:
            self._tell(course.outcome(code_of(error)))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._turns.close()

    async def _serve(
        self, tenant: Tenant, request: GenerationRequest, *, streamed: bool
    ) -> AsyncGenerator[TokenEvent | Answer, None]:
        course = Course(tenant, request)
        try:
            tenant.require("generate")
            with self._accounts.enter(tenant.name) as entry:
                admitted = course.admitted = await self._admit(course)
                entry.reserve(admitted.most_tokens)
                check_share(admitted.parameters, self._accounts.share(tenant.name).max_running)
                if streamed:
                    check_streamed(admitted.parameters)
                collected = course.collected = Collected(admitted, streamed=streamed)
                async with aclosing(self._run(course, admitted, collected)) as told:
                    async for event in told:
                        yield event
                result = self._answer(admitted, collected, tenant)
        except BaseException as error:
            self._tell(course.outcome(code_of(error)))
            raise
        self._tell(course.outcome("ok"))
        yield result

    async def _admit(self, course: Course) -> Admitted:
        tenant, request, ready = course.tenant.name, course.request, self._ready(course.tenant.name)
        admitted = await self._in_thread(
            course,
            lambda: self._admission.admit(
                tenant, request, ready, course.arrived, self._max_seconds
            ),
        )
        self._steps.name(admitted.submit.id, tenant, request.task_id)
        return admitted

    async def _in_thread(self, course: Course, work: Callable[[], T]) -> T:
        """Raises `DeadlineExceeded` if it takes longer than the request may."""
        seconds = min(course.request.timeout_s or self._max_seconds, self._max_seconds)
        async with in_time(seconds):
            return await self._turns.run(course.tenant.name, work)

    async def _run(
        self, course: Course, admitted: Admitted, collected: Collected
    ) -> AsyncGenerator[TokenEvent, None]:
        generation = self._submit(admitted.submit)
        seconds = (admitted.submit.deadline or 0.0) - monotonic()
        alarm = asyncio.get_running_loop().call_later(seconds, course.give_up, generation)
        try:
            async with aclosing(collected.collect(generation)) as told:
                async for event in told:
                    yield event
        except EngineUnavailable:
            if course.late:
                raise too_late() from None
            raise
        except Relayed as error:
            if error.code == Overloaded.code:
                raise self._overloaded() from error
            raise
        finally:
            alarm.cancel()
            generation.abort()

    def _ready(self, tenant: str) -> Ready:
        """Raises `EngineUnavailable`, and `Overloaded` before anything is done in vain."""
        ready = ready_of(self._engine)
        if not self._engine.has_room(tenant):
            raise self._overloaded()
        return ready

    def _submit(self, submit: Submit) -> Generation:
        try:
            return self._engine.submit(replace(submit, share=self._accounts.share(submit.tenant)))
        except engine_errors.EngineUnavailable as error:
            raise EngineUnavailable(
                "The engine is not running; try again in a few seconds."
            ) from error
        except engine_errors.Overloaded as error:
            raise self._overloaded() from error

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            "Too many requests are waiting; try again later.", self._pace.retry_after()
        )

    def _answer(self, admitted: Admitted, collected: Collected, tenant: Tenant) -> Answer:
        try:
            return answer(admitted, collected, tenant.name)
        except InternalError as error:
            self._log.critical(
                "answer refused",
                reason=error.message,
                id=admitted.submit.id,
                tenant=tenant.name,
                expected=admitted.submit.prefixes,
                read=sorted(collected.read),
            )
            raise

    def _tell(self, outcome: Outcome) -> None:
        """Whoever keeps account may fail; the request has its end all the same."""
        for observe in (self._accounts.finished, *self._observers):
            try:
                observe(outcome)
            except Exception as error:  # noqa: BLE001 - see above
                self._log.error("outcome not kept", id=outcome.id, error=type(error).__name__)
