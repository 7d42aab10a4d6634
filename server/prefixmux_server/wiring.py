"""Puts the services together over one store and one engine.

Knows who needs whom; owns no process, no socket and no signal.
"""

from __future__ import annotations

from functools import partial

from prefixmux_server.api.services import Services
from prefixmux_server.engine.front import EngineFront
from prefixmux_server.service.generation.admission import Admission
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.generation.preparation import Preparation
from prefixmux_server.service.generation.score import ScoreService
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.prefixes.pins import Pins
from prefixmux_server.service.prefixes.prefixes import PrefixService
from prefixmux_server.service.telemetry.flight import Flight
from prefixmux_server.service.telemetry.lag import LagSampler
from prefixmux_server.service.telemetry.live import Live
from prefixmux_server.service.telemetry.metrics import Metrics
from prefixmux_server.service.telemetry.pace import Pace
from prefixmux_server.service.telemetry.readings import Readings
from prefixmux_server.service.telemetry.steps import StepLog
from prefixmux_server.service.telemetry.timeline import Timelines
from prefixmux_server.service.tenants.accounts import Accounts
from prefixmux_server.service.tenants.audit import AuditLog
from prefixmux_server.service.tenants.changes import Changes
from prefixmux_server.service.tenants.keys import KeyService
from prefixmux_server.service.tenants.usage import UsageMeter
from prefixmux_server.service.text.chat import ChatService
from prefixmux_server.service.text.codecs import Codecs
from prefixmux_server.settings import Settings
from prefixmux_store.store import PrefixStore


def build_services(
    settings: Settings, store: PrefixStore, engine: EngineFront, lifecycle: Lifecycle
) -> Services:
    """Everything the routes work with. `generation` has to be closed; `audit` and `usage` keep
    what they hear of in memory until they are entered."""
    metrics, timelines = Metrics(settings.metrics_max_tasks), Timelines()
    flight = Flight([metrics.ended, timelines.ended])
    pins = Pins(engine)
    pace, lag = Pace(), LagSampler(metrics.lag)
    readings = Readings(engine, flight, lifecycle, lag)
    metrics.registry.register(readings)
    live = Live(flight, lambda: engine.ready.model.capacity_tokens if engine.ready else None)
    for observe in (
        flight.observe,
        partial(metrics.step, flight),
        readings.observe,
        pace.observe,
        live.observe,
    ):
        engine.observe(observe)
    steps = StepLog(engine, flight.begin)
    accounts = Accounts(store.tenants.limits, settings.max_batch_rows)
    usage = UsageMeter(store)
    audit = AuditLog(settings.audit_path, settings.audit_max_bytes, settings.audit_backups)
    codecs = Codecs()
    admission = Admission(store, settings.max_batch_rows, codecs)
    generation = GenerationService(
        engine,
        admission,
        steps,
        accounts,
        [flight.finished, usage.finished, audit.finished],
        settings.max_request_seconds,
        pace,
    )
    preparation = Preparation(generation, store, codecs)
    return Services(
        engine=engine,
        generation=generation,
        preparation=preparation,
        chat=ChatService(preparation),
        score=ScoreService(preparation, generation),
        prefixes=PrefixService(
            engine,
            store,
            settings.max_prefix_tokens,
            settings.max_batch_rows,
            Changes([audit.changed]),
            pins,
        ),
        pins=pins,
        steps=steps,
        live=live,
        timelines=timelines,
        metrics=metrics,
        metrics_open=settings.metrics_open,
        any_host=settings.allow_anonymous,
        lag=lag,
        lifecycle=lifecycle,
        keys=KeyService(store.keys),
        accounts=accounts,
        usage=usage,
        audit=audit,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
