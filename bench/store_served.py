"""How much slower a server with many tasks answers, and starts, than one with few.

    python -m bench.store_served [--few 20] [--many 20000] [--repeats 200] [--folder DIR]

Two servers of a tiny model run at once, each over a store of its own. One client asks them the
same in turn, so that a slow minute of the machine hits both, and the medians are compared. What is
asked is spread over all tasks; a listing asks for as many as the small store has.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import numpy as np

from bench.callers import served
from bench.neighbours import Neighbours
from bench.pairs import Operation, table
from bench.shapes import TINY_GPT2
from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.store import PrefixStore

TENANT = "default"
STARTS = 5
_TOKENS = 10
_ASKED = {"input": [5, 6, 7], "parameters": {"max_new_tokens": 4, "ignore_eos": True}}


class Subject:
    """One server, and what it is asked for in the `at`-th turn."""

    def __init__(self, url: str, key: str, tasks: int, page: int) -> None:
        self._client = httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"})
        self._tasks = tasks
        self._page = page

    def operations(self) -> Mapping[str, Operation]:
        generate = Operation(lambda at: self._ask("POST", "/generate", json=self._request(at)))
        return {
            "list, first page": Operation(
                lambda _: self._ask("GET", "/prefixes", params={"limit": self._page})
            ),
            "get": Operation(lambda at: self._ask("GET", f"/prefixes/{self._name(at)}")),
            "upload, new version": Operation(
                lambda at: self._ask(
                    "PUT",
                    f"/prefixes/{self._name(at)}",
                    content=_file(self._tasks + at),
                    headers={"content-type": "application/octet-stream"},
                )
            ),
            # A task is new to the server once only.
            "generate, first time": replace(generate, most=self._tasks),
            "generate, again": generate,
        }

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, **about: Any) -> None:
        """Raises `httpx2.HTTPStatusError` for an error's answer."""
        self._client.request(method, path, **about).raise_for_status()

    def _request(self, at: int) -> dict[str, object]:
        return {**_ASKED, "task_id": self._name(at)}

    def _name(self, at: int) -> str:
        return _name(at * 7919 % self._tasks)


def fill(root: Path, tasks: int) -> None:
    with PrefixStore.open(root) as store:
        for number in range(tasks):
            store.commit(TENANT, _name(number), store.stage(TENANT, _file(number)))


def starts(folders: Mapping[int, Path]) -> dict[int, list[float]]:
    """Seconds until ready, by the tasks in the store."""
    times: dict[int, list[float]] = {tasks: [] for tasks in folders}
    for _ in range(STARTS):
        for tasks, folder in folders.items():
            began = time.perf_counter()
            with served(folder, (), shape=TINY_GPT2):
                times[tasks].append(time.perf_counter() - began)
    return times


def _name(number: int) -> str:
    return f"task-{number:05}"


def _file(number: int) -> bytes:
    width = TINY_GPT2.hidden // TINY_GPT2.heads
    shape = (TINY_GPT2.layers, 2, _TOKENS, TINY_GPT2.heads, width)
    values = np.random.default_rng(number).standard_normal(shape).astype("<f4")
    return encode(
        {"decoder": RawTensor("F32", values.shape, memoryview(values.tobytes()))}, PrefixMeta()
    )


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.store_served")
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="On the disk to measure; default: temporary.")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked, neighbours = _parsed(arguments), Neighbours()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=asked.folder)))
        folders = {tasks: root / str(tasks) for tasks in (0, asked.few, asked.many)}
        for tasks, folder in folders.items():
            fill(folder / "store", tasks)
        for tasks, seconds in starts(folders).items():
            print(f"start with {tasks} tasks: {median(seconds):.2f} s")
        subjects = []
        for tasks in (asked.few, asked.many):
            url, keys = stack.enter_context(served(folders[tasks], (TENANT,), shape=TINY_GPT2))
            subjects.append(Subject(url, keys[TENANT], tasks, asked.few))
            stack.callback(subjects[-1].close)
        few, many = (subject.operations() for subject in subjects)
        for line in table((asked.few, asked.many), few, many, asked.repeats):
            print(line)
    print(neighbours.words)


if __name__ == "__main__":
    main()
