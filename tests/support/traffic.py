"""Requests for canary tasks of a changing store, and the account of what they were answered."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from prefixmux_server.engine.engine import Engine
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.messages import Finished, StepOutput, Submit
from prefixmux_store.blobs import BlobStore
from prefixmux_store.errors import BlobMissing
from support.canary import RESERVED, Codes, after
from support.churn import Churn
from support.engines import submit

_OPEN = 80
_TOLERANCE = 2e-3


class Watch(Failpoints):
    """Compares the logits of every row with those that its own prefix and last token make."""

    def __init__(self, codes: Codes) -> None:
        self._codes = codes
        self._rows: dict[str, tuple[int | None, int]] = {}
        self.compared = self.wrong = 0

    def expect(self, request: Submit, said: int | None) -> None:
        self._rows[request.id] = said, request.input_ids[-1]

    def after_forward(self, ids: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
        rows = [self._rows[request_id] for request_id in ids]
        truth = self._codes.logits([said for said, _ in rows], [last for _, last in rows])
        near = (logits - truth).abs().amax(dim=-1) < _TOLERANCE
        self.compared += len(rows)
        self.wrong += len(rows) - int(near.sum())
        for request_id, (said, last) in zip(ids, rows, strict=True):
            self._rows[request_id] = said, after(last) if said is None else said
        return logits


@dataclass
class Traffic:
    """Requests for tasks of a changing store, and the account of what they were answered."""

    engine: Engine
    churn: Churn
    blobs: BlobStore
    watch: Watch
    wake: threading.Event
    rng: random.Random
    open: dict[str, tuple[Submit, int | None, int]] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)

    def run(self, tokens: int) -> None:
        while self.count["tokens"] < tokens or self.engine.has_work:
            while self.count["tokens"] < tokens and len(self.open) < _OPEN:
                self._submit()
            if self.rng.random() < 0.25:
                self.churn.turn()
            if self.rng.random() < 0.02:
                self._abort()
            output = self.engine.step()
            if output is None:
                assert self.wake.wait(60), "the engine has work and does nothing"
                self.wake.clear()
            else:
                self._take(output)

    def _submit(self) -> None:
        self.count["requests"] += 1
        tenant, digest = self._target()
        request = submit(
            f"r{self.count['requests']}",
            [self.rng.randrange(1, RESERVED) for _ in range(self.rng.randrange(1, 9))],
            prefixes=() if digest is None else (digest,),
            tenant=tenant,
            max_new_tokens=self.rng.randrange(5, 110),
        )
        said = None if digest is None else self.churn.says[digest]
        self.open[request.id] = request, said, request.input_ids[-1]
        self.watch.expect(request, said)
        self.engine.submit(request)

    def _target(self) -> tuple[str, str | None]:
        """A tenth bare, a few for versions deleted since they were resolved, some tasks hot."""
        draw = self.rng.random()
        if draw < 0.05 and self.churn.retired:
            return self.rng.choice(self.churn.retired)
        name = self.rng.choice(self.churn.live[:20] if draw < 0.3 else self.churn.live)
        return name[0], None if draw > 0.9 else self.churn.resolve(name)

    def _abort(self) -> None:
        request_id = self.rng.choice(list(self.open))
        del self.open[request_id]
        self.engine.abort(request_id)

    def _take(self, output: StepOutput) -> None:
        self.count["steps"] += output.record is not None
        if self.count["steps"] % 16 == 0:
            self.engine.check_integrity()
        for delta in output.deltas:
            for token in delta.token_ids:
                self._token(delta.id, token)
        for finished in output.finished:
            self._finish(finished)
        self.count.update(f"to {change.state}" for change in output.residency)

    def _token(self, request_id: str, token: int) -> None:
        request, said, last = self.open[request_id]
        expected = after(last) if said is None else said
        self.count["tokens"] += 1
        self.count["foreign"] += token != expected
        self.open[request_id] = request, said, token

    def _finish(self, finished: Finished) -> None:
        request, said, _ = self.open.pop(finished.id)
        gone = said is not None and self._is_gone(request)
        if finished.error is not None:
            assert finished.error.code == "prefix_unavailable"
            assert gone, "a version whose file is there was refused"
            self.count["refused"] += 1
            return
        assert finished.prefixes == request.prefixes
        assert all(self.churn.says[digest] == said for digest in finished.prefixes)
        self.lengths.update(finished.prefix_tokens)
        self.count["outlived its file"] += gone
        self.count["bare"] += said is None

    def _is_gone(self, request: Submit) -> bool:
        try:
            self.blobs.size(request.tenant, request.prefixes[0])
        except BlobMissing:
            return True
        return False
