"""Our server with one streaming client for each request, all at once.

The load generator speaks HTTP by hand, so that it takes little of the cores that the server needs;
what it takes is reported.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

from bench import raw
from bench.lag import lags, quantile
from bench.peers.base import Bench, Sample
from bench.peers.server import ServerProcess
from bench.workload import task_id


class StreamPeer:
    """Every request on a connection of its own, read to its `done` event."""

    def __init__(self, bench: Bench) -> None:
        self._workload = bench.workload
        self._server = ServerProcess(bench)
        found = urlsplit(self._server.url)
        assert found.hostname is not None and found.port is not None
        self._address = (found.hostname, found.port)

    def run(self, requests: int, new_tokens: int) -> Sample:
        before = lags(self._server.url)
        started, cpu = time.perf_counter(), time.process_time()
        answers = asyncio.run(self._all(requests, new_tokens))
        seconds = time.perf_counter() - started
        cpu = time.process_time() - cpu
        rows = tuple(tuple(answer["outputs"][0]["token_ids"]) for answer in answers)
        return Sample(
            sum(map(len, rows)),
            seconds,
            requests,
            rows,
            notes={
                "load generator, share of one core": cpu / seconds,
                "event loop lag, p99 <= s": quantile(lags(self._server.url), 0.99, before),
            },
        )

    def close(self) -> None:
        self._server.close()

    async def _all(self, requests: int, new_tokens: int) -> list[dict[str, Any]]:
        return await asyncio.gather(*(self._one(i, new_tokens) for i in range(requests)))

    async def _one(self, request: int, new_tokens: int) -> dict[str, Any]:
        body = {
            "task_id": task_id(request),
            "input": self._workload.prompt(request),
            "parameters": {"max_new_tokens": new_tokens, "ignore_eos": True},
            "stream": True,
        }
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(raw.generate(json.dumps(body).encode()))
            return _done(await reader.read())
        finally:
            writer.close()


def _done(answer: bytes) -> dict[str, Any]:
    """What its last event says. Raises RuntimeError if that is not `done`."""
    _, found, rest = answer.rpartition(b"event: done\ndata: ")
    if not found:
        raise RuntimeError(f"a stream did not end well: {answer[-500:]!r}")
    done: dict[str, Any] = json.loads(rest.partition(b"\n")[0])
    return done
