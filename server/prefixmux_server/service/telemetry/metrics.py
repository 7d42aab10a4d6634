"""What the server counts and times: vLLM's names and units where it has them, with our prefix.

Heard of steps, outcomes and HTTP answers; what is read at the time of a scrape is `readings.py`'s.
No label is a client's text: tasks and tenants are those of admitted requests, and capped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Histogram

from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.engine.record import StepRecord
from prefixmux_server.service.generation.answer import AnswerTiming
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.telemetry.flight import Flight, Trace

PREFIX = "prefixmux:"
# No task_id and no tenant begins like these: those past the cap, the bare model or a composition
# of the request's own, and requests that named nothing that exists.
OTHER, BARE, UNKNOWN = "_other", "_bare", "_unknown"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})

STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
FIRST_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 20, 60)
REQUEST_S = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 60, 120, 600, 3600)
LAG_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Metrics:
    """Of one process. `max_tasks`: how many tasks have series of their own; the first that ask."""

    def __init__(self, max_tasks: int, clock: Callable[[], float] = monotonic) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._max_tasks = max_tasks
        self._tasks: set[tuple[str, str]] = set()
        self._tenants: set[str] = set()
        self._of_steps()
        self._of_requests()
        self._of_tenants()
        self._of_the_process()

    def step(self, flight: Flight, output: StepOutput) -> None:
        """Hears every step, after `flight` did."""
        if output.record is not None:
            self._record(output.record, flight.tasks)
        now = self._clock()
        for delta in output.deltas:
            if (trace := flight.trace(delta.id)) is not None:
                if (last := trace.said.get(delta.index)) is not None:
                    self._inter_token.observe(now - last)
                trace.said[delta.index] = now
        for change in output.residency:
            if change.state == "disk":
                self._evictions.inc()
            else:
                self._loads.labels(change.state, "ok").inc()

    def ended(self, outcome: Outcome, trace: Trace | None) -> None:
        tenant, task = self._labels(outcome)
        if outcome.code == "ok":
            # The engine was told to stop where a stop string was found: it gives no reason then.
            reason = (trace and trace.reason) or "stop"
            self._success.labels(reason).inc()
        else:
            self._failures.labels(outcome.code).inc()
            if outcome.code == "prefix_unavailable":
                self._loads.labels("host", "failed").inc()
            if outcome.code == "quota_exceeded":
                self._quota_refusals.labels(tenant).inc()
        self._tenant_requests.labels(tenant, task, outcome.code).inc()
        self._count_tokens(outcome, tenant, task)
        if outcome.timing is not None:
            self._time(outcome, outcome.timing)

    def http(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is a template; None for a path that is not known."""
        known = method if method in METHODS else OTHER
        self._http_requests.labels(known, route or OTHER, str(status)).inc()
        self._http_seconds.labels(route or OTHER).observe(seconds)

    def lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def _record(self, record: StepRecord, tasks: int) -> None:
        self._step_seconds.observe(record.seconds)
        self._step_rows.observe(len(record.rows))
        self._step_tasks.observe(tasks)
        self._iteration_tokens.observe(sum(row.tokens for row in record.rows))

    def _count_tokens(self, outcome: Outcome, tenant: str, task: str) -> None:
        for count, whole, own in (
            (outcome.prompt_tokens, self._prompt_tokens, self._tenant_prompt),
            (outcome.generated_tokens, self._generation_tokens, self._tenant_generation),
            (outcome.prefix_tokens, self._prefix_tokens, self._tenant_prefix),
        ):
            whole.inc(count)
            own.labels(tenant, task).inc(count)

    def _time(self, outcome: Outcome, timing: AnswerTiming) -> None:
        self._request_prompt.observe(outcome.prompt_tokens)
        self._request_generation.observe(outcome.generated_tokens)
        self._e2e.observe(outcome.seconds)
        self._queue.observe(timing.queue_s)
        if outcome.digests:
            self._prefix_load.observe(timing.prefix_load_s)
        if outcome.generated_tokens:
            self._ttft.observe(timing.ttft_s)
            self._prefill.observe(max(timing.ttft_s - timing.queue_s, 0.0))
            self._decode.observe(max(timing.total_s - timing.ttft_s, 0.0))

    def _labels(self, outcome: Outcome) -> tuple[str, str]:
        tenant = outcome.tenant
        if tenant not in self._tenants:
            if len(self._tenants) >= max(self._max_tasks, 1):
                return OTHER, OTHER
            self._tenants.add(tenant)
        if outcome.task_id is None or outcome.version is None:
            return tenant, BARE if outcome.id else UNKNOWN
        named = tenant, outcome.task_id
        if named not in self._tasks:
            if len(self._tasks) >= self._max_tasks:
                return tenant, OTHER
            self._tasks.add(named)
        return named

    def _counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(PREFIX + name, about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(PREFIX + name, about, labels, buckets=buckets, registry=self.registry)

    def _of_steps(self) -> None:
        self._step_seconds = self._histogram("step_seconds", "One forward pass.", STEP_S)
        self._step_rows = self._histogram("step_rows", "Rows of one forward pass.", ROWS)
        self._step_tasks = self._histogram("step_tasks", "Different tasks in one pass.", ROWS)
        self._iteration_tokens = self._histogram(
            "iteration_tokens_total", "Tokens that one forward pass ran.", TOKENS
        )
        self._inter_token = self._histogram(
            "inter_token_latency_seconds", "Between two tokens of one output.", STEP_S
        )
        self._loads = self._counter(
            "prefix_loads_total", "Prefixes that came to a tier.", ("tier", "result")
        )
        self._evictions = self._counter("prefix_evictions_total", "Prefixes that left memory.")
        self._counter("num_preemptions_total", "Always 0: nothing that runs is ever preempted.")

    def _of_requests(self) -> None:
        self._ttft = self._histogram("time_to_first_token_seconds", "From arrival.", FIRST_S)
        self._e2e = self._histogram("e2e_request_latency_seconds", "From arrival.", REQUEST_S)
        self._queue = self._histogram("request_queue_time_seconds", "Until its rows.", REQUEST_S)
        self._prefill = self._histogram(
            "request_prefill_time_seconds", "From its rows to its first token.", REQUEST_S
        )
        self._decode = self._histogram(
            "request_decode_time_seconds", "From its first token to its end.", REQUEST_S
        )
        self._prefix_load = self._histogram(
            "request_prefix_load_time_seconds", "Waiting for its prefixes to load.", FIRST_S
        )
        self._request_prompt = self._histogram("request_prompt_tokens", "Of one request.", TOKENS)
        self._request_generation = self._histogram(
            "request_generation_tokens", "Of one request.", TOKENS
        )
        self._prompt_tokens = self._counter("prompt_tokens_total", "Of ended requests.")
        self._generation_tokens = self._counter("generation_tokens_total", "Of ended requests.")
        self._prefix_tokens = self._counter("prefix_tokens_total", "Of ended requests.")
        self._success = self._counter(
            "request_success_total", "Requests that were answered.", ("finished_reason",)
        )
        self._failures = self._counter(
            "request_failures_total", "Requests that got an error, or whose client left.", ("code",)
        )

    def _of_tenants(self) -> None:
        of_task = ("tenant", "task")
        self._tenant_requests = self._counter(
            "tenant_requests_total", "Requests that ended.", (*of_task, "code")
        )
        self._tenant_prompt = self._counter("tenant_prompt_tokens_total", "Read.", of_task)
        self._tenant_generation = self._counter("tenant_generation_tokens_total", "Made.", of_task)
        self._tenant_prefix = self._counter("tenant_prefix_tokens_total", "Attended to.", of_task)
        self._quota_refusals = self._counter(
            "quota_refusals_total", "Requests beyond the tenant's limits.", ("tenant",)
        )

    def _of_the_process(self) -> None:
        self._http_requests = self._counter(
            "http_requests_total", "HTTP answers.", ("method", "route", "status")
        )
        self._http_seconds = self._histogram(
            "http_request_duration_seconds", "Until the answer's end.", REQUEST_S, ("route",)
        )
        self._lag = self._histogram(
            "event_loop_lag_seconds", "How late the HTTP process's loop was.", LAG_S
        )
