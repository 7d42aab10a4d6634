"""Answers about what a tenant has used, and where a request's time went."""

from __future__ import annotations

from prefixmux.answer import Answer, Wire


class Limits(Wire):
    """What the tenant may use; None is without limit. Other limits are kept as they come."""

    max_tasks: int | None = None
    max_bytes: int | None = None
    max_running: int | None = None
    max_waiting: int | None = None
    tokens_per_minute: int | None = None


class TaskUsage(Wire):
    """What one task has used since its tenant exists; `task_id` None is the bare model."""

    task_id: str | None
    requests: int
    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int


class UsageReport(Answer):
    """What the tenant stores and has used, and what it may."""

    tenant: str
    tasks: int
    versions: int
    bytes: int
    limits: Limits = Limits()
    items: tuple[TaskUsage, ...] = ()


class Spread(Wire):
    """Over the steps of a phase; None without any."""

    min: int | None = None
    mean: float | None = None
    max: int | None = None


class Phase(Wire):
    """A request's steps in one phase: the tokens it ran in them, from the first's beginning to the
    last's end, the forward passes in that time, and how many rows of how many tasks the batches
    held, its own with them."""

    steps: int
    tokens: int
    seconds: float
    step_seconds: float
    rows: Spread
    tasks: Spread


class Timeline(Wire):
    """Where a finished request's time went, in seconds: `total_s` is `queue_s`, both phases'
    `seconds` and `other_s` (tokenising, the way to the engine and back, waiting between steps).

    `request_id` is that of the request in question; `prefix_load_s` is a part of `queue_s`;
    `outcome` is "ok", "cancelled" or an error's code.
    """

    id: str
    request_id: str
    task_id: str | None
    version: int | None
    outcome: str
    started_at: float
    total_s: float
    queue_s: float
    prefix_load_s: float
    ttft_s: float | None
    prefill: Phase
    decode: Phase
    other_s: float
    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int
    encoder_tokens: int = 0
    preemptions: int = 0
