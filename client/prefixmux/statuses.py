"""Which class of error an answer's status stands for, and which status a code has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from prefixmux.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GatewayTimeoutError,
    InsufficientStorageError,
    InternalServerError,
    MethodNotAllowedError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    PreconditionFailedError,
    RateLimitError,
    ServiceUnavailableError,
    UnprocessableEntityError,
    UnsupportedMediaTypeError,
)

CLASS_OF_STATUS: Mapping[int, type[APIStatusError]] = MappingProxyType(
    {
        400: BadRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        405: MethodNotAllowedError,
        409: ConflictError,
        412: PreconditionFailedError,
        413: PayloadTooLargeError,
        415: UnsupportedMediaTypeError,
        422: UnprocessableEntityError,
        429: RateLimitError,
        503: ServiceUnavailableError,
        504: GatewayTimeoutError,
        507: InsufficientStorageError,
    }
)

# Of the errors that a stream can end with: its HTTP status was sent before they were known.
STATUS_OF_CODE: Mapping[str, int] = MappingProxyType(
    {
        "unauthorized": 401,
        "forbidden": 403,
        "task_not_found": 404,
        "version_not_found": 404,
        "not_found": 404,
        "invalid_request": 422,
        "invalid_parameter": 422,
        "prompt_too_long": 422,
        "incompatible_prefix": 422,
        "unsupported_method": 422,
        "non_finite_output": 422,
        "overloaded": 429,
        "quota_exceeded": 429,
        "internal_error": 500,
        "engine_unavailable": 503,
        "prefix_unavailable": 503,
        "draining": 503,
        "deadline_exceeded": 504,
        "storage_full": 507,
    }
)


def status_of(code: str) -> int:
    """The status that answers with `code` have; 500 for one of a newer server."""
    return STATUS_OF_CODE.get(code, 500)


def class_of(status_code: int) -> type[APIStatusError]:
    """The most specific class for a status."""
    fallback = InternalServerError if status_code >= 500 else APIStatusError
    return CLASS_OF_STATUS.get(status_code, fallback)
