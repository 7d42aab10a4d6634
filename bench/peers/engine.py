"""Our engine, driven directly: no processes, no HTTP. N tasks in one batch, or one task."""

from __future__ import annotations

import threading
import time

import torch

from bench.peers.base import Bench, Sample
from prefixmux_server.engine.build import build_engine
from prefixmux_server.engine.messages import EngineSettings, Submit
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.shape import model_shape
from prefixmux_store.blobs import BlobStore
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.files import OsFiles

_TENANT = "default"
_WAIT_SECONDS = 60.0


class OurEngine:
    """The engine as the server builds it, with every task's prefix in its store."""

    def __init__(self, bench: Bench) -> None:
        self.workload = bench.workload
        self.woken = threading.Event()
        settings = EngineSettings(
            model=str(bench.artefacts.model),
            store=str(bench.store),
            device="cpu",
            dtype=bench.dtype,
            max_batch_rows=max(64, bench.largest),
            threads=bench.threads,
        )
        torch.set_num_threads(bench.threads)
        self.engine, ready = build_engine(settings, self.woken.set)
        shape = model_shape(ready.model, settings.max_prefix_tokens)
        blobs = BlobStore(bench.store, OsFiles())
        self.digests: list[str] = []
        for task in range(bench.largest):
            folder = bench.artefacts.adapter(task)
            config = (folder / "adapter_config.json").read_bytes()
            weights = (folder / "adapter_model.safetensors").read_bytes()
            self.digests.append(blobs.write(_TENANT, from_peft(config, weights, shape)))

    def submit(self, requests: int, new_tokens: int, *, one_task: bool) -> None:
        sampling = SamplingParams(max_new_tokens=new_tokens, ignore_eos=True)
        for request in range(requests):
            digest = self.digests[0 if one_task else request]
            prompt = tuple(self.workload.prompt(request))
            self.engine.submit(Submit(str(request), _TENANT, (digest,), prompt, sampling))

    def step(self, outputs: dict[str, list[int]]) -> None:
        """One step; adds its tokens to `outputs`. Raises RuntimeError if a request failed."""
        self.woken.clear()
        output = self.engine.step()
        if output is None:
            if not self.woken.wait(_WAIT_SECONDS):
                raise RuntimeError("the engine has work, does nothing and never wakes")
            return
        for delta in output.deltas:
            outputs.setdefault(delta.id, []).extend(delta.token_ids)
        for finished in output.finished:
            if finished.error is not None:
                raise RuntimeError(f"request {finished.id}: {finished.error.message}")


class EnginePeer:
    """`one_task`: every request asks task 0, as PEFT's batch must."""

    def __init__(self, engine: OurEngine, *, one_task: bool) -> None:
        self._engine = engine
        self._one_task = one_task

    def run(self, requests: int, new_tokens: int) -> Sample:
        outputs: dict[str, list[int]] = {}
        started = time.perf_counter()
        self._engine.submit(requests, new_tokens, one_task=self._one_task)
        while self._engine.engine.has_work:
            self._engine.step(outputs)
        seconds = time.perf_counter() - started
        rows = tuple(tuple(outputs[str(request)]) for request in range(requests))
        return Sample(sum(map(len, rows)), seconds, requests, rows)

    def close(self) -> None:
        self._engine.engine.close()
