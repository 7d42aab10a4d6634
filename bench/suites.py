"""What can be measured: workloads, the peers that do them, and what is expected of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.shapes import BART_BASE, GPT2_SMALL, TINY_BART, TINY_GPT2
from bench.workload import Workload

_ALL = ("peft-single", "peft-batched", "transformers", "engine", "engine-one-task", "http", "limit")
_EQUAL = (("engine", "peft-single"), ("engine-one-task", "peft-batched"), ("http", "engine"))


@dataclass(frozen=True)
class Target:
    """`numerator` has to reach `at_least` times the throughput of `denominator`.

    `dtype` and `size` None: wherever both were measured.
    """

    numerator: str
    denominator: str
    at_least: float
    dtype: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Suite:
    """One table. `unit` is what its numbers are, `sizes` are requests in flight.

    `subjects` are the peers that `references` are held against; `equal` are pairs whose tokens
    have to agree in float32. `quick` is the same on a tiny model, to see that it runs.
    """

    workload: Workload
    quick: Workload
    sizes: tuple[int, ...]
    targets: tuple[Target, ...]
    unit: str = "new tokens per second, prefill included"
    peers: tuple[str, ...] = _ALL
    subjects: tuple[str, ...] = ("engine",)
    references: tuple[str, ...] = tuple(peer for peer in _ALL if peer not in ("engine", "http"))
    equal: tuple[tuple[str, str], ...] = _EQUAL


_QUICK_GPT2 = Workload(TINY_GPT2, prompt_tokens=5, new_tokens=6)
_QUICK_BART = Workload(TINY_BART, prompt_tokens=5, new_tokens=6)
_BART = Workload(BART_BASE, prompt_tokens=128)

_GPT2_SUITE = Suite(
    Workload(GPT2_SMALL),
    _QUICK_GPT2,
    (1, 8, 32, 64),
    (
        Target("engine", "peft-single", 10, "bfloat16", 32),
        Target("engine", "peft-batched", 1.5, "bfloat16", 32),
        Target("engine", "peft-single", 6, "float32", 32),
        Target("engine", "peft-batched", 1.2, "float32", 32),
        Target("engine", "engine-one-task", 0.95),
        Target("http", "engine", 0.9),
        Target("engine", "transformers", 0.9, size=1),
    ),
)
_BART_SUITE = Suite(
    _BART,
    _QUICK_BART,
    (1, 8, 32),
    (
        Target("engine", "peft-single", 8, size=32),
        Target("engine", "peft-batched", 1.5, size=32),
        Target("engine", "engine-one-task", 0.95),
        Target("http", "engine", 0.9),
    ),
)
_BEAMS_SUITE = Suite(
    replace(_BART, beams=5),
    replace(_QUICK_BART, beams=5),
    (1, 8),
    (Target("engine", "peft-single", 3, size=8), Target("http", "engine", 0.9)),
)
_METHODS_SUITE = Suite(
    Workload(GPT2_SMALL),
    _QUICK_GPT2,
    (1, 8, 32),
    (Target("steps-embeddings", "steps-kv", 0.95), Target("steps-text", "steps-kv", 0.95)),
    unit="new tokens per second, in decode steps alone",
    peers=("steps-kv", "steps-embeddings", "steps-text"),
    subjects=("steps-embeddings", "steps-text"),
    references=("steps-kv",),
    equal=(),
)

_STREAMS_SUITE = Suite(
    Workload(GPT2_SMALL),
    _QUICK_GPT2,
    (16, 64),
    (Target("streams", "engine", 0.9, size=64),),
    peers=("engine", "streams"),
    subjects=("streams",),
    references=("engine",),
    equal=(("streams", "engine"),),
)

SUITES: Mapping[str, Suite] = {
    "gpt2": _GPT2_SUITE,
    "bart": _BART_SUITE,
    "beams": _BEAMS_SUITE,
    "methods": _METHODS_SUITE,
    "streams": _STREAMS_SUITE,
}
