"""How the process logs: one JSON line for each notable event, on stderr.

Stdout is for the ready line alone. Prompts, outputs and keys are never given to a log.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging() -> None:
    """Ours and, from warnings on, those of libraries."""
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer()
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("prefixmux_server").setLevel(logging.INFO)
    # It warns of each malformed request, which is no event but what networks bring: it is counted.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
