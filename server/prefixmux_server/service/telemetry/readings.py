"""Figures that are read when somebody asks for the metrics, from whoever owns them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.samples import Sample

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.engine.record import StepRecord
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.telemetry.flight import Flight
from prefixmux_server.service.telemetry.lag import LagSampler
from prefixmux_server.service.telemetry.metrics import PREFIX


class Readings:
    """A collector of prometheus-client's."""

    def __init__(
        self, engine: EngineFront, flight: Flight, lifecycle: Lifecycle, lag: LagSampler
    ) -> None:
        self._engine = engine
        self._flight = flight
        self._lifecycle = lifecycle
        self._lag = lag
        self._record: StepRecord | None = None

    def observe(self, output: StepOutput) -> None:
        self._record = output.record or self._record

    def describe(self) -> list[Metric]:
        """Nothing is read when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        health = self._engine.health
        yield _gauge("num_requests_running", "Requests that have rows.", self._flight.running)
        yield _gauge("num_requests_waiting", "Admitted requests without.", self._flight.waiting)
        yield _gauge("num_requests_open", "HTTP requests being served.", self._lifecycle.accepted)
        yield _gauge("kv_cache_usage_perc", "KV memory taken; 1 is all.", self._kv_usage())
        yield _gauge("engine_ready", "1: a request would be served now.", health.ok)
        yield _gauge("draining", "1: nothing new is accepted.", self._lifecycle.draining)
        yield _gauge("event_loop_lag_p99_seconds", "Of the last minute.", self._lag.quantile(0.99))
        restarts = CounterMetricFamily(PREFIX + "engine_restarts", "Engines that were replaced.")
        restarts.add_metric([], health.restarts)
        yield restarts
        yield self._resident()
        yield _info("build_info", "This server.", {"version": version("prefixmux")})
        if (ready := self._engine.ready) is not None:
            model = ready.model
            labels = {"model": model.id, "dtype": model.dtype, "device": model.device}
            yield _info("model_info", "The resident model.", labels)

    def _kv_usage(self) -> float:
        """As the last step began; nothing once nothing runs."""
        ready, record = self._engine.ready, self._record
        if ready is None or record is None or not self._flight.running:
            return 0.0
        return record.kv_tokens / ready.model.capacity_tokens

    def _resident(self) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "prefix_resident_bytes", "Of loaded prefixes.", labels=["tier"]
        )
        family.add_metric(["host"], self._record.host_bytes if self._record else 0)
        family.add_metric(["device"], self._record.device_bytes if self._record else 0)
        return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value)


def _info(name: str, about: str, labels: dict[str, str]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, about, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


class Shown:
    """The metrics that a reader gets: of one `tenant` and of the server, or of all (None).

    When a series began is left out: it is of no use here, and as many lines again.
    """

    def __init__(self, collect: Callable[[], Iterable[Metric]], tenant: str | None) -> None:
        self._collect = collect
        self._tenant = tenant

    def collect(self) -> Iterator[Metric]:
        for metric in self._collect():
            kept = Metric(metric.name, metric.documentation, metric.type)
            kept.samples = [sample for sample in metric.samples if self._shows(sample)]
            yield kept

    def _shows(self, sample: Sample) -> bool:
        owner = sample.labels.get("tenant")
        of_reader = self._tenant is None or owner in (None, self._tenant)
        return of_reader and not sample.name.endswith("_created")
