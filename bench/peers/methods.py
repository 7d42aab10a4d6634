"""Our engine's decode steps, by how the tasks' prefixes were made: KV, embeddings, or text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch

from bench.peers.base import Sample
from bench.peers.engine import OurEngine
from bench.workload import Workload
from prefixmux_server.engine.messages import StepOutput
from prefixmux_store.format import PrefixMeta, RawTensor, encode

_EMBEDDING_STD = 0.3
# Some tasks stand for all, as the first are about as long as any others.
_FIRST_USES = 4


def embedding_file(workload: Workload, task: int) -> bytes:
    """Random virtual tokens, as many as the task's KV prefix has."""
    tokens, width = workload.prefix_tokens(task), workload.shape.hidden
    generator = torch.Generator().manual_seed(task)
    values = _EMBEDDING_STD * torch.randn(tokens, width, generator=generator)
    raw = RawTensor("F32", (tokens, width), memoryview(values.numpy().tobytes()))
    return encode({"embeddings": raw}, PrefixMeta(method="PROMPT_TUNING"))


def text_file(workload: Workload, task: int) -> bytes:
    return encode({}, PrefixMeta(method="TEXT", token_ids=tuple(workload.prefix_text(task))))


class StepPeer:
    """Counts only steps in which every request decodes. Uses each task once before."""

    def __init__(self, engine: OurEngine, digests: Sequence[str]) -> None:
        self._engine = engine
        self._digests = digests
        uses = digests[:_FIRST_USES]
        first, later = ([self._use(digest) for digest in uses] for _ in range(2))
        self._first_use = median(a - b for a, b in zip(first, later, strict=True))
        for digest in digests[_FIRST_USES:]:
            self._use(digest)

    def run(self, requests: int, new_tokens: int) -> Sample:
        outputs: dict[str, list[int]] = {}
        steps, seconds = 0, 0.0
        self._engine.submit(self._digests[:requests], new_tokens)
        while self._engine.has_work:
            started = time.perf_counter()
            output = self._engine.step(outputs)
            if output is not None and _decodes(output, requests):
                steps += 1
                seconds += time.perf_counter() - started
        rows = tuple(tuple(outputs[str(request)]) for request in range(requests))
        return Sample(steps * requests, seconds, requests, rows, self._first_use)

    def close(self) -> None:
        self._engine.close()

    def _use(self, digest: str) -> float:
        """Seconds until one request for it has its first token."""
        started = time.perf_counter()
        self._engine.submit([digest], 1)
        while self._engine.has_work:
            self._engine.step({})
        return time.perf_counter() - started


def _decodes(output: StepOutput, requests: int) -> bool:
    record = output.record
    if record is None or len(record.rows) < requests:
        return False
    return all(row.phase == "decode" for row in record.rows)
