"""A real server under more than it can take: all requests are answered, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api.raw import Line, request
from api.served import Served, served, until
from prometheus_client.parser import text_string_to_metric_families
from support.models import save_tiny
from transformers import GPT2Config

ROWS, WAITING = 4, 8
LIMITS = ("--max-batch-rows", str(ROWS), "--max-waiting", str(WAITING), "--metrics-open")
# Each of a bounded number of threads keeps the files of its own connection to the catalogue.
THREADS_FILES = 30
# A second, and what a busy machine adds to it.
TOLD_SECONDS = 5.0
# Long enough that a server that holds nothing back would not be done with them in between.
LONG = {"max_new_tokens": 200, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, vocab_size=100)
    save_tiny(config, folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, tmp_path_factory.mktemp("store") / "new", *LIMITS) as running:
        yield running


def metric(server: Served, name: str, **labels: str) -> float:
    text = server.client.get("/metrics").text
    samples = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"prefixmux:{name}" and labels.items() <= sample.labels.items()
    ]
    return sum(samples)


def open_files(server: Served) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def at_rest(server: Served) -> bool:
    """Nothing runs, nothing waits, nobody is being served."""
    names = ("num_requests_running", "num_requests_waiting", "num_requests_open")
    return all(metric(server, name) == 0 for name in names)


def alone(server: Served) -> bool:
    """Whether a request has the batch to itself: whatever was there has let go of its rows."""
    answer = server.generate(input=[1], parameters={"max_new_tokens": 2, "ignore_eos": True})
    mine = [
        step["rows"]
        for step in server.steps()
        if any(row["request_id"] == answer["id"] for row in step["rows"])
    ]
    return bool(mine) and all(len(rows) == 1 for rows in mine)


def left_nothing(server: Served, files: int) -> None:
    until(lambda: at_rest(server))
    until(lambda: alone(server))
    until(lambda: open_files(server) <= files + THREADS_FILES)


async def ask_all(server: Served, bodies: list[dict[str, Any]]) -> list[httpx2.Response]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=server.client.base_url, timeout=60, limits=limits
    ) as client:
        asked = [client.post("/generate", json=body) for body in bodies]
        return await asyncio.gather(*asked)


def end_of(answer: httpx2.Response) -> str:
    """`ok`, or the code of the error; of a stream, of its one last event."""
    if "event-stream" not in answer.headers["content-type"]:
        return "ok" if answer.status_code == 200 else str(answer.json()["error"]["code"])
    ends = [
        part
        for part in answer.text.split("\n\n")
        if part.startswith(("event: done", "event: error"))
    ]
    assert len(ends) == 1
    assert answer.text.rstrip().endswith(ends[0])
    name, data = ends[0].split("\n")
    return "ok" if name == "event: done" else str(json.loads(data[6:])["error"]["code"])


def test_ten_times_too_much_is_answered_or_refused(server: Served) -> None:
    until(lambda: alone(server))
    files = open_files(server)
    many = 10 * (ROWS + WAITING)
    bodies = [{"input": [1, 2], "stream": n % 2 == 0, "parameters": LONG} for n in range(many)]
    answers = asyncio.run(ask_all(server, bodies))
    ends = Counter(map(end_of, answers))
    assert set(ends) == {"ok", "overloaded"}
    assert ends["ok"] >= ROWS + WAITING
    assert ends["overloaded"] >= many // 2
    for answer in answers:
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 120
    left_nothing(server, files)


async def ask_and_leave(address: tuple[str, int], chance: random.Random) -> None:
    body = {"input": [1, 2], "stream": chance.random() < 0.5, "parameters": LONG}
    sent = request("POST", "/generate", json.dumps(body).encode())
    line = Line(*await asyncio.open_connection(*address))
    await line.send(sent[: chance.choice([len(sent), len(sent), chance.randrange(len(sent))])])
    await asyncio.sleep(chance.uniform(0, 0.3))
    await line.close()


async def leavers(server: Served, many: int, seed: int) -> None:
    chance = random.Random(seed)
    address = str(server.client.base_url.host), int(server.client.base_url.port or 0)
    for _ in range(many // 10):
        await asyncio.gather(*(ask_and_leave(address, chance) for _ in range(10)))


def test_two_hundred_clients_that_leave_at_any_moment(server: Served) -> None:
    until(lambda: alone(server))
    files = open_files(server)
    asyncio.run(leavers(server, 200, seed=1))
    left_nothing(server, files)
    assert metric(server, "request_failures_total", code="cancelled") > 20


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.long)])
def test_engines_that_die_at_work(server: Served, kills: int) -> None:
    until(lambda: alone(server))
    files, before = open_files(server), metric(server, "engine_restarts_total")
    chance = random.Random(kills)
    for _ in range(kills):
        asyncio.run(kill_at_work(server, chance.uniform(0.02, 0.3)))
        until(lambda: server.client.get("/health/ready").status_code == 200)
        left_nothing(server, files)
    assert metric(server, "engine_restarts_total") == before + kills


@pytest.mark.long
def test_an_engine_that_stands_still(server: Served) -> None:
    """It is silent for five seconds before anyone can tell."""
    until(lambda: alone(server))
    files, before = open_files(server), metric(server, "engine_restarts_total")
    asyncio.run(kill_at_work(server, 0.1, signal.SIGSTOP, 5.0 + TOLD_SECONDS))
    until(lambda: server.client.get("/health/ready").status_code == 200)
    left_nothing(server, files)
    assert metric(server, "engine_restarts_total") == before + 1


async def kill_at_work(
    server: Served,
    after: float,
    number: signal.Signals = signal.SIGKILL,
    told_seconds: float = TOLD_SECONDS,
) -> None:
    """Those that ran or waited are told at once, and readiness tells the truth."""
    bodies = [{"input": [1], "stream": n % 2 == 0, "parameters": LONG} for n in range(8)]
    asking = asyncio.create_task(ask_all(server, bodies))
    await asyncio.sleep(after)
    os.kill(server.engine_pid(), number)
    killed = time.monotonic()
    answers = await asking
    assert set(map(end_of, answers)) <= {"ok", "engine_unavailable"}
    assert time.monotonic() - killed < told_seconds
    ready = await asyncio.to_thread(server.client.get, "/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "restarting")


@pytest.mark.parametrize("drains", [1, pytest.param(100, marks=pytest.mark.long)])
def test_drains_at_any_moment(model: Path, tmp_path: Path, drains: int) -> None:
    chance = random.Random(drains)
    for _ in range(drains):
        with served(model, tmp_path / "store", *LIMITS, "--drain-seconds", "20") as running:
            ends = asyncio.run(drained(running, chance.uniform(0.0, 0.3)))
            assert running.status() == 0
            assert set(ends) <= {"ok", "draining"}
            assert ends["ok"] + ends["draining"] == ROWS + WAITING


async def drained(server: Served, after: float) -> Counter[str]:
    count = ROWS + WAITING
    bodies = [{"input": [1], "stream": n % 2 == 0, "parameters": LONG} for n in range(count)]
    asking = asyncio.create_task(ask_all(server, bodies))
    await asyncio.sleep(after)
    server.terminate()
    return Counter(map(end_of, await asking))


def test_a_second_signal_ends_the_drain_at_once(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path / "store", *LIMITS, "--drain-seconds", "600") as running:
        asyncio.run(cut(running))
        assert running.status() == 0


async def cut(server: Served) -> None:
    body = {"input": [1], "parameters": {"max_new_tokens": 510, "ignore_eos": True}}
    asking = asyncio.create_task(ask_all(server, [body] * (ROWS + WAITING)))
    while not await asyncio.to_thread(metric, server, "num_requests_running"):
        pass
    server.terminate()
    while not await asyncio.to_thread(metric, server, "draining"):
        pass
    server.terminate()
    began = time.monotonic()
    ends = set(map(end_of, await asking))
    assert "draining" in ends
    assert ends <= {"ok", "draining"}
    assert time.monotonic() - began < TOLD_SECONDS
