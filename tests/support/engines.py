"""Engines in the test's own process, over prefixes that the test holds in a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import torch

from prefixmux_server.engine.build import assemble, compiler
from prefixmux_server.engine.engine import Engine
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.fit import Limits
from prefixmux_server.engine.messages import Finished, StepOutput, Submit, TokenLogprobs
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.record import StepRecord
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
from prefixmux_server.memory.residency import Residency
from prefixmux_server.memory.select import LayoutName, make_memory
from prefixmux_server.memory.source import PrefixLoadError, PrefixSource
from prefixmux_server.model.load import LoadedModel

TENANT = "default"


class DictSource:
    """Prefixes by key; a missing one fails to load. `loads` counts what was read."""

    def __init__(self) -> None:
        self.prefixes: dict[PrefixKey, PrefixKV] = {}
        self.loads: list[PrefixKey] = []

    def add(
        self, digest: str, kv: torch.Tensor, offset: int | None = None, tenant: str = TENANT
    ) -> PrefixKV:
        """`kv` is `[L, 2, P, H_kv, D]`; the offset is P unless said otherwise."""
        key = PrefixKey(tenant, digest)
        shift = kv.shape[2] if offset is None else offset
        self.prefixes[key] = PrefixKV(key, {DECODER: kv}, {DECODER: shift})
        return self.prefixes[key]

    def size(self, key: PrefixKey) -> int:
        return self.prefixes[key].nbytes if key in self.prefixes else 0

    def load(self, key: PrefixKey) -> PrefixKV:
        self.loads.append(key)
        if key not in self.prefixes:
            raise PrefixLoadError("prefix_unavailable", "no such prefix")
        return self.prefixes[key]


class InlineExecutor(Executor):
    """Runs at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class HeldExecutor(Executor):
    """Runs nothing until told to: loads that take as long as the test wants."""

    def __init__(self) -> None:
        self.held: list[Callable[[], object]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.held.append(lambda: fn(*args, **kwargs))
        return Future()

    def run_all(self) -> None:
        held, self.held = self.held, []
        for call in held:
            call()


@dataclass(frozen=True)
class EngineParts:
    """What a test may look at beside the engine."""

    engine: Engine
    layout: KVMemory
    residency: Residency
    source: DictSource


def make_engine(
    loaded: LoadedModel,
    layout: LayoutName = "rows",
    *,
    source: DictSource | None = None,
    **options: Any,
) -> EngineParts:
    """Over prefixes in a dict; options as in `engine_over`."""
    source = source or DictSource()
    engine, memory, residency = engine_over(loaded, layout, source, **options)
    return EngineParts(engine, memory, residency, source)


def engine_over(
    loaded: LoadedModel,
    layout: LayoutName,
    source: PrefixSource,
    *,
    capacity: int = 8192,
    rows: int = 64,
    tokens: int = 2048,
    host_bytes: int = 1 << 30,
    device_bytes: int = 1 << 30,
    executor: Executor | None = None,
    failpoints: Failpoints | None = None,
    clock: Callable[[], float] | None = None,
    max_told: int | None = None,
) -> tuple[Engine, KVMemory, Residency]:
    """Everything that no live row owns is NaN, so that any foreign read shows."""
    module = loaded.module
    memory = make_memory(layout, loaded.specs, capacity, module.dtype, module.device, poison=True)
    loader = PrefixLoader(source, executor or InlineExecutor(), lambda: None)
    residency = Residency(
        memory,
        loader,
        host_bytes=host_bytes,
        device_bytes=device_bytes,
        compile=compiler(loaded, memory),
    )
    limits = Limits(rows, tokens, loaded.context, loaded.encoder_context, max_told)
    extra = {} if clock is None else {"clock": clock}
    engine = assemble(loaded, memory, residency, limits, failpoints=failpoints, **extra)
    return engine, memory, residency


def submit(
    request_id: str,
    input_ids: Iterable[int],
    *,
    prefixes: Iterable[str] = (),
    max_new_tokens: int = 16,
    tenant: str = TENANT,
    priority: int = 0,
    deadline: float | None = None,
    **sampling: Any,
) -> Submit:
    params = SamplingParams(max_new_tokens=max_new_tokens, **sampling)
    return Submit(
        id=request_id,
        tenant=tenant,
        prefixes=tuple(prefixes),
        input_ids=tuple(input_ids),
        sampling=params,
        priority=priority,
        deadline=deadline,
    )


@dataclass
class Answers:
    """What an engine has said: tokens and ends by request id, and its step records.

    `tokens` are those of each request's first output, `spoken` and `logprobs` by output.
    """

    tokens: dict[str, list[int]] = field(default_factory=dict)
    spoken: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    logprobs: dict[tuple[str, int], list[TokenLogprobs]] = field(default_factory=dict)
    prompts: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    finished: dict[str, Finished] = field(default_factory=dict)
    records: list[StepRecord] = field(default_factory=list)

    def step(self, engine: Engine, *, check: bool = True) -> bool:
        """One step, invariants checked after it; False if nothing happened."""
        output = engine.step()
        if check:
            engine.check_integrity()
        if output is None:
            return False
        self._listen(output)
        for finished in output.finished:
            assert finished.id not in self.finished, "a request ended twice"
            self.finished[finished.id] = finished
        if output.record is not None:
            self.records.append(output.record)
        return True

    def outputs(self, request_id: str) -> list[list[int]]:
        """What each output of a finished request has said."""
        ends = self.finished[request_id].outputs
        return [self.spoken.get((request_id, end.index), []) for end in ends]

    def _listen(self, output: StepOutput) -> None:
        for piece in output.prompts:
            assert not any(key[0] == piece.id for key in self.spoken), "too late"
            self.prompts.setdefault(piece.id, []).extend(piece.logprobs)
        for delta in output.deltas:
            assert delta.id not in self.finished, "a request that ended says more"
            self.spoken.setdefault((delta.id, delta.index), []).extend(delta.token_ids)
            if delta.index == 0:
                self.tokens.setdefault(delta.id, []).extend(delta.token_ids)
            if delta.logprobs:
                assert [told.token_id for told in delta.logprobs] == list(delta.token_ids)
                self.logprobs.setdefault((delta.id, delta.index), []).extend(delta.logprobs)

    def run(self, engine: Engine, *, check: bool = True, limit: int = 100_000) -> Answers:
        """Step until nothing is left to do."""
        for _ in range(limit):
            if not engine.has_work:
                return self
            assert self.step(engine, check=check), "the engine has work and does nothing"
        raise AssertionError("the engine does not come to an end")


def answer(engine: Engine, requests: Iterable[Submit]) -> Answers:
    """Submit all at once and run to the end."""
    for request in requests:
        engine.submit(request)
    return Answers().run(engine)


def tokens_of(answers: Answers, ids: Iterable[str]) -> Mapping[str, list[int]]:
    return {request_id: answers.tokens[request_id] for request_id in ids}
