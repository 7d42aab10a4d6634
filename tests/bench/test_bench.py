"""The benchmark runs end to end on a tiny model, and its arithmetic is right."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench.__main__ import main
from bench.measure import Measurement, measure
from bench.neighbours import Neighbours
from bench.peers.base import Sample
from bench.report import Report
from bench.roster import LABELS
from bench.step_profile import main as profile
from bench.suites import SUITES


def measured(
    peer: str, *throughputs: float, dtype: str = "bfloat16", size: int = 32
) -> Measurement:
    return Measurement(dtype, size, peer, throughputs, size, ((1, 2), (3, 4)))


def quick(workload: str) -> list[str]:
    """The process's own number of threads stays as it is."""
    threads = str(torch.get_num_threads())
    return ["--workload", workload, "--quick", "--dtypes", "float32", "--threads", threads]


class Scripted:
    """A peer whose runs last what the script says, and which writes down when it ran."""

    def __init__(self, name: str, log: list[str], seconds: list[float]) -> None:
        self._name, self._log, self._seconds = name, log, seconds

    def run(self, requests: int, new_tokens: int) -> Sample:
        self._log.append(self._name)
        return Sample(requests * new_tokens, self._seconds.pop(0), requests, ())

    def close(self) -> None:
        self._log.append(f"close {self._name}")


def test_rounds_are_interleaved_in_turning_order_after_a_warm_up() -> None:
    log: list[str] = []
    peers = {"a": Scripted("a", log, [9, 1, 2, 4]), "b": Scripted("b", log, [9, 5, 5, 5])}
    found = list(measure("float32", peers, [2], 10, 3))
    assert log == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [m.peer for m in found] == ["a", "b"]
    assert list(found[0].throughputs) == [20, 10, 5]
    assert found[0].throughput == 10
    assert found[0].spread == pytest.approx(1.5)
    assert found[1].spread == 0


def test_ratios_are_medians_of_the_rounds_and_decide_targets() -> None:
    report = Report(
        SUITES["gpt2"],
        {"CPU": "any"},
        [
            measured("engine", 500, 250, 600),
            measured("peft-single", 40, 20, 30),
            measured("peft-batched", 400, 500, 300),
            measured("engine", 70, dtype="float32", size=1),
        ],
    )
    assert report.ratio("bfloat16", 32, "engine", "peft-single") == pytest.approx(12.5)
    assert report.ratio("bfloat16", 32, "engine", "http") is None
    reached = {r.target.denominator: (r.value, r.reached) for r in report.targets()}
    assert reached == {"peft-single": (12.5, True), "peft-batched": (1.25, False)}
    page = report.markdown()
    assert "| bfloat16 | 32 | engine / peft-batched | 1.5x | 1.25x | **missed** |" in page
    assert "500.0 (±35%)" in page


def test_equal_rows_compare_only_what_both_answered() -> None:
    ours = measured("engine", 1)
    theirs = Measurement("bfloat16", 32, "peft-single", (1,), 1, ((1, 2),))
    limit = Measurement("bfloat16", 32, "limit", (1,), 1, ())
    report = Report(SUITES["gpt2"], {}, [ours, theirs, limit])
    assert report.equal_rows("bfloat16", 32, "engine", "peft-single") == (1, 1)
    assert report.equal_rows("bfloat16", 32, "engine", "limit") is None


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_speaks_of_peers_that_it_has(name: str) -> None:
    suite = SUITES[name]
    named = {peer for t in suite.targets for peer in (t.numerator, t.denominator)}
    named |= {*suite.subjects, *suite.references, *(peer for pair in suite.equal for peer in pair)}
    assert named <= set(suite.peers) <= set(LABELS)


@pytest.mark.parametrize("count", [1, 8, 32, 64])
def test_prefix_lengths_spread_evenly_about_the_single_tasks_length(count: int) -> None:
    workload = SUITES["gpt2"].workload
    lengths = [workload.prefix_tokens(task) for task in range(count)]
    assert all(10 <= length <= 200 for length in lengths)
    assert sum(lengths) / count == pytest.approx(lengths[0], rel=0.1)
    assert len(set(lengths)) > 0.8 * count


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's own use of transformers
@pytest.mark.parametrize("name", ["gpt2", "bart", "beams"])
def test_a_quick_run_of_all_peers_in_this_process_gives_equal_tokens(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = "peft-single,peft-batched,transformers,engine,engine-one-task,limit"
    report = main([*quick(name), "--only", peers, "--out", str(tmp_path)])
    assert report.equal_rows("float32", 3, "engine", "peft-single") == (3, 3)
    assert report.equal_rows("float32", 3, "engine-one-task", "peft-batched") == (3, 3)
    assert "| prefixmux engine, N tasks, against | N = 1 | N = 3 |" in capsys.readouterr().out
    assert {m["peer"] for m in json.loads(json.dumps(report.json()))["measurements"]} == set(
        peers.split(",")
    )
    assert not list(tmp_path.iterdir())


def test_a_quick_run_of_all_methods_measures_steps_and_first_uses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = main(quick("methods"))
    compared = {(r.target.numerator, r.size) for r in report.targets()}
    assert compared == {(p, n) for p in ("steps-embeddings", "steps-text") for n in (1, 3)}
    page = capsys.readouterr().out
    assert page.count("once per version") == 1
    for label in (LABELS[peer] for peer in SUITES["methods"].peers):
        assert f"| {label} |" in page.partition("once per version")[2]


def test_a_quick_run_of_streams_gives_the_engines_tokens_and_says_what_the_clients_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = main([*quick("streams"), "--out", str(tmp_path)])
    assert report.equal_rows("float32", 3, "streams", "engine") == (3, 3)
    page = capsys.readouterr().out
    assert page.count("a streaming client for each: load generator, share of one core") == 1
    assert page.count("a streaming client for each: event loop lag, p99") == 1


@pytest.mark.parametrize("name", ["gpt2", "bart", "beams"])
def test_a_quick_profile_names_the_parts_of_a_step(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    profile([*quick(name), "--sizes", "2"])
    page = capsys.readouterr().out
    assert "| | N = 2 |" in page
    assert "| until all decode |" in page


def test_neighbours_are_those_who_are_not_ours() -> None:
    if not Path("/proc/stat").exists():
        pytest.skip("no /proc here")
    watch = Neighbours()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    spin = "import time\nwhile time.process_time() < 0.5: pass"
    cores = os.cpu_count() or 1
    children = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(cores)]
    assert [child.wait() for child in children] == [0] * cores
    share, seconds = watch.share(), watch.seconds
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime) / seconds / cores
    assert share is not None
    assert share + ours <= 1.05


def test_unknown_peers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "vllm"])
    assert ended.value.code == 2
    assert "no such peer: vllm" in capsys.readouterr().err
