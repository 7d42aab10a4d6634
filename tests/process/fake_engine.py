"""An engine without a model, for tests of the processes around it. Imported by the child.

A request's tokens are its last input id and what follows it, one per step and row. Some input ids
make it misbehave at the first step that sees them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    OutputEnd,
    Pin,
    Ready,
    ResidencyChange,
    Started,
    StepOutput,
    Submit,
    Timing,
    TokenDelta,
)
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.engine.record import RowRecord, StepRecord
from prefixmux_server.engine.settings import EngineSettings

DIE, HANG, STOP, RAISE = 666_001, 666_002, 666_003, 666_004
LOAD, NEVER_LOADED = 666_005, 666_006
SLOW = 666_007
SLOW_SECONDS = 7.0
STEP_SECONDS = 0.001  # an endless request shall not keep a core busy
BAD_DIGEST = "sha256:bad"


class FakeEngine:
    """All open requests run in every step."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._open: dict[str, tuple[Submit, int]] = {}
        self.pins: list[Pin] = []
        self._step = 0
        self._loaded = threading.Event()

    @property
    def has_work(self) -> bool:
        return bool(self._open)

    def submit(self, submit: Submit) -> None:
        self._open[submit.id] = submit, 0
        if submit.input_ids[-1] == LOAD:
            threading.Timer(0.05, self._load).start()

    def pin(self, pin: Pin) -> None:
        self.pins.append(pin)

    def abort(self, id: str, index: int | None = None) -> None:
        self._open.pop(id, None)

    def step(self) -> StepOutput | None:
        expired = [submit for submit, _ in self._open.values() if is_past(submit.deadline)]
        if expired:
            return StepOutput(
                None, finished=tuple(self._end(s, "deadline_exceeded") for s in expired)
            )
        running = [entry for entry in self._open.values() if self._can_run(entry[0])]
        return self._run(running) if running else None

    def close(self) -> None:
        self._open.clear()

    def _can_run(self, submit: Submit) -> bool:
        token = submit.input_ids[-1]
        return token != NEVER_LOADED and (token != LOAD or self._loaded.is_set())

    def _run(self, running: list[tuple[Submit, int]]) -> StepOutput:
        self._step += 1
        time.sleep(STEP_SECONDS)
        for submit, _ in running:
            misbehave(submit.input_ids[-1])
        rows = tuple(RowRecord(submit.id, "decode", 1, 0) for submit, _ in running)
        return StepOutput(
            StepRecord(self._step, rows, 0, 0.0),
            tuple(
                TokenDelta(submit.id, (submit.input_ids[-1] + done,)) for submit, done in running
            ),
            tuple(end for submit, done in running if (end := self._advance(submit, done))),
            tuple(
                ResidencyChange(submit.tenant, digest, "device")
                for submit, _ in running
                for digest in submit.prefixes
            ),
            tuple(
                Started(submit.id, submit.prefixes, (), 0.0, 0.0)
                for submit, done in running
                if done == 0
            ),
        )

    def _advance(self, submit: Submit, done: int) -> Finished | None:
        if BAD_DIGEST in submit.prefixes:
            return self._end(submit, "non_finite_output")
        if done + 1 == submit.sampling.max_new_tokens:
            return self._end(submit, None)
        self._open[submit.id] = submit, done + 1
        return None

    def _end(self, submit: Submit, code: str | None) -> Finished:
        del self._open[submit.id]
        ends = () if code else (OutputEnd(0, "length"),)
        error = EngineError(code, "What the fake was told to say.") if code else None
        return Finished(submit.id, ends, submit.prefixes, (), Timing(0, 0, 0, 0), error=error)

    def _load(self) -> None:
        self._loaded.set()
        self._wake()


def is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def misbehave(token: int) -> None:
    if token == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if token == STOP:
        os.kill(os.getpid(), signal.SIGSTOP)
    if token == SLOW:
        time.sleep(SLOW_SECONDS)
    if token == HANG:
        while True:
            time.sleep(3600)
    if token == RAISE:
        raise RuntimeError(f"a client said {token}")


def fail_second(starts: Path) -> None:
    """Leaves one byte per start."""
    before = starts.read_bytes() if starts.exists() else b""
    starts.write_bytes(before + b".")
    if len(before) == 1:
        raise EngineStartError("internal_error", "The second start fails.")


def model_info(name: str) -> ModelInfo:
    return ModelInfo(
        id=name,
        family="causal",
        architecture="Fake",
        layers=1,
        kv_heads=1,
        head_dim=8,
        hidden=8,
        vocabulary=1000,
        dtype="float32",
        device="cpu",
        context=None,
        fingerprint="sha256:0",
        methods=(),
        sites=(),
        eos_token_ids=(),
        capacity_tokens=1000,
    )


def build(settings: EngineSettings, wake: Callable[[], None]) -> tuple[FakeEngine, Ready]:
    """The model's name in `Ready` is this process's id. `settings.model` picks a misfortune."""
    match settings.model:
        case "refused":
            raise EngineStartError("unsupported_model", "This model is not supported.")
        case "dies":
            os._exit(3)
        case "talkative":
            sys.stdout.write("loading\n")
            sys.stdout.flush()
            os.write(1, b"loading\n")
        case "fails-second":
            fail_second(Path(settings.store) / "starts")
    return FakeEngine(wake), Ready(model_info(str(os.getpid())), None)
