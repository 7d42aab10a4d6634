"""`python -m bench`: one command, one run, all peers interleaved, one table.

python -m bench [--quick] [--only engine,peft-batched] [--sizes 1,8,32,64]
                [--dtypes float32,bfloat16] [--repeats 3] [--threads 2] [--out DIR]
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
from bench.roster import LABELS, peers
from bench.workload import TINY, Workload


@dataclass(frozen=True)
class Plan:
    """What one run measures."""

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
    return Report({**describe(plan.threads), **facts}, measurements)


def _progress(found: Measurement) -> str:
    place = f"{found.dtype:9} N={found.size:<3} {found.peer:16}"
    return f"{place} {found.throughput:8.1f} tok/s  ±{found.spread / 2:.0%}"


def _words(plan: Plan) -> str:
    work, shape = plan.workload, plan.workload.shape
    lengths = f"{work.shortest_prefix}..{work.longest_prefix}"
    return (
        f"GPT-2 of {shape.layers} layers, width {shape.hidden}, vocabulary {shape.vocabulary}, "
        f"random weights; {work.prompt_tokens} prompt tokens, {work.new_tokens} new tokens, "
        f"greedy, EOS ignored; prefixes of {lengths} virtual tokens, resident "
        f"({work.prefix_tokens(0)} where all are of one task); median of {plan.repeats}, "
        "peers interleaved"
    )


def _plan(arguments: Sequence[str] | None) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model: does it run at all")
    parser.add_argument("--only", default=",".join(LABELS), help="peers, by name")
    parser.add_argument("--sizes", help="requests in flight (default 1,8,32,64)")
    parser.add_argument("--dtypes", help="default float32,bfloat16")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(arguments)
    unknown = set(given.only.split(",")) - set(LABELS)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(LABELS)}")
    workload = Workload(TINY, prompt_tokens=5, new_tokens=6) if given.quick else Workload()
    sizes = given.sizes or ("1,3" if given.quick else "1,8,32,64")
    plan = Plan(
        workload=workload,
        peers=tuple(name for name in LABELS if name in given.only.split(",")),
        sizes=tuple(int(size) for size in sizes.split(",")),
        dtypes=tuple((given.dtypes or "float32,bfloat16").split(",")),
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
        (out / f"{file_name()}.md").write_text(report.markdown() + "\n", encoding="utf-8")
        content = json.dumps(report.json(), indent=1)
        (out / f"{file_name()}.json").write_text(content + "\n", encoding="utf-8")
    return report


if __name__ == "__main__":
    main()
