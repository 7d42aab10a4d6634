"""What a tenant may have under way: counts come back to zero, and waits are honest."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from prefixmux_server.engine.messages import Share
from prefixmux_server.errors import QuotaExceeded
from prefixmux_server.service.generation.answer import AnswerTiming
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.tenants.accounts import BELIEVED_SECONDS, LONGEST_WAIT, Accounts
from prefixmux_store.tenants import TenantLimits

TIMING = AnswerTiming(0.0, 0.0, 0.1, 0.2)
ENDED = Outcome("id", "r", "acme", None, "e2e", 1, ("d",), 5, 3, 2, "ok", 0.0, 2.0, TIMING)
ROWS = 4


class Kept:
    """Limits that an operator changes, and a clock."""

    def __init__(self, **limits: int | float) -> None:
        self.limits = TenantLimits(**limits)  # type: ignore[arg-type]
        self.read = 0
        self.now = 0.0
        self.accounts = Accounts(self.of, ROWS, clock=lambda: self.now)

    def of(self, tenant: str) -> TenantLimits:
        self.read += 1
        return self.limits if tenant == "acme" else TenantLimits()


def refused(accounts: Accounts, tenant: str = "acme") -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught, accounts.enter(tenant):
        pass
    return caught.value


def test_without_limits_nobody_waits() -> None:
    accounts = Kept().accounts
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(accounts.enter("acme")).reserve(10**9)
        assert accounts.under_way("acme") == 1000
    assert (accounts.under_way("acme"), accounts.reserved("acme")) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({"max_running": 2, "max_waiting": 3}, 5),
        ({"max_running": 1, "max_waiting": 1}, 2),
        # The batch has no more rows than that, whatever a tenant may have.
        ({"max_running": 100, "max_waiting": 3}, ROWS + 3),
        ({"max_waiting": 3}, ROWS + 3),
    ],
)
def test_what_runs_and_waits_is_counted(limits: dict[str, int], room: int) -> None:
    accounts = Kept(**limits).accounts
    with ExitStack() as stack:
        for _ in range(room):
            stack.enter_context(accounts.enter("acme"))
        error = refused(accounts)
        assert (error.code, error.http_status, error.reason) == (
            "quota_exceeded",
            429,
            "max_waiting",
        )
        assert error.headers == {"retry-after": "1"}
        with accounts.enter("other"):
            pass
    with accounts.enter("acme"):
        assert accounts.under_way("acme") == 1


def test_the_wait_is_that_for_the_next_end() -> None:
    accounts = Kept(max_running=1, max_waiting=3).accounts
    accounts.finished(replace(ENDED, seconds=20.0))
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(accounts.enter("acme"))
        assert refused(accounts).retry_after == 5
        # A fifth of the average is the newest: 16 seconds now.
        accounts.finished(replace(ENDED, seconds=0.0))
        assert refused(accounts).retry_after == 4
        accounts.finished(replace(ENDED, seconds=1e6))
        assert refused(accounts).retry_after == LONGEST_WAIT
        for _ in range(100):
            accounts.finished(replace(ENDED, seconds=0.01))
        assert refused(accounts).retry_after == 1


def test_limits_are_read_again_within_a_second() -> None:
    kept = Kept()
    accounts = kept.accounts
    assert accounts.share("acme") == Share(1.0, None)
    kept.limits = TenantLimits(max_running=3, weight=2.5)
    kept.now += BELIEVED_SECONDS
    assert BELIEVED_SECONDS < 1
    assert accounts.share("acme") == Share(2.5, 3)
    reads = kept.read
    for _ in range(100):
        accounts.share("acme")
    assert kept.read == reads


def test_tokens_are_reserved_at_the_most_and_charged_as_used() -> None:
    accounts = Kept(tokens_per_minute=100).accounts
    with accounts.enter("acme") as first:
        first.reserve(90)
        with accounts.enter("acme") as second, pytest.raises(QuotaExceeded) as caught:
            second.reserve(11)
        assert caught.value.reason == "tokens_per_minute"
        with accounts.enter("acme") as third:
            third.reserve(10)
        assert accounts.reserved("acme") == 90
    accounts.finished(ENDED)
    assert (accounts.under_way("acme"), accounts.reserved("acme")) == (0, 0)
    with accounts.enter("acme") as entry:
        with pytest.raises(QuotaExceeded) as caught:
            entry.reserve(91)
        assert 58 <= caught.value.retry_after <= 60
        entry.reserve(90)


def test_what_waits_only_for_others_of_its_tenant_is_told_so() -> None:
    accounts = Kept(tokens_per_minute=100).accounts
    with accounts.enter("acme"):
        pass
    accounts.finished(replace(ENDED, seconds=6.0, prompt_tokens=0))
    with accounts.enter("acme") as first, accounts.enter("acme") as second:
        first.reserve(60)
        for tokens in (60, 95):
            with pytest.raises(QuotaExceeded) as caught:
                second.reserve(tokens)
            assert caught.value.retry_after == 3


def test_the_last_token_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    accounts = Kept(tokens_per_minute=11).accounts
    with accounts.enter("acme") as entry:
        entry.reserve(ENDED.tokens)
    accounts.finished(ENDED)
    with accounts.enter("acme") as entry:
        entry.reserve(1)
    accounts.finished(replace(ENDED, prompt_tokens=1, prefix_tokens=0, generated_tokens=0))
    assert refused(accounts).retry_after == 60
    now += 59.5
    assert refused(accounts).retry_after == 1


def test_a_request_beyond_the_limit_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    accounts = Kept(tokens_per_minute=100).accounts
    with accounts.enter("acme") as large:
        large.reserve(250)
        assert refused(accounts).reason == "tokens_per_minute"
    accounts.finished(replace(ENDED, prompt_tokens=250, prefix_tokens=0, generated_tokens=0))
    assert refused(accounts).retry_after == 150
    now += 150
    with accounts.enter("acme") as small:
        small.reserve(50)


def test_a_request_that_never_had_a_row_costs_nothing() -> None:
    accounts = Kept(tokens_per_minute=10).accounts
    for _ in range(5):
        with accounts.enter("acme") as entry:
            entry.reserve(10)
        accounts.finished(replace(ENDED, timing=None, code="cancelled"))
    with accounts.enter("acme") as entry:
        entry.reserve(10)


def test_counters_return_to_zero_however_requests_end() -> None:
    drawn = random.Random(5)
    accounts = Kept(max_running=2, max_waiting=6, tokens_per_minute=10_000).accounts
    for _ in range(500):
        with ExitStack() as stack, suppress(QuotaExceeded, RuntimeError, KeyboardInterrupt):
            for _ in range(drawn.randrange(12)):
                stack.enter_context(accounts.enter("acme")).reserve(drawn.randrange(4000))
            raise drawn.choice([RuntimeError, KeyboardInterrupt])
        assert (accounts.under_way("acme"), accounts.reserved("acme")) == (0, 0)
