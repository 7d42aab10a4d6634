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


class Timeline(Answer):
    """Where a finished request's time went; its fields are kept as they come."""

    id: str
