"""Loads that do not wait for answers: their arithmetic, and one small run of each."""

from __future__ import annotations

import pytest
from bench import fairness, overload, store_served
from bench.callers import Call, percentile


def calls(who: str, *seconds: float, status: int = 200) -> list[Call]:
    return [Call(who, 5.0, duration, status) for duration in seconds]


def test_percentiles_are_values_that_were_seen() -> None:
    hundred = [float(n) for n in range(1, 101)]
    assert (percentile(hundred, 0.5), percentile(hundred, 0.99)) == (50, 99)
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3
    assert percentile([], 0.5) != percentile([], 0.5)


def test_a_table_compares_each_tenant_with_itself() -> None:
    alone = [*calls("a", 0.1, 0.2), *calls("b", 0.1), *calls("b", 9.0, status=429)]
    beside = [*calls("a", 0.1, 0.3), *calls("b", 0.4), *calls("flooder", 9.0)]
    _, first, second, every = fairness.table(alone, beside, ["a", "b"])
    assert first.split() == ["a", "2", "100.0", "100.0", "200.0", "300.0", "1.50"]
    assert second.split()[-1] == "4.00"
    assert every.endswith("p99 ratio 2.00")


def test_what_got_no_answer_is_not_settled() -> None:
    usual = overload.Outcome(1, calls("a", *[0.1] * 10), 2.0)
    told = [*calls("a", *[0.2] * 8), *calls("a", 0.01, status=429), *calls("a", 30, status=0)]
    heavy = overload.Outcome(10, told, 2.0)
    assert (usual.settled, heavy.settled, usual.goodput, heavy.goodput) == (1, 0.9, 5, 4)
    *_, last = overload.table([usual, heavy])
    assert last.split()[:6] == ["10x", "10", "8", "1", "0", "1"]
    assert last.split()[-1] == "0.80"


SMALL = ["--seconds", "1", "--rows", "4"]


@pytest.mark.long
def test_fairness_runs(capsys: pytest.CaptureFixture[str]) -> None:
    fairness.main([*SMALL, "--tenants", "2", "--rounds", "1"])
    told = capsys.readouterr().out
    assert "normal-01" in told
    assert "others not answered: 0 of" in told


@pytest.mark.long
def test_overload_runs(capsys: pytest.CaptureFixture[str]) -> None:
    overload.main([*SMALL, "--factors", "1,4", "--waiting", "4"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "x " in line]
    settled = [row for row in rows if "100.00%" in row]
    assert [row[0] for row in settled] == ["1x", "4x"]


@pytest.mark.long
def test_store_served_runs(capsys: pytest.CaptureFixture[str]) -> None:
    store_served.main(["--few", "2", "--many", "9", "--repeats", "3"])
    told = capsys.readouterr().out
    assert "start with 9 tasks" in told
    rows = [line.split() for line in told.splitlines() if line.startswith(("get ", "generate,"))]
    assert len(rows) == 3 and all(float(row[-1]) > 0 for row in rows)
