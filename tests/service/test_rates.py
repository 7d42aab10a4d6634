"""Tokens a minute: nobody uses more in any minute, and what they are told about waiting is true."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixmux_server.service.tenants.rates import UNITS, WINDOW_SECONDS, Rate, TokenRates


class Clock:
    """Of the whole process: the library looks at the wall's."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


def test_what_was_used_is_free_again_after_a_minute(clock: Clock) -> None:
    rates, rate = TokenRates(), Rate("acme", 100)
    assert (rates.left(rate), rates.idle(rate)) == (100, True)
    rates.charge(rate, 30)
    clock.now += 20
    rates.charge(rate, 70)
    assert (rates.left(rate), rates.idle(rate)) == (0, False)
    assert rates.seconds_until(rate, 1) == 40
    assert rates.seconds_until(rate, 30) == 40
    assert rates.seconds_until(rate, 31) == 60
    clock.now += 40
    assert rates.left(rate) == 30
    clock.now += 20
    assert (rates.left(rate), rates.idle(rate)) == (100, True)


def test_tenants_do_not_share_a_window(clock: Clock) -> None:
    rates = TokenRates()
    rates.charge(Rate("acme", 100), 100)
    assert rates.left(Rate("other", 100)) == 100


def test_what_is_too_much_costs_its_time(clock: Clock) -> None:
    """Two minutes and a half of the limit at once take as long to be paid."""
    rates, rate = TokenRates(), Rate("acme", 100)
    rates.charge(rate, 250)
    assert rates.seconds_until(rate, 1) == rates.seconds_until(rate, 100) == 150
    clock.now += 149
    assert (rates.left(rate), rates.idle(rate)) == (0, False)
    rates.charge(rate, 110)
    assert rates.seconds_until(rate, 1) == 66
    clock.now += 66
    assert (rates.left(rate), rates.idle(rate)) == (100, True)


def test_only_what_does_not_fit_costs_more_time(clock: Clock) -> None:
    rates, rate = TokenRates(), Rate("acme", 100)
    rates.charge(rate, 70)
    clock.now += 10
    rates.charge(rate, 60)
    assert rates.seconds_until(rate, 1) == 60 + 18
    rates.charge(rate, 10)
    assert rates.seconds_until(rate, 1) == 60 + 18 + 6
    clock.now += 83.5
    assert (rates.left(rate), rates.idle(rate), rates.seconds_until(rate, 1)) == (0, False, 1)
    clock.now += 0.5
    assert (rates.left(rate), rates.idle(rate), rates.seconds_until(rate, 100)) == (100, True, 0)


def test_what_fills_no_unit_yet_counts_too(clock: Clock) -> None:
    rates, rate = TokenRates(), Rate("acme", 10 * UNITS)
    rates.charge(rate, 10_005)
    assert rates.left(rate) == 235
    assert rates.seconds_until(rate, 235) == 0
    assert rates.seconds_until(rate, 236) == WINDOW_SECONDS


def test_a_limit_is_told_apart_finely_however_large(clock: Clock) -> None:
    rates, rate = TokenRates(), Rate("acme", 10_000_001)
    for _ in range(999):
        rates.charge(rate, 10_001)
    assert rates.left(rate) == 10_000_001 - 999 * 10_001
    clock.now += WINDOW_SECONDS
    assert abs(rates.left(rate) - rate.limit) <= 2 * rate.limit / UNITS
    assert rates.idle(rate)


def test_a_limit_may_change_while_it_counts(clock: Clock) -> None:
    rates = TokenRates()
    rates.charge(Rate("acme", 100), 60)
    assert rates.left(Rate("acme", 200)) == 140
    assert rates.left(Rate("acme", 50)) == -10
    assert rates.seconds_until(Rate("acme", 50), 1) == WINDOW_SECONDS


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(0, 25), st.integers(1, 3000)), min_size=1, max_size=60),
)
def test_no_minute_holds_more_than_the_limit(limit: int, asked: list[tuple[int, int]]) -> None:
    """Where who asks is let in only for what is left; and the wait that is told is enough."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(time, "time", clock)
        rates, rate = TokenRates(), Rate("acme", limit)
        used: list[tuple[float, int]] = []
        for seconds, tokens in asked:
            clock.now += seconds
            if tokens <= rates.left(rate):
                rates.charge(rate, tokens)
                used.append((clock.now, tokens))
            elif tokens <= rate.units * rate.unit:
                clock.now += rates.seconds_until(rate, tokens)
                # Less than a unit of what was used waits for its unit to be full.
                assert tokens <= rates.left(rate) + rate.unit or rates.idle(rate)
        for start, _ in used:
            minute = [n for at, n in used if start <= at < start + WINDOW_SECONDS]
            assert sum(minute) <= limit
