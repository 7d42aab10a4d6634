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
    EngineSettings,
    Finished,
    FinishReason,
    ModelInfo,
    Ready,
    ResidencyChange,
    RowRecord,
    StepOutput,
    StepRecord,
    Submit,
    Timing,
    TokenDelta,
)

DIE, HANG, STOP, RAISE, LOAD = 666_001, 666_002, 666_003, 666_004, 666_005
STEP_SECONDS = 0.001  # an endless request shall not keep a core busy
BAD_DIGEST = "sha256:bad"


class FakeEngine:
    """All open requests run in every step."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._open: dict[str, tuple[Submit, int]] = {}
        self._step = 0
        self._loaded = threading.Event()

    @property
    def has_work(self) -> bool:
        return bool(self._open)

    def submit(self, submit: Submit) -> None:
        self._open[submit.id] = submit, 0
        if submit.input_ids[-1] == LOAD:
            threading.Timer(0.05, self._load).start()

    def abort(self, id: str) -> None:
        self._open.pop(id, None)

    def step(self) -> StepOutput | None:
        running = [
            (submit, done)
            for submit, done in self._open.values()
            if submit.input_ids[-1] != LOAD or self._loaded.is_set()
        ]
        if not running:
            return None
        self._step += 1
        time.sleep(STEP_SECONDS)
        for submit, _ in running:
            misbehave(submit.input_ids[-1])
        record = StepRecord(
            self._step, tuple(RowRecord(s.id, "decode", 1, 0) for s, _ in running), 0, 0.0
        )
        deltas = tuple(TokenDelta(s.id, (s.input_ids[-1] + done,)) for s, done in running)
        finished = tuple(end for submit, done in running if (end := self._advance(submit, done)))
        changes = tuple(
            ResidencyChange(s.tenant, digest, "device") for s, _ in running for digest in s.prefixes
        )
        return StepOutput(record, deltas, finished, changes)

    def close(self) -> None:
        self._open.clear()

    def _advance(self, submit: Submit, done: int) -> Finished | None:
        if BAD_DIGEST in submit.prefixes:
            error = EngineError("non_finite_output", "The prefix gives no finite output.")
        elif done + 1 < submit.sampling.max_new_tokens:
            self._open[submit.id] = submit, done + 1
            return None
        else:
            error = None
        del self._open[submit.id]
        timing = Timing(0.0, 0.0, 0.0, 0.0)
        reason: FinishReason | None = None if error else "length"
        return Finished(submit.id, reason, submit.prefixes, (), timing, error=error)

    def _load(self) -> None:
        self._loaded.set()
        self._wake()


def misbehave(token: int) -> None:
    if token == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if token == STOP:
        os.kill(os.getpid(), signal.SIGSTOP)
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
