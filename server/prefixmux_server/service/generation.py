"""The generation service: the one way from a request to an answer, for every API.

Authorise, resolve, tokenise, submit, collect, assemble. It never logs what was asked or answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Self

import structlog

from prefixmux_server.engine import errors as engine_errors
from prefixmux_server.engine.front import EngineFront, Generation
from prefixmux_server.engine.messages import Ready, Submit
from prefixmux_server.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InternalError,
    Overloaded,
)
from prefixmux_server.service.admission import Admission, Admitted, monotonic
from prefixmux_server.service.answer import Answer
from prefixmux_server.service.assemble import answer
from prefixmux_server.service.collect import Collected, collect
from prefixmux_server.service.request import GenerationRequest
from prefixmux_server.service.steps import StepLog
from prefixmux_server.service.tenant import Tenant

# Separate from the threads of uploads, so that hashing a large file delays no request.
ADMISSION_THREADS = 4


class GenerationService:
    """Of one event loop. A request that is cancelled or times out frees its row at once."""

    def __init__(self, engine: EngineFront, admission: Admission, steps: StepLog) -> None:
        self._engine = engine
        self._admission = admission
        self._steps = steps
        self._threads = ThreadPoolExecutor(ADMISSION_THREADS, "prefixmux-admission")
        self._log = structlog.get_logger("prefixmux.generation")

    async def generate(self, tenant: Tenant, request: GenerationRequest) -> Answer:
        """Raises the server's and the store's errors, whose codes the contract names."""
        tenant.require("generate")
        arrived = monotonic()
        async with _in_time(request.timeout_s) as limit:
            admitted = await self._admit(tenant, request, arrived)
            _move(limit, admitted.submit.deadline)
            collected = await self._run(admitted)
        return self._answer(admitted, collected, tenant)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _admit(self, tenant: Tenant, request: GenerationRequest, arrived: float) -> Admitted:
        ready = self._ready()
        loop = asyncio.get_running_loop()
        admitted = await loop.run_in_executor(
            self._threads, self._admission.admit, tenant.name, request, ready, arrived
        )
        self._steps.name(admitted.submit.id, tenant.name, request.task_id)
        return admitted

    async def _run(self, admitted: Admitted) -> Collected:
        generation = self._submit(admitted.submit)
        try:
            return await collect(generation, admitted)
        finally:
            generation.abort()

    def _ready(self) -> Ready:
        ready = self._engine.ready
        if ready is None or not self._engine.health.ok:
            raise EngineUnavailable("The engine is not ready; try again in a few seconds.")
        return ready

    def _submit(self, submit: Submit) -> Generation:
        try:
            return self._engine.submit(submit)
        except engine_errors.EngineUnavailable as error:
            raise EngineUnavailable(
                "The engine is not running; try again in a few seconds."
            ) from error
        except engine_errors.Overloaded as error:
            raise Overloaded("Too many requests are waiting; try again later.") from error

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


def _move(limit: asyncio.Timeout, deadline: float | None) -> None:
    """To `deadline`, of CLOCK_MONOTONIC: the version may store a time limit."""
    if deadline is not None:
        limit.reschedule(asyncio.get_running_loop().time() + deadline - monotonic())


@asynccontextmanager
async def _in_time(seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
    """Raises `DeadlineExceeded` when it is over."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield limit
    except TimeoutError as error:
        raise DeadlineExceeded(
            "The request was not done within its timeout_s; ask for less or wait longer."
        ) from error
