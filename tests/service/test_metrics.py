"""What is counted and timed, told as the engine and the service tell it."""

from __future__ import annotations

from service.fakes import FakeEngine
from service.outcomes import finished, outcome, row, started, step

from prefixmux_server.engine.front import EngineHealth
from prefixmux_server.engine.messages import ResidencyChange, StepOutput, TokenDelta
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.telemetry.flight import Flight
from prefixmux_server.service.telemetry.lag import LagSampler
from prefixmux_server.service.telemetry.metrics import Metrics
from prefixmux_server.service.telemetry.readings import Readings


class Watched:
    """Everything that keeps figures, over an engine that says what it is told to."""

    def __init__(self, max_tasks: int = 100) -> None:
        self.now = 100.0
        self.engine, self.lifecycle = FakeEngine(), Lifecycle()
        self.metrics = Metrics(max_tasks, lambda: self.now)
        self.flight = Flight([self.metrics.ended])
        lag = LagSampler(self.metrics.lag)
        self.readings = Readings(self.engine, self.flight, self.lifecycle, lag)
        self.metrics.registry.register(self.readings)

    def tell(self, output: StepOutput) -> None:
        self.flight.observe(output)
        self.metrics.step(self.flight, output)
        self.readings.observe(output)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"prefixmux:{name}", labels)


def test_requests_under_way() -> None:
    watched = Watched()
    for id in ("one", "two"):
        watched.flight.begin(id, "default", "e2e")
    watched.tell(started("one"))
    assert watched.value("num_requests_running") == 1
    assert watched.value("num_requests_waiting") == 1
    for id in ("one", "two"):
        watched.flight.finished(outcome(id))
    assert watched.value("num_requests_running") == watched.value("num_requests_waiting") == 0


def test_an_answered_request() -> None:
    watched = Watched()
    watched.flight.begin("one", "default", "e2e")
    watched.tell(finished("one", "eos"))
    watched.flight.finished(outcome("one"))
    watched.flight.begin("two", "default", "e2e")
    watched.flight.finished(outcome("two"))
    assert watched.value("request_success_total", finished_reason="eos") == 1
    assert watched.value("request_success_total", finished_reason="stop") == 1
    assert watched.value("prompt_tokens_total") == 14
    assert watched.value("generation_tokens_total") == 10
    assert watched.value("prefix_tokens_total") == 6
    for name, seconds in {
        "time_to_first_token_seconds": 1.0,
        "e2e_request_latency_seconds": 4.0,
        "request_queue_time_seconds": 0.5,
        "request_prefix_load_time_seconds": 0.25,
        "request_prefill_time_seconds": 0.5,
        "request_decode_time_seconds": 3.0,
    }.items():
        assert watched.value(f"{name}_sum") == seconds
        assert watched.value(f"{name}_count") == 2
    assert watched.value("num_preemptions_total") == 0


def test_requests_that_fail() -> None:
    watched = Watched()
    for code in ("quota_exceeded", "prefix_unavailable", "cancelled", "task_not_found"):
        watched.flight.finished(outcome("", code=code, timing=None, task_id=None, version=None))
        assert watched.value("request_failures_total", code=code) == 1
        labels = {"tenant": "default", "task": "_unknown", "code": code}
        assert watched.value("tenant_requests_total", **labels) == 1
    assert watched.value("quota_refusals_total", tenant="default") == 1
    assert watched.value("prefix_loads_total", tier="host", result="failed") == 1
    assert watched.value("e2e_request_latency_seconds_count") == 0


def test_steps() -> None:
    watched = Watched()
    watched.flight.begin("one", "default", "e2e")
    watched.flight.begin("two", "default", None)
    watched.tell(started("one", "two"))
    rows = (row("one", 5), row("two"), row("two"))
    watched.tell(step(1, *rows, kv_tokens=250, host_bytes=3000, device_bytes=2000))
    assert watched.value("step_seconds_sum") == 0.1
    assert watched.value("step_rows_sum") == 3
    assert watched.value("step_tasks_sum") == 2
    assert watched.value("iteration_tokens_total_sum") == 7
    assert watched.value("kv_cache_usage_perc") == 0.25
    assert watched.value("prefix_resident_bytes", tier="host") == 3000
    assert watched.value("prefix_resident_bytes", tier="device") == 2000
    for id in ("one", "two"):
        watched.flight.finished(outcome(id))
    assert watched.value("kv_cache_usage_perc") == 0
    assert watched.value("prefix_resident_bytes", tier="host") == 3000


def test_the_time_between_tokens_is_that_of_each_output() -> None:
    watched = Watched()
    watched.flight.begin("one", "default", "e2e")
    for later, index in [(0.0, 0), (1.0, 1), (2.0, 0), (4.0, 1), (8.0, 0)]:
        watched.now = 100.0 + later
        deltas = (TokenDelta("one", (1,), index), TokenDelta("probe_x", (1,)))
        watched.tell(StepOutput(None, deltas=deltas))
    assert watched.value("inter_token_latency_seconds_count") == 3
    assert watched.value("inter_token_latency_seconds_sum") == 2 + 3 + 6


def test_where_prefixes_come_and_go() -> None:
    watched = Watched()
    for state in ("host", "device", "device", "disk"):
        change = ResidencyChange("default", "sha256:a", state)
        watched.tell(StepOutput(None, residency=(change,)))
    assert watched.value("prefix_loads_total", tier="host", result="ok") == 1
    assert watched.value("prefix_loads_total", tier="device", result="ok") == 2
    assert watched.value("prefix_evictions_total") == 1


def test_no_number_of_tasks_and_tenants_makes_more_series_than_the_cap() -> None:
    watched = Watched(max_tasks=3)
    for n in range(50):
        watched.flight.begin(f"id-{n}", f"t{n % 10}", f"task-{n}")
        watched.flight.finished(outcome(f"id-{n}", tenant=f"t{n % 10}", task_id=f"task-{n}"))
        watched.metrics.http(f"M{n}", None, 404, 0.1)
    (requests,) = (m for m in watched.metrics.registry.collect() if m.name.endswith("nt_requests"))
    seen = {(s.labels["tenant"], s.labels["task"]) for s in requests.samples}
    assert seen == {
        ("t0", "task-0"), ("t1", "task-1"), ("t2", "task-2"),
        ("t0", "_other"), ("t1", "_other"), ("t2", "_other"), ("_other", "_other"),
    }  # fmt: skip
    assert watched.value("http_requests_total", method="_other", route="_other", status="404") == 50
    assert watched.value("prompt_tokens_total") == 350


def test_the_engines_own_state() -> None:
    watched = Watched()
    assert watched.value("engine_ready") == 1
    labels = {"model": "tiny", "dtype": "float32", "device": "cpu"}
    assert watched.value("model_info", **labels) == 1
    watched.engine.health = EngineHealth(False, "restarting", restarts=2)
    watched.engine.ready = None
    assert watched.value("engine_ready") == 0
    assert watched.value("engine_restarts_total") == 2
    assert watched.value("model_info", **labels) is None
    watched.lifecycle.drain()
    assert watched.value("draining") == 1
