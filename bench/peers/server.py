"""`prefixmux serve` in a process of its own, with a workload's tasks uploaded through its API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from bench.peers.base import Bench
from bench.workload import task_id
from prefixmux import Client

_START_SECONDS = 180.0
_STOP_SECONDS = 60.0


class ServerProcess:
    """On a free port of loopback; ready when made."""

    def __init__(self, bench: Bench, *flags: str) -> None:
        self._process = _start(bench, flags)
        try:
            self.url = url_of(self._process)
            with Client(self.url) as client:
                for task in range(bench.largest):
                    client.prefixes.upload(task_id(task), bench.artefacts.adapter(task))
        except BaseException:
            self._process.kill()
            raise

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=_STOP_SECONDS)


def _start(bench: Bench, flags: tuple[str, ...]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "prefixmux.cli", "serve", str(bench.artefacts.model)]
    command += ["--store", str(bench.store), "--port", "0", "--device", "cpu"]
    command += ["--dtype", bench.dtype, "--max-batch-rows", str(bench.rows), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": str(bench.threads)}
    bench.store.mkdir(parents=True, exist_ok=True)
    log = bench.store.with_suffix(".log").open("wb")
    with log:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )


def url_of(process: subprocess.Popen[str]) -> str:
    """Once it is ready. Raises RuntimeError if it ends before that."""
    assert process.stdout is not None
    deadline = threading.Timer(_START_SECONDS, process.kill)
    deadline.start()
    try:
        line = process.stdout.readline()
        if line.startswith("ready "):
            return line.removeprefix("ready ").strip()
    finally:
        deadline.cancel()
    raise RuntimeError(f"prefixmux serve ended with exit code {process.wait()}; see its log")
