"""Engines that die, hang or fail while they serve."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from time import monotonic

import pytest
from process.conftest import Run
from process.fake_engine import DIE, HANG, RAISE, SLOW, SLOW_SECONDS, STOP
from process.talk import ENDLESS, collect, engine, first_tokens, generate, pid, request, settings

from prefixmux_server.engine.errors import EngineUnavailable
from prefixmux_server.engine.pipes.client import DOWN, EngineClient
from prefixmux_server.engine.pipes.watch import SILENT_SECONDS


async def until_ready(client: EngineClient) -> None:
    while not client.health.ok:
        await asyncio.sleep(0.01)


def test_every_waiter_of_a_killed_engine_is_told_at_once(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            first = pid(client)
            running = [
                client.submit(request(f"r{n}", length=ENDLESS, prefixes=("sha256:a",)))
                for n in range(50)
            ]
            for generation in running:
                await first_tokens(generation)
            os.kill(first, signal.SIGKILL)
            killed = monotonic()
            ends = [end for _, end in await asyncio.gather(*map(collect, running))]
            assert monotonic() - killed < 1.0
            assert {end.error.code for end in ends if end and end.error} == {"engine_unavailable"}
            assert all(end is not None and end.reason is None for end in ends)
            assert client.health.reason == "restarting"
            assert client.ready is None
            assert client.residency("tenant", "sha256:a") == "disk"
            with pytest.raises(EngineUnavailable):
                client.submit(request("too early"))
            await until_ready(client)
            assert pid(client) != first
            assert (await generate(client, request("after")))[0] == [7, 8, 9]
            numbers = [record.step for record in client.steps(0)]
            assert numbers == sorted(set(numbers))

    run(work())


@pytest.mark.parametrize("token", [DIE, RAISE])
def test_a_request_that_kills_the_engine_ends_itself_and_no_later_one(
    run: Run, token: int, capfd: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with engine() as client:
            _, end = await generate(client, request("deadly", token=token))
            assert end is not None
            assert end.error is not None
            assert end.error.code == "engine_unavailable"
            await until_ready(client)
            assert (await generate(client, request("after")))[0] == [7, 8, 9]

    run(work())
    logged = capfd.readouterr().err
    assert ("RuntimeError" in logged) == (token == RAISE)
    assert str(token) not in logged


@pytest.mark.parametrize("token", [HANG, STOP])
def test_a_hung_engine_is_found_and_replaced(run: Run, token: int) -> None:
    async def work() -> None:
        async with engine(hang_seconds=1.0) as client:
            hung = client.submit(request("hangs", token=token))
            neighbour = client.submit(request("neighbour", length=ENDLESS))
            reasons = set()
            reader = asyncio.gather(collect(hung), collect(neighbour))
            while not reader.done():
                reasons.add(client.health.reason)
                await asyncio.sleep(0.01)
            ends = [end for _, end in await reader]
            assert [end.error.code for end in ends if end and end.error] == [
                "engine_unavailable",
                "engine_unavailable",
            ]
            assert "unresponsive" in reasons
            await until_ready(client)
            assert (await generate(client, request("after")))[0] == [7, 8, 9]

    run(work())


@pytest.mark.parametrize("run", ["uvloop"], indirect=True)
def test_a_stopped_process_is_told_from_a_long_step(run: Run) -> None:
    async def stopped() -> None:
        async with engine(hang_seconds=3600.0) as client:
            async with asyncio.timeout(SLOW_SECONDS):
                _, end = await generate(client, request("stops", token=STOP))
            assert end is not None
            assert end.error == DOWN

    async def slow() -> None:
        async with engine(hang_seconds=3600.0) as client:
            first = pid(client)
            step = asyncio.create_task(generate(client, request("slow", token=SLOW, length=1)))
            _, unfinished = await asyncio.wait([step], timeout=1.2 * SILENT_SECONDS)
            assert unfinished, "the step was not long"
            assert client.health.ok
            assert (await step)[0] == [SLOW]
            assert pid(client) == first

    async def both() -> None:
        await asyncio.gather(stopped(), slow())

    run(both())


@pytest.mark.parametrize("run", ["uvloop"], indirect=True)
def test_an_idle_engine_is_not_taken_for_a_hung_one(run: Run) -> None:
    async def work() -> None:
        async with engine(hang_seconds=1.0) as client:
            first = pid(client)
            await asyncio.sleep(1.8)
            assert client.health.ok
            assert pid(client) == first

    run(work())


@pytest.mark.parametrize("run", ["uvloop"], indirect=True)
def test_waiters_need_not_wait_for_a_killed_process_to_be_gone(run: Run) -> None:
    """A process that the kernel cannot end yet keeps its pipes: here its kill does nothing."""

    async def work() -> None:
        async with engine(hang_seconds=0.5, restart=False) as client:
            link = client._link
            assert link is not None
            kill, link.kill = link.kill, lambda: None  # type: ignore[method-assign]
            try:
                _, end = await generate(client, request("stops", token=STOP))
                assert end is not None
                assert client.health.reason == "stopped"
            finally:
                link.kill = kill  # type: ignore[method-assign]

    run(work())


def test_every_kill_of_many_is_told_and_repaired(run: Run) -> None:
    run(kill_often(24))


@pytest.mark.long
@pytest.mark.parametrize("run", ["uvloop"], indirect=True)
def test_every_kill_of_very_many_is_told_and_repaired(run: Run) -> None:
    run(kill_often(100))


async def kill_often(times: int) -> None:
    """Everyone who waited hears of it within a second, and health never says that all is well
    while nobody serves."""
    async with engine() as client:
        before = None
        for number in range(times):
            assert pid(client) != before
            before = pid(client)
            running = [client.submit(request(f"{number}-{n}", length=ENDLESS)) for n in range(8)]
            await first_tokens(running[number % 8])
            readers = asyncio.gather(*map(collect, running))
            os.kill(before, signal.SIGSTOP if number % 4 == 3 else signal.SIGKILL)
            killed = monotonic()
            if number % 4 == 3:
                os.kill(before, signal.SIGKILL)
            ends = [end for _, end in await readers]
            assert monotonic() - killed < 1.0
            assert all(end and end.error == DOWN for end in ends)
            assert not client.health.ok
            await until_ready(client)
        assert (await generate(client, request("after")))[0] == [7, 8, 9]


def test_kills_under_a_storm_of_requests_lose_none(run: Run) -> None:
    async def storm(client: EngineClient, name: str) -> int:
        served = 0
        for n in range(1000):
            if client.ready is None:
                await until_ready(client)
            generation = client.submit(request(f"{name}-{n}", length=2))
            if n % 7 == 0:
                await asyncio.sleep(0)
                generation.abort()
            tokens, end = await collect(generation)
            assert (end is None) == (n % 7 == 0)
            served += tokens == [7, 8]
            if served == 20:
                break
        return served

    async def work() -> None:
        async with engine() as client:
            storms = asyncio.gather(*(storm(client, f"s{n}") for n in range(20)))
            for _ in range(3):
                os.kill(pid(client), signal.SIGKILL)
                while client.health.ok:
                    await asyncio.sleep(0)
                await until_ready(client)
            assert await storms == [20] * 20

    run(work())


def test_a_restart_that_fails_is_tried_again(run: Run, tmp_path: Path) -> None:
    async def work() -> None:
        async with engine(settings("fails-second", store=str(tmp_path))) as client:
            await generate(client, request("deadly", token=DIE))
            await until_ready(client)
            assert (tmp_path / "starts").read_bytes() == b"..."

    run(work())


def test_without_restart_a_death_is_final(run: Run) -> None:
    async def work() -> None:
        async with engine(restart=False) as client:
            await generate(client, request("deadly", token=DIE))
            assert client.health.reason == "stopped"
            with pytest.raises(EngineUnavailable):
                client.submit(request("late"))

    run(work())
