"""Requests through a real engine process."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from process.conftest import Run
from process.fake_engine import BAD_DIGEST, LOAD, NEVER_LOADED
from process.talk import ENDLESS, collect, engine, first_tokens, generate, request, settings

from prefixmux_server.engine.errors import EngineUnavailable, Overloaded
from prefixmux_server.engine.front import EngineFront, EngineHealth, Generation
from prefixmux_server.engine.messages import Finished, Started, TokenDelta
from prefixmux_server.engine.pipes.client import EngineClient


def test_it_is_an_engine_front() -> None:
    front: EngineFront = EngineClient(settings())
    assert front.ready is None
    assert front.health == EngineHealth(ok=False, reason="stopped")


def test_streams_of_many_requests_keep_apart(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            lengths = [1 + index % 13 for index in range(200)]
            answers = await asyncio.gather(
                *(
                    generate(client, request(f"r{index}", token=100 * index, length=length))
                    for index, length in enumerate(lengths)
                )
            )
            for index, (length, (tokens, end)) in enumerate(zip(lengths, answers, strict=True)):
                assert tokens == list(range(100 * index, 100 * index + length))
                assert end is not None
                assert (end.id, end.reason, end.error) == (f"r{index}", "length", None)

    run(work())


def test_abort_ends_the_stream_and_frees_the_row(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            endless = client.submit(request("endless", length=ENDLESS))
            await first_tokens(endless)
            reader = asyncio.create_task(collect(endless))
            endless.abort()
            endless.abort()
            assert (await reader)[1] is None
            await generate(client, request("next"))
            assert [row.id for row in client.steps(0)[-1].rows] == ["next"]

    run(work())


def test_a_request_says_when_it_starts(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            generation = client.submit(request("a", length=2, prefixes=("sha256:a",)))
            items = [item async for item in generation]
            assert [type(item) for item in items] == [Started, TokenDelta, TokenDelta, Finished]
            assert isinstance(items[0], Started)
            assert items[0].prefixes == ("sha256:a",)

    run(work())


def test_abort_drops_what_was_not_read(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            unread = client.submit(request("unread", length=3))
            await generate(client, request("longer", length=5))
            unread.abort()
            assert await collect(unread) == ([], None)

    run(work())


def test_abort_wakes_a_waiting_reader(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            waiting = client.submit(request("waits", token=LOAD))
            reader = asyncio.create_task(collect(waiting))
            await asyncio.sleep(0)
            waiting.abort()
            assert await reader == ([], None)

    run(work())


def test_abort_after_the_end_touches_no_namesake(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            old = client.submit(request("name"))
            await collect(old)
            new = client.submit(request("name", length=20))
            old.abort()
            tokens, end = await collect(new)
            assert len(tokens) == 20
            assert end is not None

    run(work())


def test_a_load_done_in_another_thread_wakes_the_engine(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            tokens, _ = await generate(client, request("loads", token=LOAD, length=2))
            assert tokens == [LOAD, LOAD + 1]

    run(work())


def test_a_deadline_passes_though_nothing_can_run(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            stuck = request("stuck", token=NEVER_LOADED, deadline=monotonic() + 0.05)
            async with asyncio.timeout(10):  # less than it takes until the next ping
                tokens, end = await generate(client, stuck)
            assert tokens == []
            assert end is not None
            assert end.error is not None
            assert end.error.code == "deadline_exceeded"

    run(work())


def test_only_so_many_requests_are_open(run: Run) -> None:
    async def work() -> None:
        async with engine(settings(rows=2, waiting=3)) as client:
            running = [client.submit(request(f"r{n}", length=ENDLESS)) for n in range(5)]
            with pytest.raises(Overloaded):
                client.submit(request("one too many"))
            probed = await client.probe("tenant", ("sha256:good",))
            assert probed is not None
            assert probed.code == "overloaded"
            running[0].abort()
            assert (await generate(client, request("fits")))[1] is not None

    run(work())


def test_places_are_shared_among_tenants_when_all_are_taken(run: Run) -> None:
    async def work() -> None:
        async with engine(settings(rows=2, waiting=4)) as client:

            def ask(id: str, tenant: str) -> Generation:
                return client.submit(request(id, token=NEVER_LOADED, tenant=tenant))

            first = [ask(f"a{n}", "alice") for n in range(6)]
            assert not client.has_room("alice")
            assert client.has_room("bob")
            with pytest.raises(Overloaded):
                ask("a6", "alice")
            theirs = [ask(f"b{n}", "bob") for n in range(3)]
            assert not client.has_room("bob")
            with pytest.raises(Overloaded):
                ask("b3", "bob")
            ended = [(await collect(generation))[1] for generation in reversed(first[3:])]
            assert [end and end.error and end.error.code for end in ended] == ["overloaded"] * 3
            for generation in (*first[:3], *theirs):
                generation.abort()
            assert (await generate(client, request("next")))[1] is not None

    run(work())


def test_who_runs_already_keeps_the_place(run: Run) -> None:
    async def work() -> None:
        async with engine(settings(rows=2, waiting=1)) as client:
            running = [client.submit(request(f"a{n}", length=ENDLESS)) for n in range(3)]
            for generation in running:
                await first_tokens(generation)
            with pytest.raises(Overloaded):
                client.submit(request("b", tenant="bob"))

    run(work())


def test_an_id_in_use_is_refused_and_its_owner_unharmed(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            first = client.submit(request("same"))
            with pytest.raises(ValueError, match="in use"):
                client.submit(request("same"))
            assert (await collect(first))[0] == [7, 8, 9]

    run(work())


def test_a_probe_tells_what_the_engine_found(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            assert await client.probe("tenant", ("sha256:good",)) is None
            error = await client.probe("tenant", (BAD_DIGEST,))
            assert error is not None
            assert error.code == "non_finite_output"

    run(work())


def test_a_cancelled_probe_is_aborted(run: Run) -> None:
    async def work() -> None:
        async with engine(settings(rows=1, waiting=0)) as client:
            probe = asyncio.create_task(client.probe("tenant", ("sha256:good",)))
            await asyncio.sleep(0)
            probe.cancel()
            await asyncio.wait([probe])
            assert (await generate(client, request("has room")))[1] is not None

    run(work())


def test_residency_is_what_the_engine_said_last(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            assert client.residency("tenant", "sha256:a") == "disk"
            await generate(client, request("a", prefixes=("sha256:a",)))
            assert client.residency("tenant", "sha256:a") == "device"
            assert client.residency("other", "sha256:a") == "disk"

    run(work())


def test_steps_are_told_in_order(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            await generate(client, request("a", length=5))
            assert [record.step for record in client.steps(0)] == [1, 2, 3, 4, 5]
            assert [record.step for record in client.steps(3)] == [4, 5]
            assert client.steps(5) == []

    run(work())


def test_nothing_is_accepted_before_the_start_or_after_the_end(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            assert client.health == EngineHealth(ok=True, reason="ready")
        assert client.health == EngineHealth(ok=False, reason="stopped")
        assert client.ready is None
        for down in (client, EngineClient(settings())):
            with pytest.raises(EngineUnavailable):
                down.submit(request("late"))
            error = await down.probe("tenant", ("sha256:good",))
            assert error is not None
            assert error.code == "engine_unavailable"

    run(work())
