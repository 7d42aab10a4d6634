"""What can go wrong, as one tree with one class to catch.

    PrefixmuxError
    ├── InvalidArgumentError            refused here, nothing was sent (also a ValueError)
    ├── APIConnectionError              no answer: refused, cut, unreachable
    │   └── APITimeoutError             no answer in time
    ├── APIResponseError                an answer, but not one of this contract
    └── APIStatusError                  an error answer: status_code, code, param, request_id
        ├── BadRequestError             400
        ├── AuthenticationError         401
        ├── PermissionDeniedError       403
        ├── NotFoundError               404
        ├── MethodNotAllowedError       405
        ├── ConflictError               409
        ├── PreconditionFailedError     412
        ├── PayloadTooLargeError        413
        ├── UnsupportedMediaTypeError   415
        ├── UnprocessableEntityError    422
        ├── RateLimitError              429
        └── InternalServerError         500 and above
            ├── ServiceUnavailableError 503
            ├── GatewayTimeoutError     504
            └── InsufficientStorageError 507

Branch on the class first, then on `code`: codes are part of the wire contract, messages are not.
This module knows nothing of HTTP libraries.
"""

from __future__ import annotations

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ConflictError",
    "GatewayTimeoutError",
    "InsufficientStorageError",
    "InternalServerError",
    "InvalidArgumentError",
    "MethodNotAllowedError",
    "NotFoundError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PreconditionFailedError",
    "PrefixmuxError",
    "RateLimitError",
    "ServiceUnavailableError",
    "UnprocessableEntityError",
    "UnsupportedMediaTypeError",
]


class PrefixmuxError(Exception):
    """Base of everything this package raises on purpose."""


class InvalidArgumentError(PrefixmuxError, ValueError):
    """An argument that no server could accept; nothing was sent."""


class APIConnectionError(PrefixmuxError):
    """The server gave no complete answer. Whether it did the work is unknown."""


class APITimeoutError(APIConnectionError):
    """The server gave no answer within the client's `timeout`."""


class APIResponseError(PrefixmuxError):
    """Something answered, but not as prefixmux does (a proxy's page, damaged bytes)."""


class APIStatusError(PrefixmuxError):
    """An error answer.

    `code` is one of the contract's codes, or None when the body was not prefixmux's (a proxy).
    `param` is a dotted path into the request, `reason` refines some codes. `retry_after` is in how
    many seconds the server wants to be asked again, if it said.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        param: str | None = None,
        reason: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.param = param
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        details = [str(self.status_code), self.code, self.reason]
        label = " ".join(detail for detail in details if detail)
        where = f" (at {self.param})" if self.param else ""
        request = f" [request {self.request_id}]" if self.request_id else ""
        return f"{label}: {self.message}{where}{request}"


class BadRequestError(APIStatusError):
    """The body is not JSON."""


class AuthenticationError(APIStatusError):
    """No key, or one that the server does not know."""


class PermissionDeniedError(APIStatusError):
    """The key lacks the scope."""


class NotFoundError(APIStatusError):
    """No such task, version or route (for this key's tenant)."""


class MethodNotAllowedError(APIStatusError):
    """The route exists, the method does not."""


class ConflictError(APIStatusError):
    """`version_active`: activate another version first."""


class PreconditionFailedError(APIStatusError):
    """The task exists already and only creation was asked for."""


class PayloadTooLargeError(APIStatusError):
    """More bytes than the server takes."""


class UnsupportedMediaTypeError(APIStatusError):
    """`unsafe_format` or a content type that the route does not read."""


class UnprocessableEntityError(APIStatusError):
    """Understood and refused: see `code`, `param` and `reason`."""


class RateLimitError(APIStatusError):
    """The queue is full or a quota is used up."""


class InternalServerError(APIStatusError):
    """The server failed."""


class ServiceUnavailableError(InternalServerError):
    """The engine, the prefix or the whole server is not available now."""


class GatewayTimeoutError(InternalServerError):
    """`deadline_exceeded`: the request's own `timeout_s` has passed."""


class InsufficientStorageError(InternalServerError):
    """The store has no room."""
