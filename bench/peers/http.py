"""Our server as a user runs it: a process of its own, asked over HTTP in one batch call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from bench.peers.base import Bench, Sample
from bench.workload import task_id
from prefixmux import Client, GenerateRequest

_START_SECONDS = 180.0
_STOP_SECONDS = 60.0


class HttpPeer:
    """`prefixmux serve` on a free port, its tasks uploaded through its own API."""

    def __init__(self, bench: Bench) -> None:
        self._workload = bench.workload
        self._process = _start(bench)
        try:
            self._client = Client(_base_url(self._process))
            for task in range(bench.largest):
                self._client.prefixes.upload(task_id(task), bench.artefacts.adapter(task))
        except BaseException:
            self._process.kill()
            raise

    def run(self, requests: int, new_tokens: int) -> Sample:
        parameters = {
            "max_new_tokens": new_tokens,
            "ignore_eos": True,
            "num_beams": self._workload.beams,
        }
        asked = [
            GenerateRequest(task_id(i), self._workload.prompt(i), parameters=parameters)
            for i in range(requests)
        ]
        started = time.perf_counter()
        answers = [row.unwrap() for row in self._client.generate_many(asked)]
        seconds = time.perf_counter() - started
        rows = tuple(answer.outputs[0].token_ids for answer in answers)
        return Sample(sum(map(len, rows)), seconds, requests, rows)

    def close(self) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_STOP_SECONDS)


def _start(bench: Bench) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "prefixmux.cli", "serve", str(bench.artefacts.model)]
    command += ["--store", str(bench.store), "--port", "0", "--device", "cpu"]
    command += ["--dtype", bench.dtype, "--max-batch-rows", str(bench.rows)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(bench.threads)}
    log = (bench.store.parent / "http.log").open("wb")
    with log:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )


def _base_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = threading.Timer(_START_SECONDS, process.kill)
    deadline.start()
    try:
        for line in process.stdout:
            if line.startswith("ready "):
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return line.removeprefix("ready ").strip()
    finally:
        deadline.cancel()
    raise RuntimeError(f"prefixmux serve ended with exit code {process.wait()}; see its http.log")
