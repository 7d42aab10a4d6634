"""Which peers there are, by name, and how each is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

# In the table's order; the text is what the table says.
LABELS: Mapping[str, str] = {
    "peft-single": f"PEFT, one request at a time, `set_adapter` (measured on <= {SINGLE_REQUESTS})",
    "peft-batched": "PEFT, one batch, all of one task",
    "transformers": "transformers `generate`, one batch, no prefix",
    "engine": "prefixmux engine, N tasks",
    "engine-one-task": "prefixmux engine, one task",
    "http": "prefixmux over HTTP, N tasks",
    "limit": "limit of this machine (computed)",
}


class _Workshop:
    """Makes peers of one dtype; models are loaded once, when the first peer needs them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @cached_property
    def _hugging_face(self) -> HuggingFaceModel:
        return HuggingFaceModel(self._bench)

    @cached_property
    def _engine(self) -> OurEngine:
        return OurEngine(replace(self._bench, store=self._bench.store / "engine"))

    def make(self, name: str) -> Peer:
        if name == "peft-single":
            return PeftSingle(self._hugging_face)
        if name == "peft-batched":
            return PeftBatched(self._hugging_face)
        if name == "transformers":
            return Bare(self._hugging_face)
        if name in ("engine", "engine-one-task"):
            return EnginePeer(self._engine, one_task=name == "engine-one-task")
        if name == "http":
            return HttpPeer(replace(self._bench, store=self._bench.store / "http"))
        return Limit(self._bench)


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
