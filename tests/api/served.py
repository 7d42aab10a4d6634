"""A real `prefixmux serve` in a process of its own, with a tiny random model on loopback."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

START_SECONDS = 90
WAIT_SECONDS = 60


@dataclass(frozen=True)
class Served:
    """`ready`: the line the server printed. `client` is of its address."""

    process: subprocess.Popen[str]
    ready: str
    client: httpx2.Client

    def generate(self, **body: Any) -> dict[str, Any]:
        answer = self.client.post("/generate", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def steps(self, since: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            last = found[-1]["step"] if found else since
            page = self.client.get(f"/steps?since={last}&limit=1000").json()["items"]
            found += page
            if len(page) < 1000:
                return found

    def engine_pid(self) -> int:
        """Of the one child process."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task").glob("*/children")
        (child,) = {int(name) for path in children for name in path.read_text().split()}
        return child

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def status(self) -> int:
        return self.process.wait(WAIT_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    """Asks again and again, for a bounded time."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefixmux.cli", "serve", *arguments]


def environment() -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PREFIXMUX_")}
    return {**ours, "OMP_NUM_THREADS": "1", "PREFIXMUX_THREADS": "1"}


@contextmanager
def served(
    model: Path, store: Path, *arguments: str, log: Path = Path(os.devnull)
) -> Iterator[Served]:
    """Ready when entered; gone when left, however the test went. `log` gets what it says on
    stderr."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command(str(model), "--store", str(store), "--port", "0", *arguments),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(),
        )
    try:
        ready = _first_line(process)
        address = ready.removeprefix("ready ").strip()
        with httpx2.Client(base_url=address, timeout=60) as client:
            yield Served(process, ready, client)
    finally:
        process.kill()
        process.communicate()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    assert readable, "the server was not ready in time"
    line = process.stdout.readline()
    assert line, f"the server ended with {process.wait(WAIT_SECONDS)}"
    return line
