"""Loads prefixes in threads. Makes validated host tensors and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import torch

from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.source import PrefixLoadError, PrefixSource


@dataclass(frozen=True)
class Loaded:
    """A load's end: the prefix, or why there is none."""

    key: PrefixKey
    result: PrefixKV | PrefixLoadError


def loader_threads(count: int) -> Executor:
    """Threads for loading. Each computes alone: one that ever ran a parallel region would keep a
    team of its own for good, and those teams slow down every later step of the main thread."""
    return ThreadPoolExecutor(
        count,
        thread_name_prefix="prefix-loader",
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


class PrefixLoader:
    """`wake` is called from the loader's thread when a load has ended."""

    def __init__(self, source: PrefixSource, executor: Executor, wake: Callable[[], None]) -> None:
        self._source = source
        self._executor = executor
        self._wake = wake
        self._done: SimpleQueue[Loaded] = SimpleQueue()

    def size(self, key: PrefixKey) -> int:
        return self._source.size(key)

    def start(self, key: PrefixKey) -> None:
        self._executor.submit(self._load, key)

    def finished(self) -> Iterator[Loaded]:
        """All loads that have ended since the last call."""
        while True:
            try:
                yield self._done.get_nowait()
            except Empty:
                return

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _load(self, key: PrefixKey) -> None:
        self._done.put(Loaded(key, self._attempt(key)))
        self._wake()

    def _attempt(self, key: PrefixKey) -> PrefixKV | PrefixLoadError:
        try:
            kv = self._source.load(key)
        except PrefixLoadError as error:
            return error
        except Exception:  # noqa: BLE001 - whatever a load dies of, its waiters must hear of it
            return PrefixLoadError("prefix_unavailable", "this task's prefix could not be loaded")
        if kv.key != key:
            return PrefixLoadError("prefix_unavailable", "the loaded prefix is another one")
        return kv
