"""Our engine, driven directly: no processes, no HTTP. N tasks in one batch, or one task."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import torch

from bench.artefacts import Artefacts
from bench.peers.base import Bench, Sample
from prefixmux_server.engine.build import build_engine
from prefixmux_server.engine.messages import StepOutput, Submit
from prefixmux_server.engine.params import BeamParams, SamplingParams
from prefixmux_server.engine.settings import EngineSettings
from prefixmux_server.engine.shape import model_shape
from prefixmux_store.blobs import BlobStore
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.files import OsFiles

_TENANT = "default"
_WAIT_SECONDS = 60.0


class OurEngine:
    """The engine as the server builds it, over a store of prefixes that `put` fills."""

    def __init__(self, bench: Bench) -> None:
        self.workload = bench.workload
        self._woken = threading.Event()
        settings = EngineSettings(
            model=str(bench.artefacts.model),
            store=str(bench.store),
            device="cpu",
            dtype=bench.dtype,
            max_batch_rows=bench.rows,
            threads=bench.threads,
        )
        torch.set_num_threads(bench.threads)
        self._engine, ready = build_engine(settings, self._woken.set)
        self._shape = model_shape(ready.model, settings.max_prefix_tokens)
        self._start = ready.model.decoder_start_token_id
        self._blobs = BlobStore(bench.store, OsFiles())

    @property
    def has_work(self) -> bool:
        return self._engine.has_work

    def put(self, data: bytes) -> str:
        """Store a native prefix file; its digest."""
        return self._blobs.write(_TENANT, data)

    def put_adapters(self, artefacts: Artefacts, tasks: int) -> list[str]:
        """PEFT's files of the first tasks, as their digests."""
        digests = []
        for folder in map(artefacts.adapter, range(tasks)):
            config = (folder / "adapter_config.json").read_bytes()
            weights = (folder / "adapter_model.safetensors").read_bytes()
            digests.append(self.put(from_peft(config, weights, self._shape)))
        return digests

    def submit(self, digests: Sequence[str], new_tokens: int) -> None:
        """One request for each digest; the requests' ids count from 0."""
        beams = None if self.workload.beams == 1 else BeamParams(self.workload.beams)
        sampling = SamplingParams(max_new_tokens=new_tokens, ignore_eos=True, beams=beams)
        start = (self._start,) if self.workload.shape.encodes and self._start is not None else ()
        for request, digest in enumerate(digests):
            prompt = tuple(self.workload.prompt(request))
            self._engine.submit(Submit(str(request), _TENANT, (digest,), prompt, sampling, start))

    def step(self, outputs: dict[str, list[int]]) -> StepOutput | None:
        """One step, or a wait for one; adds its tokens to `outputs`.

        Raises RuntimeError if a request failed.
        """
        self._woken.clear()
        output = self._engine.step()
        if output is None:
            if not self._woken.wait(_WAIT_SECONDS):
                raise RuntimeError("the engine has work, does nothing and never wakes")
            return None
        for delta in output.deltas:
            outputs.setdefault(delta.id, []).extend(delta.token_ids)
        for finished in output.finished:
            if finished.error is not None:
                raise RuntimeError(f"request {finished.id}: {finished.error.message}")
            if finished.beams:
                outputs[finished.id] = list(finished.beams[0].token_ids)
        return output

    def close(self) -> None:
        self._engine.close()


class EnginePeer:
    """Request i asks for the prefix `digests[i]`; where they are all of one task, that one."""

    def __init__(self, engine: OurEngine, digests: Sequence[str]) -> None:
        self._engine = engine
        self._digests = digests

    def run(self, requests: int, new_tokens: int) -> Sample:
        outputs: dict[str, list[int]] = {}
        started = time.perf_counter()
        self._engine.submit(self._digests[:requests], new_tokens)
        while self._engine.has_work:
            self._engine.step(outputs)
        seconds = time.perf_counter() - started
        rows = tuple(tuple(outputs[str(request)]) for request in range(requests))
        return Sample(sum(map(len, rows)), seconds, requests, rows)

    def close(self) -> None:
        self._engine.close()
