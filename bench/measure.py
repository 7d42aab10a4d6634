"""Runs peers against each other: interleaved, so that a slow minute of the machine hits all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.peers.base import Peer, Sample

_WARM_UP_TOKENS = 3


@dataclass(frozen=True)
class Measurement:
    """All runs of one peer at one size. Throughput is new tokens per second; `first_use` as in
    `Sample`, `notes` are medians."""

    dtype: str
    size: int
    peer: str
    throughputs: tuple[float, ...]
    requests: int
    outputs: tuple[tuple[int, ...], ...]
    first_use: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def throughput(self) -> float:
        return median(self.throughputs)

    @property
    def spread(self) -> float:
        """Largest minus smallest, of the median."""
        return (max(self.throughputs) - min(self.throughputs)) / self.throughput


def measure(
    dtype: str, peers: Mapping[str, Peer], sizes: Sequence[int], new_tokens: int, repeats: int
) -> Iterator[Measurement]:
    """Each size on its own: a short warm-up of all peers, then `repeats` rounds of all peers.

    The order turns around every round, so that no peer always follows the same one.
    """
    for size in sizes:
        for peer in peers.values():
            peer.run(size, min(_WARM_UP_TOKENS, new_tokens))
        samples: dict[str, list[Sample]] = {name: [] for name in peers}
        for repeat in range(repeats):
            order = list(peers)[:: 1 if repeat % 2 == 0 else -1]
            for name in order:
                samples[name].append(peers[name].run(size, new_tokens))
        for name, runs in samples.items():
            throughputs = tuple(run.tokens / run.seconds for run in runs)
            last = runs[-1]
            notes = {note: median(run.notes[note] for run in runs) for note in last.notes}
            yield Measurement(
                dtype, size, name, throughputs, last.requests, last.outputs, last.first_use, notes
            )
