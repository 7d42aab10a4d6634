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

import httpx2

from bench.peers.base import Bench, Sample
from bench.peers.server import ServerProcess
from bench.workload import task_id

_LAG = "prefixmux:event_loop_lag_seconds"


class StreamPeer:
    """Every request on a connection of its own, read to its `done` event."""

    def __init__(self, bench: Bench) -> None:
        self._workload = bench.workload
        self._server = ServerProcess(bench)
        found = urlsplit(self._server.url)
        assert found.hostname is not None and found.port is not None
        self._address = (found.hostname, found.port)

    def run(self, requests: int, new_tokens: int) -> Sample:
        before = self._lags()
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
                "event loop lag, p99 <= s": _quantile(before, self._lags(), 0.99),
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
            writer.write(_request(json.dumps(body).encode()))
            return _done(await reader.read())
        finally:
            writer.close()

    def _lags(self) -> dict[float, float]:
        """How often the event loop lagged by at most so many seconds, by the server's account."""
        lines = httpx2.get(f"{self._server.url}/metrics").text.splitlines()
        buckets = [line for line in lines if line.startswith(f"{_LAG}_bucket")]
        return {
            float(line.partition('le="')[2].partition('"')[0]): float(line.rpartition(" ")[2])
            for line in buckets
        }


def _request(body: bytes) -> bytes:
    head = (
        "POST /generate HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _done(answer: bytes) -> dict[str, Any]:
    """What its last event says. Raises RuntimeError if that is not `done`."""
    _, found, rest = answer.rpartition(b"event: done\ndata: ")
    if not found:
        raise RuntimeError(f"a stream did not end well: {answer[-500:]!r}")
    done: dict[str, Any] = json.loads(rest.partition(b"\n")[0])
    return done


def _quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The upper end of the histogram's bucket that holds it."""
    counts = {edge: count - before.get(edge, 0) for edge, count in after.items()}
    total = max(counts.values(), default=0.0)
    return min((edge for edge, count in counts.items() if count >= share * total), default=0.0)
