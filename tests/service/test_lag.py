"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

from prefixmux_server.service.telemetry.lag import LagSampler


def test_a_loop_that_is_held_up_is_late() -> None:
    heard: list[float] = []

    async def run() -> LagSampler:
        sampler = LagSampler(heard.append, period=0.001)
        assert sampler.quantile(0.99) == 0.0
        async with sampler.sampling():
            while len(heard) < 20:
                await asyncio.sleep(0.001)
            time.sleep(0.2)
            while max(heard) < 0.15:
                await asyncio.sleep(0.001)
        return sampler

    sampler = asyncio.run(run())
    assert sampler.quantile(0.5) < 0.1
    assert sampler.quantile(1.0) == max(heard)
