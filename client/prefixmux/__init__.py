"""prefixmux: the client of a multi-tenant Prefix-Tuning inference server.

    from prefixmux import Client

    with Client("http://127.0.0.1:8000") as client:
        client.prefixes.upload("e2e", "path/to/peft-adapter")
        print(client.generate("e2e", "name : Aromi | type : pub", max_new_tokens=40).text)

`AsyncClient` is the same, awaited; `stream` tells an answer as it is made.

Importing this package loads neither torch nor the server.
"""

from __future__ import annotations

from importlib.metadata import version

from prefixmux.about import Health, ModelInfo, ServerVersion, Site
from prefixmux.account import Limits, Phase, Spread, TaskUsage, Timeline, UsageReport
from prefixmux.answer import ErrorBody
from prefixmux.async_client import AsyncClient
from prefixmux.client import Client
from prefixmux.errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GatewayTimeoutError,
    InsufficientStorageError,
    InternalServerError,
    InvalidArgumentError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    PreconditionFailedError,
    PrefixmuxError,
    RateLimitError,
    ServiceUnavailableError,
    UnprocessableEntityError,
    UnsupportedMediaTypeError,
)
from prefixmux.requests import GenerateRequest, Parameters
from prefixmux.stored import Task, Version, VersionPart
from prefixmux.stream import AsyncStream, Stream
from prefixmux.types import (
    BatchRow,
    GenerateResponse,
    Logprob,
    Output,
    PrefixRef,
    Score,
    ScoreResponse,
    Timing,
    TokenEvent,
    TokenLogprob,
    Usage,
)

__version__ = version("prefixmux")

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncClient",
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "BatchRow",
    "Client",
    "ConflictError",
    "ErrorBody",
    "GatewayTimeoutError",
    "GenerateRequest",
    "GenerateResponse",
    "Health",
    "InsufficientStorageError",
    "InternalServerError",
    "InvalidArgumentError",
    "Limits",
    "Logprob",
    "MethodNotAllowedError",
    "ModelInfo",
    "NotFoundError",
    "Output",
    "Parameters",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Phase",
    "PreconditionFailedError",
    "PrefixRef",
    "PrefixmuxError",
    "RateLimitError",
    "Score",
    "ScoreResponse",
    "ServerVersion",
    "ServiceUnavailableError",
    "Site",
    "Spread",
    "Stream",
    "Task",
    "TaskUsage",
    "Timeline",
    "Timing",
    "TokenEvent",
    "TokenLogprob",
    "UnprocessableEntityError",
    "UnsupportedMediaTypeError",
    "Usage",
    "UsageReport",
    "Version",
    "VersionPart",
    "__version__",
]
