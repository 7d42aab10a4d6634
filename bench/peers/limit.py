"""What this machine allows: memory bandwidth and GEMM speed, measured, applied to the workload.

A decode step reads every weight and the KV of every row once, and multiplies every weight with
every row; it lasts at least as long as the slower of the weights' reading and the multiplying,
plus the KV's reading. Beams of one request share the KV of what they have in common, prefix and
prompt. Nothing else is counted: no attention arithmetic, sampling or Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Linear

from bench.peers.base import Bench, Sample
from prefixmux_server.model.dense import optimise

_READ_BYTES = 1 << 28
_GEMM_ROWS, _GEMM_INPUTS, _GEMM_OUTPUTS = 1024, 768, 3072
_REPEATS = 5


class Limit:
    """Its samples are computed, from rates measured in the same moment as the other peers."""

    def __init__(self, bench: Bench) -> None:
        torch.set_num_threads(bench.threads)
        self._workload = bench.workload
        self._dtype: torch.dtype = getattr(torch, bench.dtype)
        self._memory = torch.ones(_READ_BYTES // 8, dtype=torch.float64)
        self._gemm = torch.nn.Sequential(Linear(_GEMM_INPUTS, _GEMM_OUTPUTS)).to(self._dtype)
        optimise(self._gemm, dtype=self._dtype, device=torch.device("cpu"))
        self._rows = torch.randn(_GEMM_ROWS, _GEMM_INPUTS).to(self._dtype)

    def run(self, requests: int, new_tokens: int) -> Sample:
        # A decoder-only model's first token comes with the prompt, another's with a step.
        steps = new_tokens if self._workload.shape.encodes else new_tokens - 1
        seconds = self._prefill_seconds(requests) + self._decode_seconds(requests, steps)
        return Sample(requests * new_tokens, seconds, requests, ())

    def bandwidth(self) -> float:
        """Bytes per second of reading far more than the caches hold."""
        return _READ_BYTES / _fastest(self._memory.sum)

    @torch.inference_mode()
    def gemm_rate(self) -> float:
        """FLOP per second of a large multiplication in the model's type."""
        work = 2 * _GEMM_ROWS * _GEMM_INPUTS * _GEMM_OUTPUTS
        return work / _fastest(lambda: self._call_gemm())

    def _call_gemm(self) -> Tensor:
        result: Tensor = self._gemm(self._rows)
        return result

    def _prefill_seconds(self, requests: int) -> float:
        shape = self._workload.shape
        dense = shape.dense_parameters * self._workload.prompt_tokens
        head = 0 if shape.encodes else shape.head_parameters
        return 2 * requests * (dense + head) / self.gemm_rate()

    def _decode_seconds(self, requests: int, steps: int) -> float:
        shape, size, beams = self._workload.shape, self._dtype.itemsize, self._workload.beams
        bandwidth, weights = self.bandwidth(), shape.dense_parameters + shape.head_parameters
        own = self._workload.prompt_tokens + beams * steps / 2
        seen = sum(self._workload.prefix_tokens(i) + own for i in range(requests))
        reading = weights * size / bandwidth
        multiplying = 2 * requests * beams * weights / self.gemm_rate()
        return steps * (max(reading, multiplying) + seen * shape.kv_values * size / bandwidth)

    def close(self) -> None:
        """Holds nothing but memory."""


def _fastest(work: Callable[[], Tensor]) -> float:
    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return min(once() for _ in range(_REPEATS))
