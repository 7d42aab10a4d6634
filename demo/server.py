"""Starts `prefixmux serve` as a process of its own and stops it again.

Knows the command line's contract only: the line `ready http://host:port` on stdout, SIGTERM to
drain, exit code 0 afterwards.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOG_LINES = 15


class DemoError(Exception):
    """The demo cannot go on; the message is for the person who started it."""


@contextmanager
def serving(model: Path, folder: Path, port: int) -> Iterator[str]:
    """Serves `model` with a store and a log under `folder`; gives the base URL.

    Raises DemoError where the server does not start, dies, or does not end with code 0.
    """
    log = folder / "server.log"
    command = [sys.executable, "-m", "prefixmux.cli", "serve", str(model)]
    command += ["--store", str(folder / "store"), "--port", str(port)]
    # A session of its own: Ctrl-C reaches this process only, which then drains the server.
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process,
    ):
        try:
            yield _base_url(process, log)
        except BaseException:
            _kill(process)
            raise
        _stop(process, log)


def _base_url(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    deadline = threading.Timer(START_SECONDS, process.kill)
    deadline.start()
    try:
        for line in process.stdout:
            if line.startswith("ready "):
                return line.removeprefix("ready ").strip()
    finally:
        deadline.cancel()
    raise DemoError(f"the server did not start (exit code {process.wait()})\n{_tail(log)}")


def _stop(process: subprocess.Popen[str], log: Path) -> None:
    died = process.poll() is not None
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise DemoError(f"the server did not stop in {STOP_SECONDS:.0f} s\n{_tail(log)}") from None
    if died or code != 0:
        raise DemoError(f"the server ended with exit code {code}\n{_tail(log)}")


def _kill(process: subprocess.Popen[str]) -> None:
    """Asks first, so that the server can end its engine process."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES:])
