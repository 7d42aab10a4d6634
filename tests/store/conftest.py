"""Stores to try things on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefixmux_store.store import PrefixStore
from store.makers import fast_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for stores, in memory where that exists."""
    with fast_folder() as place:
        yield place


@pytest.fixture
def store(folder: Path) -> Iterator[PrefixStore]:
    with PrefixStore.open(folder / "store") as opened:
        yield opened
