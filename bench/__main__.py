"""`python -m bench`: one command, one run, all peers interleaved, one table.

python -m bench [--workload gpt2|bart|beams|methods|streams] [--quick] [--only engine,peft-batched]
                [--sizes 1,8,32] [--dtypes float32,bfloat16] [--repeats 3] [--threads 2]
                [--out DIR]

gpt2: a GPT-2; bart: a BART, whose encoder reads the prompt; beams: the BART with 5 beams per
request; methods: decode steps of our engine on the GPT-2, by how prefixes were made; streams: a
streaming client for each request.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.artefacts import make_artefacts
from bench.machine import describe, file_name
from bench.measure import Measurement, measure
from bench.neighbours import Neighbours
from bench.peers.base import Bench
from bench.report import Report
from bench.roster import peers
from bench.suites import SUITES, Suite
from bench.workload import Workload


@dataclass(frozen=True)
class Plan:
    """What one run measures."""

    name: str
    suite: Suite
    workload: Workload
    peers: tuple[str, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    repeats: int
    threads: int


def run(plan: Plan, folder: Path) -> Report:
    """Measures everything; `folder` takes models, adapters and stores."""
    largest = max(plan.sizes)
    artefacts = make_artefacts(plan.workload, largest, folder)
    measurements: list[Measurement] = []
    neighbours = Neighbours()
    for dtype in plan.dtypes:
        store = folder / dtype
        store.mkdir()
        bench = Bench(plan.workload, artefacts, dtype, plan.threads, largest, store)
        with peers(bench, plan.peers) as ready:
            new_tokens = plan.workload.new_tokens
            for found in measure(dtype, ready, plan.sizes, new_tokens, plan.repeats):
                measurements.append(found)
                print(_progress(found), flush=True)
    share = neighbours.share()
    noise = "unknown" if share is None else f"{share:.0%} of the CPUs"
    facts = {"workload": _words(plan), "used by other processes meanwhile": noise}
    return Report(plan.suite, {**describe(plan.threads), **facts}, measurements)


def _progress(found: Measurement) -> str:
    place = f"{found.dtype:9} N={found.size:<3} {found.peer:16}"
    return f"{place} {found.throughput:8.1f} tok/s  ±{found.spread / 2:.0%}"


def _words(plan: Plan) -> str:
    return f"{plan.name}: {plan.workload.words}; median of {plan.repeats} rounds, peers interleaved"


def _plan(arguments: Sequence[str] | None) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workload", choices=SUITES, default="gpt2")
    parser.add_argument("--quick", action="store_true", help="a tiny model: does it run at all")
    parser.add_argument("--only", help="peers, by name")
    parser.add_argument("--sizes", help="requests in flight")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(arguments)
    suite = SUITES[given.workload]
    only = suite.peers if given.only is None else given.only.split(",")
    unknown = set(only) - set(suite.peers)
    if unknown:
        known = ", ".join(suite.peers)
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {known}")
    usual = (1, 3) if given.quick else suite.sizes
    plan = Plan(
        name=given.workload,
        suite=suite,
        workload=suite.quick if given.quick else suite.workload,
        peers=tuple(name for name in suite.peers if name in only),
        sizes=usual if given.sizes is None else tuple(map(int, given.sizes.split(","))),
        dtypes=tuple(given.dtypes.split(",")),
        repeats=given.repeats or (1 if given.quick else 3),
        threads=given.threads,
    )
    return plan, None if given.quick else given.out


def main(arguments: Sequence[str] | None = None) -> Report:
    """Prints the page; a quick run's numbers mean nothing and are not kept."""
    plan, out = _plan(arguments)
    with tempfile.TemporaryDirectory(prefix="prefixmux-bench-") as folder:
        report = run(plan, Path(folder))
    print(report.markdown())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        stem = f"{file_name()}-{plan.name}"
        (out / f"{stem}.md").write_text(report.markdown() + "\n", encoding="utf-8")
        content = json.dumps(report.json(), indent=1)
        (out / f"{stem}.json").write_text(content + "\n", encoding="utf-8")
    return report


if __name__ == "__main__":
    main()
