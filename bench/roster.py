"""Which peers there are, by name, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property

from bench.peers.base import Bench, Peer
from bench.peers.engine import EnginePeer, OurEngine
from bench.peers.http import HttpPeer
from bench.peers.hugging_face import (
    SINGLE_REQUESTS,
    Bare,
    HuggingFaceModel,
    PeftBatched,
    PeftSingle,
)
from bench.peers.limit import Limit
from bench.peers.methods import StepPeer, embedding_file, text_file
from bench.peers.streams import StreamPeer
from bench.workload import Workload

# In the table's order; the text is what the table says.
LABELS: Mapping[str, str] = {
    "peft-single": f"PEFT, one request at a time, `set_adapter` (measured on <= {SINGLE_REQUESTS})",
    "peft-batched": "PEFT, one batch, all of one task",
    "transformers": "transformers `generate`, one batch, no prefix",
    "engine": "prefixmux engine, N tasks",
    "engine-one-task": "prefixmux engine, one task",
    "http": "prefixmux over HTTP, N tasks",
    "streams": "prefixmux over HTTP, N tasks, a streaming client for each",
    "limit": "limit of this machine (computed)",
    "steps-kv": "prefixmux engine, N tasks of KV prefixes",
    "steps-embeddings": "prefixmux engine, N tasks of virtual tokens' embeddings",
    "steps-text": "prefixmux engine, N tasks of texts",
}


class _Workshop:
    """Makes peers of one dtype; models are loaded once, when the first peer needs them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._makers: Mapping[str, Callable[[], Peer]] = {
            "peft-single": lambda: PeftSingle(self._hugging_face),
            "peft-batched": lambda: PeftBatched(self._hugging_face),
            "transformers": lambda: Bare(self._hugging_face),
            "engine": lambda: EnginePeer(self._engine, self._adapters),
            "engine-one-task": lambda: EnginePeer(
                self._engine, self._adapters[:1] * len(self._adapters)
            ),
            "http": lambda: HttpPeer(replace(bench, store=bench.store / "http")),
            "streams": lambda: StreamPeer(replace(bench, store=bench.store / "streams")),
            "limit": lambda: Limit(bench),
            "steps-kv": lambda: StepPeer(self._engine, self._adapters),
            "steps-embeddings": lambda: StepPeer(self._engine, self._files(embedding_file)),
            "steps-text": lambda: StepPeer(self._engine, self._files(text_file)),
        }

    def make(self, name: str) -> Peer:
        return self._makers[name]()

    @cached_property
    def _hugging_face(self) -> HuggingFaceModel:
        return HuggingFaceModel(self._bench)

    @cached_property
    def _engine(self) -> OurEngine:
        return OurEngine(replace(self._bench, store=self._bench.store / "engine"))

    @cached_property
    def _adapters(self) -> list[str]:
        return self._engine.put_adapters(self._bench.artefacts, self._bench.largest)

    def _files(self, make: Callable[[Workload, int], bytes]) -> list[str]:
        tasks = range(self._bench.largest)
        return [self._engine.put(make(self._bench.workload, task)) for task in tasks]


@contextmanager
def peers(bench: Bench, names: Sequence[str]) -> Iterator[Mapping[str, Peer]]:
    """Ready peers by name; they are closed at the end."""
    workshop = _Workshop(bench)
    with ExitStack() as stack:
        made: dict[str, Peer] = {}
        for name in names:
            made[name] = workshop.make(name)
            stack.callback(made[name].close)
        yield made
