"""How an engine process begins and ends, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process.conftest import Run
from process.talk import (
    ENDLESS,
    FACTORY,
    collect,
    engine,
    first_tokens,
    generate,
    pid,
    request,
    settings,
)

from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.pipes.client import EngineClient
from prefixmux_server.engine.pipes.link import REAP_SECONDS

TESTS = Path(__file__).parent.parent

PARENT = f"""
import asyncio, sys
sys.path.insert(0, {str(TESTS)!r})
from process.talk import HANG_REQUEST, engine, pid

async def main():
    async with engine() as client:
        print(pid(client), flush=True)
        async for item in client.submit(HANG_REQUEST):
            pass

asyncio.run(main())
"""


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[int]:
    """Engines; a server that other tests share may be a child, too."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        found.update(map(int, (thread / "children").read_text().split()))
    return {pid for pid in found if not _serves(pid)}


def _serves(pid: int) -> bool:
    try:
        return b"prefixmux.cli" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("model", "code"), [("refused", "unsupported_model"), ("dies", "internal_error")]
)
def test_a_failed_start_has_a_code(run: Run, model: str, code: str) -> None:
    async def work() -> None:
        client = EngineClient(settings(model), factory=FACTORY)
        with pytest.raises(EngineStartError) as caught:
            await client.start()
        assert caught.value.code == code
        assert client.health.reason == "stopped"
        await client.close()
        assert not children()

    run(work())


def test_a_cancelled_start_leaves_no_process(run: Run) -> None:
    async def work() -> None:
        client = EngineClient(settings(), factory=FACTORY)
        start = asyncio.create_task(client.start())
        while not children():
            await asyncio.sleep(0)
        start.cancel()
        _, unfinished = await asyncio.wait([start], timeout=REAP_SECONDS - 1)
        assert not unfinished
        assert not children()

    run(work())


def test_what_the_model_prints_disturbs_nothing(run: Run) -> None:
    async def work() -> None:
        async with engine(settings("talkative")) as client:
            assert (await generate(client, request("a")))[0] == [7, 8, 9]

    run(work())


def test_close_leaves_nothing(run: Run) -> None:
    async def live() -> None:
        async with engine() as client:
            generation = client.submit(request("open", length=ENDLESS))
            await first_tokens(generation)
            await client.close()
            _, end = await collect(generation)
            assert end is not None
            assert end.error is not None
            assert end.error.code == "engine_unavailable"

    async def work() -> None:
        await live()  # what a loop opens for its first child, it keeps
        before = open_files()
        for _ in range(3):
            await live()
        assert open_files() == before
        assert not children()

    run(work())


def test_deaths_leak_no_files(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            before = open_files()
            for _ in range(3):
                os.kill(pid(client), signal.SIGKILL)
                await collect(client.submit(request("open", length=ENDLESS)))
                while not client.health.ok:
                    await asyncio.sleep(0.01)
            assert open_files() == before
            assert children() == {pid(client)}

    run(work())


def test_signals_to_the_group_are_the_parents_to_answer(run: Run) -> None:
    async def work() -> None:
        async with engine() as client:
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(pid(client), number)
            assert (await generate(client, request("a")))[0] == [7, 8, 9]

    run(work())


def test_the_engine_goes_when_its_parent_is_killed() -> None:
    """Even in the middle of a step that never ends."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 5.0)
    os.close(child)
    assert ended
