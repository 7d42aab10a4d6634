"""One store, several threads, several processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from prefixmux_store.errors import TaskNotFound, VersionNotFound
from prefixmux_store.store import PrefixStore
from store.ledger import EMPTY, Op, State, expected, observed, perform
from store.makers import prefix
from store.writer import random_op

THREADS = 6
T = TypeVar("T")


def together(*work: Callable[[], T]) -> list[T]:
    """Runs each in a thread of its own; the first error wins."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(job) for job in work]]


def test_uploads_to_one_task_get_all_the_numbers(store: PrefixStore) -> None:
    def upload(thread: int) -> list[int]:
        numbers = []
        for step in range(15):
            staged = store.stage("default", prefix(100 * thread + step))
            numbers.append(store.commit("default", "task", staged)[0].version)
        assert numbers == sorted(numbers)
        return numbers

    results = together(*(partial(upload, thread) for thread in range(THREADS)))
    found = sorted(number for numbers in results for number in numbers)
    assert found == list(range(1, 15 * THREADS + 1))
    assert store.get_task("default", "task").versions == 15 * THREADS
    assert store.verify().ok


def test_one_upload_from_everywhere_is_one_version(store: PrefixStore) -> None:
    def upload() -> bool:
        return store.commit("default", "task", store.stage("default", prefix()))[1]

    created = together(*[upload] * THREADS)
    assert sum(created) == 1
    assert store.get_task("default", "task").versions == 1


def test_threads_with_tasks_of_their_own_do_not_disturb_each_other(store: PrefixStore) -> None:
    """All share the same few blobs, and each collects garbage at any time."""

    def work(thread: int) -> State:
        draw = random.Random(thread)
        state = EMPTY
        for _ in range(60):
            op = random_op(draw, [f"t{thread}-a", f"t{thread}-b"])
            state, outcome = expected(state, op)
            assert perform(store, op) == outcome
        return state

    states = together(*(partial(work, thread) for thread in range(THREADS)))
    assert observed(store) == {name: task for state in states for name, task in state.tasks.items()}
    assert store.verify().ok


def test_readers_see_whole_versions_while_they_change(store: PrefixStore) -> None:
    digests = {store.stage("default", prefix(content)).digest for content in range(4)}
    perform(store, Op("put", "task", 0))
    done = False

    def write() -> int:
        nonlocal done
        for step in range(80):
            perform(store, Op("put", "task", step % 4))
            if step % 10 == 9:
                perform(store, Op("delete_task", "task"))
                perform(store, Op("gc"))
        done = True
        return 80

    def read() -> int:
        seen = 0
        while not done:
            try:
                version = store.resolve("default", "task", None)
                task = store.get_task("default", "task")
            except (TaskNotFound, VersionNotFound):
                continue
            assert version.digests[0] in digests
            assert task.active is not None
            seen += 1
        return seen

    results = together(write, read, read)
    assert all(seen > 0 for seen in results[1:])


def test_processes_share_a_store(folder: Path) -> None:
    """Both open it at once, on nothing; each has tasks of its own, and the blobs in common."""
    root = folder / "store"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    names = [[f"p{number}-a", f"p{number}-b"] for number in range(3)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "store.writer", str(root), str(number), "80", *names[number]],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    told = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with PrefixStore.open(root) as store:
        state = observed(store)
        for mine, line in zip(names, told, strict=True):
            assert str({name: state[name].versions for name in mine if name in state}) == line
        assert store.verify().ok
