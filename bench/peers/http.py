"""Our server as a user runs it: a process of its own, asked over HTTP in one batch call."""

from __future__ import annotations

import time

from bench.peers.base import Bench, Sample
from bench.peers.server import ServerProcess
from bench.workload import task_id
from prefixmux import Client, GenerateRequest


class HttpPeer:
    """One client, one call with all rows."""

    def __init__(self, bench: Bench) -> None:
        self._workload = bench.workload
        self._server = ServerProcess(bench)
        self._client = Client(self._server.url)

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
        self._server.close()
