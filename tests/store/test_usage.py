"""Usage: sums that only grow, exact whoever adds and whatever fails."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from prefixmux_store.errors import InvalidRequest, InvalidTaskId, InvalidTenant
from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.store import PrefixStore
from prefixmux_store.usage import UsageEntry
from store.makers import prefix


def entry(tenant: str = "acme", task_id: str | None = "a", times: int = 1) -> UsageEntry:
    return UsageEntry(tenant, task_id, times, 2 * times, 3 * times, 4 * times)


def test_entries_add_up_by_tenant_and_task(store: PrefixStore, folder: Path) -> None:
    store.usage.add([entry(), entry(task_id=None), entry(times=5), entry("beta")])
    store.usage.add([entry(task_id="b"), entry(task_id=None)])
    expected = (entry(task_id=None, times=2), entry(times=6), entry(task_id="b"))
    assert store.usage.of("acme") == expected
    assert store.usage.of("beta") == (entry("beta"),)
    assert store.usage.of("nobody") == ()
    with PrefixStore.open(folder / "store") as other:
        assert other.usage.of("acme") == expected


def test_usage_outlives_its_task(store: PrefixStore) -> None:
    store.commit("acme", "a", store.stage("acme", prefix()))
    store.usage.add([entry()])
    store.delete_task("acme", "a")
    store.gc(-10)
    assert store.usage.of("acme") == (entry(),)


def test_nothing_to_add_waits_for_nobody(store: PrefixStore, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "store" / CATALOGUE_NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.usage.add([])
    assert store.usage.of("acme") == ()


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (UsageEntry("../x", "a", 1, 1, 1, 1), InvalidTenant),
        (UsageEntry("acme", "", 1, 1, 1, 1), InvalidTaskId),
        (UsageEntry("acme", "A", 1, 1, 1, 1), InvalidTaskId),
        (UsageEntry("acme", "a", -1, 1, 1, 1), InvalidRequest),
        (UsageEntry("acme", "a", 1, 1, 1, 2**53 + 1), InvalidRequest),
    ],
)
def test_a_batch_with_a_wrong_entry_counts_nothing(
    store: PrefixStore, wrong: UsageEntry, kind: Any
) -> None:
    with pytest.raises(kind):
        store.usage.add([entry(), wrong, entry()])
    assert store.usage.of("acme") == ()


def test_many_batches_stay_exact(store: PrefixStore) -> None:
    for number in range(50):
        store.usage.add([entry(task_id=f"t{number % 7}") for _ in range(20)])
    assert sum(used.requests for used in store.usage.of("acme")) == 1000
    assert sum(used.generated_tokens for used in store.usage.of("acme")) == 4000
