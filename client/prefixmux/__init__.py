"""prefixmux: the client of a multi-tenant Prefix-Tuning inference server.

    from prefixmux import Client

    with Client("http://127.0.0.1:8000") as client:
        client.prefixes.upload("e2e", "path/to/peft-adapter")
        print(client.generate("e2e", "name : Aromi | type : pub", max_new_tokens=40).text)

Importing this package loads neither torch nor the server.
"""

from __future__ import annotations

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
from prefixmux.requests import GenerateRequest
from prefixmux.stored import Task, Version, VersionPart
from prefixmux.types import (
    BatchRow,
    ErrorBody,
    GenerateResponse,
    Health,
    ModelInfo,
    Output,
    PrefixRef,
    ServerVersion,
    Site,
    Timing,
    Usage,
)

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
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
    "MethodNotAllowedError",
    "ModelInfo",
    "NotFoundError",
    "Output",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "PrefixRef",
    "PrefixmuxError",
    "RateLimitError",
    "ServerVersion",
    "ServiceUnavailableError",
    "Site",
    "Task",
    "Timing",
    "UnprocessableEntityError",
    "UnsupportedMediaTypeError",
    "Usage",
    "Version",
    "VersionPart",
]
