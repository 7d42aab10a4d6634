"""Clients that ask at moments that were fixed before, however slow the answers are.

They speak HTTP by hand, each request on a connection of its own, so that they take little of the
cores that the server needs. Owns the server under test, too: a small model, keys of tenants.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from math import ceil
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from bench import raw
from bench.models import save_model
from bench.peers.server import url_of
from bench.shapes import ModelShape
from prefixmux_store.store import PrefixStore

SHAPE = ModelShape("gpt2", layers=4, heads=8, hidden=256, vocabulary=4096, context=256)
_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """One request: a prompt of so many tokens, answered by so many, give or take `spread`."""

    prompt_tokens: int = 16
    new_tokens: int = 16
    spread: int = 0
    timeout_s: float = 20.0

    def body(self, chance: Random) -> bytes:
        ids = [chance.randrange(3, SHAPE.vocabulary) for _ in range(self.prompt_tokens)]
        parameters = {
            "max_new_tokens": self.new_tokens + chance.randint(-self.spread, self.spread),
            "ignore_eos": True,
            "timeout_s": self.timeout_s,
        }
        return json.dumps({"input": ids, "parameters": parameters}).encode()


@dataclass(frozen=True)
class Call:
    """What became of a request: `status` 0 is no answer at all. `began` is when it was to be sent,
    in seconds of the run, `seconds` how long it then took."""

    who: str
    began: float
    seconds: float
    status: int


class Callers:
    """Of one server."""

    def __init__(self, url: str, load: Load, keys: dict[str, str]) -> None:
        found = urlsplit(url)
        assert found.hostname is not None and found.port is not None
        self._address = (found.hostname, found.port)
        self._load = load
        self._keys = keys

    def capacity(self, who: str, clients: int, seconds: float) -> float:
        """Requests a second that so many clients get answered who ask again at once."""
        turns = count(1)

        async def again() -> int:
            answered = 0
            while time.perf_counter() < end:
                # Each asks for something else, as in a run.
                answered += (await self._call(who, -next(turns), 0.0)).status == 200
            return answered

        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(again() for _ in range(clients))))

        began = time.perf_counter()
        end = began + seconds
        return asyncio.run(all_of_them()) / (time.perf_counter() - began)

    def run(self, rates: dict[str, float], seconds: float, seed: int = 0) -> list[Call]:
        """Requests a second by who asks, at random moments that are the same for the same seed."""
        moments = [
            (at, who)
            for who, rate in rates.items()
            for at in _moments(f"{who} {seed}", rate, seconds)
        ]
        return asyncio.run(self._all(sorted(moments)))

    async def _all(self, moments: Sequence[tuple[float, str]]) -> list[Call]:
        began, calls = time.perf_counter(), []
        for at, who in moments:
            await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
            calls.append(asyncio.create_task(self._call(who, at, began + at)))
        return await asyncio.gather(*calls)

    async def _call(self, who: str, at: float, due: float) -> Call:
        due = due or time.perf_counter()
        status = 0
        # Beyond the request's own limit nothing is waited for: that would be a hang.
        with suppress(OSError, ValueError, IndexError, TimeoutError):
            async with asyncio.timeout(self._load.timeout_s + 10):
                status = await self._status(who, at)
        return Call(who, at, time.perf_counter() - due, status)

    async def _status(self, who: str, at: float) -> int:
        body = self._load.body(Random(f"{who} {at}"))
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(raw.generate(body, self._keys[who]))
            return int((await reader.read()).split(b" ", 2)[1])
        finally:
            writer.close()


def _moments(name: str, rate: float, seconds: float) -> Iterator[float]:
    """A Poisson process."""
    chance = Random(name)
    at = chance.expovariate(rate)
    while at < seconds:
        yield at
        at += chance.expovariate(rate)


def percentile(values: Sequence[float], share: float) -> float:
    """NaN of none."""
    found = sorted(values)
    return found[ceil(share * len(found)) - 1] if found else float("nan")


@contextmanager
def served(
    folder: Path, tenants: Sequence[str], *flags: str, shape: ModelShape = SHAPE
) -> Iterator[tuple[str, dict[str, str]]]:
    """The server's address and a key for each tenant. What is in the store of `folder` stays."""
    model, root = folder / "model", folder / "store"
    save_model(shape, model)
    with PrefixStore.open(root) as store:
        keys = {name: store.keys.create(name, ("admin",)).key for name in tenants}
    command = [sys.executable, "-m", "prefixmux.cli", "serve", str(model), "--store", str(root)]
    command += ["--port", "0", "--device", "cpu", "--metrics-open", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
    try:
        yield url_of(process), keys
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=_STOP_SECONDS)
