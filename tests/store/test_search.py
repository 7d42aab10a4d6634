"""Listings by a text in the name: what is found, in which order, page by page."""

from __future__ import annotations

import random
import string

import pytest

from prefixmux_store.store import PrefixStore
from store.makers import prefix

TENANT = "acme"
LONG = "abc" * 21 + "d"


def fill(store: PrefixStore, names: list[str], tenant: str = TENANT) -> None:
    staged = store.stage(tenant, prefix())
    for name in names:
        store.commit(tenant, name, staged)


def found(store: PrefixStore, query: str, limit: int = 500, tenant: str = TENANT) -> list[str]:
    """All pages."""
    names: list[str] = []
    cursor = None
    while True:
        page = store.list_tasks(tenant, limit, cursor, query)
        names += [task.task_id for task in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return names


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_every_text_finds_the_names_that_hold_it_in_order(store: PrefixStore, limit: int) -> None:
    draw = random.Random(3)
    names = sorted({"".join(draw.choices("ab.-", k=draw.randrange(1, 9))) for _ in range(120)})
    names = [name for name in names if name[0] in "ab"]
    fill(store, names)
    for length in range(7):
        for query in {"".join(draw.choices("ab.-", k=length)) for _ in range(12)}:
            assert found(store, query, limit) == [name for name in names if query in name]


def test_names_of_every_length_are_found(store: PrefixStore) -> None:
    names = sorted([LONG, "a", "ab", "abc", "0" * 64])
    fill(store, names)
    for name in names:
        assert name in found(store, name)
    assert found(store, "bcd") == [LONG]
    assert found(store, f"{LONG}x") == []
    assert found(store, "0" * 65) == []


@pytest.mark.parametrize(
    "query", ["%", "_", "a_c", "ABC", "a b", "'--", "\x00\x00\x00", "ünï", "*"]
)
def test_nothing_in_a_text_is_special(store: PrefixStore, query: str) -> None:
    fill(store, ["abc"])
    assert found(store, query) == []


def test_tenants_find_their_own_tasks_alone(store: PrefixStore) -> None:
    fill(store, ["summary"])
    fill(store, ["summary-of-another"], "beta")
    assert found(store, "summary") == ["summary"]
    assert found(store, "another") == []
    assert found(store, "summary", tenant="nobody") == []


def test_deleted_names_are_not_found_and_come_back(store: PrefixStore) -> None:
    fill(store, ["one-task", "two-task"])
    store.delete_task(TENANT, "one-task")
    assert found(store, "task") == ["two-task"]
    fill(store, ["one-task"])
    assert found(store, "task") == ["one-task", "two-task"]


def test_the_rarest_run_decides_and_the_whole_text_counts(store: PrefixStore) -> None:
    many = [f"task-{letter}{number}" for letter in string.ascii_lowercase for number in range(8)]
    fill(store, [*many, "task-rare-x1", "rare-task"])
    assert found(store, "task-rare") == ["task-rare-x1"]
    assert found(store, "e-x1") == ["task-rare-x1"]
    assert found(store, "task-", limit=50) == sorted([*many, "task-rare-x1"])
