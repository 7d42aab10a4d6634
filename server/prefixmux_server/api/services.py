"""What the routes work with: handed to the app once, never looked up anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.service.generation.generation import GenerationService
from prefixmux_server.service.generation.preparation import Preparation
from prefixmux_server.service.generation.score import ScoreService
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.prefixes.pins import Pins
from prefixmux_server.service.prefixes.prefixes import PrefixService
from prefixmux_server.service.telemetry.lag import LagSampler
from prefixmux_server.service.telemetry.live import Live
from prefixmux_server.service.telemetry.metrics import Metrics
from prefixmux_server.service.telemetry.steps import StepLog
from prefixmux_server.service.telemetry.timeline import Timelines
from prefixmux_server.service.tenants.accounts import Accounts
from prefixmux_server.service.tenants.audit import AuditLog
from prefixmux_server.service.tenants.keys import KeyService
from prefixmux_server.service.tenants.usage import UsageMeter
from prefixmux_server.service.text.chat import ChatService


@dataclass(frozen=True)
class Services:
    """Body limits are in bytes. `metrics_open`: they need no key and are those of all tenants.
    `any_host`: as in `Frame`."""

    engine: EngineFront
    generation: GenerationService
    preparation: Preparation
    chat: ChatService
    score: ScoreService
    prefixes: PrefixService
    pins: Pins
    steps: StepLog
    live: Live
    timelines: Timelines
    metrics: Metrics
    metrics_open: bool
    any_host: bool
    lag: LagSampler
    lifecycle: Lifecycle
    keys: KeyService
    accounts: Accounts
    usage: UsageMeter
    audit: AuditLog
    max_body_bytes: int
    max_upload_bytes: int


async def of_app(request: Request) -> Services:
    return cast(Services, request.app.state.services)


AppServices = Annotated[Services, Depends(of_app)]
