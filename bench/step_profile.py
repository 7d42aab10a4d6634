"""Where a decode step of our engine spends its time.

    python -m bench.step_profile [--workload gpt2|bart|beams] [--sizes 1,8,32,64]
                                 [--dtypes float32,bfloat16] [--threads 2]

The step's length is taken by the clock, without a profiler; the pieces are the profiler's own time
per operator over other steps of the same run. "Python and the rest" is what is left: Python, the
operators' overhead, and whatever no piece is named for. "Until all decode" is the time from the
first prompt to the end of the last step that still had one in it: prefill, or the encoder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from bench.artefacts import make_artefacts
from bench.peers.base import Bench
from bench.peers.engine import EnginePeer, OurEngine
from bench.suites import SUITES
from prefixmux_server.engine.messages import StepOutput

_STEPS, _QUICK_STEPS = 16, 3
_PIECES: Mapping[str, tuple[str, ...]] = {
    "attention": ("aten::baddbmm", "aten::bmm", "aten::_softmax", "aten::softmax"),
    "KV write": ("aten::index_put_", "aten::_index_put_impl_"),
    "norms": ("aten::native_layer_norm", "aten::layer_norm"),
    "sampling": ("aten::max", "aten::argmax", "aten::isfinite", "aten::sort"),
    "copies": ("aten::copy_", "aten::cat", "aten::index", "aten::index_select", "aten::clone"),
    "add": ("aten::add", "aten::add_"),
}
_LINEAR = ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm", "aten::linear")


@dataclass(frozen=True)
class StepProfile:
    """Milliseconds per decode step; `other` is what no piece is named for, by operator."""

    begin_ms: float
    step_ms: float
    pieces: Mapping[str, float]
    other: Mapping[str, float]

    @property
    def rest_ms(self) -> float:
        return self.step_ms - sum(self.pieces.values())


def profile_steps(
    engine: OurEngine, digests: Sequence[str], vocabulary: int, steps: int
) -> StepProfile:
    """Admits a request for each, decodes, times `steps` steps and profiles as many others."""
    engine.submit(digests, 3 * steps)
    outputs: dict[str, list[int]] = {}
    started = time.perf_counter()
    while _begins(engine.step(outputs), len(digests)):
        pass
    begin_ms = (time.perf_counter() - started) * 1e3
    step_ms = median(_timed_step(engine, outputs) for _ in range(steps)) * 1e3
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(steps):
            engine.step(outputs)
    while engine.has_work:
        engine.step(outputs)
    pieces: dict[str, float] = dict.fromkeys(("linears", "head", *_PIECES), 0.0)
    other: dict[str, float] = {}
    for event in profiler.key_averages(group_by_input_shape=True):
        piece = _piece(event.key, event.input_shapes, vocabulary)
        table = other if piece is None else pieces
        name = piece or event.key
        table[name] = table.get(name, 0.0) + event.self_cpu_time_total / 1e3 / steps
    return StepProfile(begin_ms, step_ms, pieces, other)


def _begins(output: StepOutput | None, requests: int) -> bool:
    """Whether some request has still not run its whole prompt."""
    record = None if output is None else output.record
    rows = () if record is None else record.rows
    return len(rows) < requests or any(row.phase == "prefill" for row in rows)


def _timed_step(engine: OurEngine, outputs: dict[str, list[int]]) -> float:
    started = time.perf_counter()
    engine.step(outputs)
    return time.perf_counter() - started


def _piece(key: str, shapes: Sequence[Sequence[int]], vocabulary: int) -> str | None:
    if key in _LINEAR:
        return "head" if any(vocabulary in shape for shape in shapes) else "linears"
    return next((piece for piece, keys in _PIECES.items() if key in keys), None)


def _print(dtype: str, profiles: Mapping[int, StepProfile]) -> None:
    print(f"\n## {dtype}: ms per decode step\n")
    print("| | " + " | ".join(f"N = {n}" for n in profiles) + " |")
    print("|---|" + "---:|" * len(profiles))
    rows = {name: [p.pieces[name] for p in profiles.values()] for name in ("linears", "head")}
    rows |= {name: [p.pieces[name] for p in profiles.values()] for name in _PIECES}
    rows["Python and the rest"] = [p.rest_ms for p in profiles.values()]
    rows["until all decode"] = [p.begin_ms for p in profiles.values()]
    rows["**step**"] = [p.step_ms for p in profiles.values()]
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    largest = profiles[max(profiles)].other
    named = sorted(largest.items(), key=lambda item: -item[1])[:8]
    print("\nLargest of the rest: " + ", ".join(f"{key} {ms:.2f}" for key, ms in named))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step_profile", description=__doc__)
    parser.add_argument("--workload", choices=("gpt2", "bart", "beams"), default="gpt2")
    parser.add_argument("--quick", action="store_true", help="a tiny model: does it run at all")
    parser.add_argument("--sizes", default="1,8,32,64")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args(arguments)
    sizes = [int(size) for size in given.sizes.split(",")]
    suite = SUITES[given.workload]
    workload = suite.quick if given.quick else suite.workload
    steps = _QUICK_STEPS if given.quick else _STEPS
    for dtype in given.dtypes.split(","):
        with tempfile.TemporaryDirectory(prefix="prefixmux-bench-") as name:
            folder = Path(name)
            artefacts = make_artefacts(workload, max(sizes), folder)
            bench = Bench(workload, artefacts, dtype, given.threads, max(sizes), folder / "store")
            engine = OurEngine(bench)
            digests = engine.put_adapters(artefacts, max(sizes))
            vocabulary = workload.shape.vocabulary
            with torch.inference_mode():
                EnginePeer(engine, digests).run(len(digests), 1)  # so that prefixes are resident
                found = {n: profile_steps(engine, digests[:n], vocabulary, steps) for n in sizes}
            _print(dtype, found)
            engine.close()


if __name__ == "__main__":
    main()
