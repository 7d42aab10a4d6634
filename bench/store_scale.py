"""How much slower a store of many tasks is than one of few.

    python -m bench.store_scale [--few 20] [--many 20000] [--repeats 200] [--folder DIR]

Each operation is timed on both stores in turn, so that a slow minute of the machine hits both, and
the medians are compared. Listings ask for as many tasks as the small store has. Every task has a
file of its own. What an operation adds is taken away again, outside the clock.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.pairs import Operation, table
from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.keys import key_hash
from prefixmux_store.store import PrefixStore
from prefixmux_store.usage import UsageEntry

TENANT = "default"
_SLOW_REPEATS = 15
# Nothing is old enough to go: what is timed is the look at what is there.
_GRACE_SECONDS = 1e6


class Subject:
    """One store, filled, and a key in it. Uploads are encoded beforehand."""

    def __init__(self, root: Path, tasks: int, page: int, repeats: int) -> None:
        self._root = root
        self._page = page
        self._new = [_file(tasks + number) for number in range(repeats + 1)]
        self.store = PrefixStore.open(root)
        for number in range(tasks):
            self._upload(_name(number), _file(number))
        self._key = key_hash(self.store.keys.create(TENANT, ["read"]).key)
        self._some = [_name(number * 7919 % tasks) for number in range(repeats + 1)]
        after = self.store.list_tasks(TENANT, min(tasks // 2, 500))
        self._cursor = after.next_cursor

    def operations(self) -> Mapping[str, Operation]:
        store, some, new = self.store, self._some, self._new

        def listed(page: int = self._page, **about: str | None) -> Operation:
            return Operation(lambda _: store.list_tasks(TENANT, page, **about))

        return {
            "list, first page": listed(),
            "list, a later page": listed(self._page // 2, cursor=self._cursor),
            "list, query of one task": listed(query=some[0].removeprefix("task-")),
            "list, query of no task": listed(query="task-x"),
            "list, query of all": listed(query="task"),
            "get": Operation(lambda at: store.get_task(TENANT, some[at])),
            "resolve": Operation(lambda at: store.resolve(TENANT, some[at], None)),
            "read file": Operation(lambda at: store.read_file(TENANT, some[at], None)),
            "upload, new task": Operation(
                lambda at: self._upload("another", new[at]),
                lambda _: store.delete_task(TENANT, "another"),
            ),
            "upload, new version": Operation(lambda at: self._upload(some[1], new[at])),
            "upload, same content": Operation(lambda at: self._upload(some[1], new[-1])),
            "delete task": Operation(
                lambda _: store.delete_task(TENANT, some[2]),
                lambda at: self._upload(some[2], new[at]),
            ),
            "footprint": Operation(lambda _: store.footprint(TENANT)),
            "find key": Operation(lambda _: store.keys.find(self._key)),
            "limits": Operation(lambda _: store.tenants.limits(TENANT)),
            "add usage": Operation(
                lambda at: store.usage.add([UsageEntry(TENANT, some[at], 1, 9, 5, 7)])
            ),
            "open": Operation(lambda _: PrefixStore.open(self._root).close(), most=_SLOW_REPEATS),
            "gc": Operation(lambda _: store.gc(_GRACE_SECONDS), most=_SLOW_REPEATS),
        }

    def _upload(self, task_id: str, data: bytes) -> None:
        self.store.commit(TENANT, task_id, self.store.stage(TENANT, data))


def _name(number: int) -> str:
    return f"task-{number:05}"


def _file(number: int) -> bytes:
    values = np.random.default_rng(number).standard_normal((2, 2, 3, 2, 4)).astype("<f4")
    tensor = RawTensor("F32", values.shape, memoryview(values.tobytes()))
    return encode({"decoder": tensor}, PrefixMeta())


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.store_scale")
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="On the disk to measure; default: temporary.")
    return parser.parse_args()


def main() -> None:
    asked = _parsed()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=asked.folder)))
        subjects = []
        for tasks in (asked.few, asked.many):
            start = time.perf_counter()
            subjects.append(Subject(folder / str(tasks), tasks, asked.few, asked.repeats))
            stack.callback(subjects[-1].store.close)
            print(f"{tasks} tasks made in {time.perf_counter() - start:.1f} s")
        gc.disable()
        few, many = (subject.operations() for subject in subjects)
        for line in table((asked.few, asked.many), few, many, asked.repeats):
            print(line)


if __name__ == "__main__":
    main()
