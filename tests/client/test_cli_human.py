"""Numbers as people read them."""

from __future__ import annotations

import pytest

from prefixmux.cli.human import ago, seconds, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (4096, "4 KiB"),
        (1 << 20, "1 MiB"),
        (5 << 30, "5 GiB"),
        (3 << 40, "3 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (-3, "just now"),
        (4, "just now"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (7200, "2 hours ago"),
        (86_400, "1 day ago"),
        (45 * 86_400, "45 days ago"),
        (800 * 86_400, "2 years ago"),
    ],
)
def test_times_that_have_passed(passed: float, text: str) -> None:
    assert ago(1000.0, 1000.0 + passed) == text


@pytest.mark.parametrize(
    ("duration", "text"), [(None, None), (0.0123, "12.3 ms"), (0.0, "0 ms"), (2.5, "2.5 s")]
)
def test_durations(duration: float | None, text: str | None) -> None:
    assert seconds(duration) == text
