"""The server's error tree: what a client can be told, under which code and status.

    PrefixmuxServerError
    ├── InvalidJson            400 invalid_json
    ├── Unauthorized           401 unauthorized, with WWW-Authenticate
    ├── Forbidden              403 forbidden
    ├── NotFound               404 not_found
    ├── MethodNotAllowed       405 method_not_allowed
    ├── BodyTooLarge           413 body_too_large
    ├── UnsupportedMediaType   415 unsupported_media_type
    ├── InvalidRequest         422 invalid_request
    ├── InvalidParameter       422 invalid_parameter
    ├── PromptTooLong          422 prompt_too_long
    ├── TokenizerUnavailable   422 tokenizer_unavailable
    ├── Overloaded             429 overloaded, with its own Retry-After
    ├── QuotaExceeded          429 quota_exceeded, with its own Retry-After
    ├── InternalError          500 internal_error
    ├── EngineUnavailable      503 engine_unavailable
    ├── Draining               503 draining
    ├── DeadlineExceeded       504 deadline_exceeded, with x-should-retry: false
    └── Relayed                whatever code the store or the engine gave
    UsageError                 the process ends with 2; no client ever sees it

Messages are written for clients: never `str(exception)`, a path or a traceback. Nothing of ours
is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping

STATUS_OF_CODE: Mapping[str, int] = {
    "invalid_json": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "task_not_found": 404,
    "version_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "version_active": 409,
    "precondition_failed": 412,
    "body_too_large": 413,
    "prefix_too_large": 413,
    "unsupported_media_type": 415,
    "unsafe_format": 415,
    "invalid_request": 422,
    "invalid_parameter": 422,
    "prompt_too_long": 422,
    "tokenizer_unavailable": 422,
    "invalid_prefix": 422,
    "incompatible_prefix": 422,
    "unsupported_method": 422,
    "digest_mismatch": 422,
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

HEADERS_OF_CODE: Mapping[str, Mapping[str, str]] = {
    "unauthorized": {"www-authenticate": "Bearer"},
    "overloaded": {"retry-after": "1"},
    # Of the store: tasks do not go away by waiting. `QuotaExceeded` knows better of requests.
    "quota_exceeded": {"retry-after": "60", "x-should-retry": "false"},
    "engine_unavailable": {"retry-after": "1"},
    "draining": {"retry-after": "1"},
    "deadline_exceeded": {"x-should-retry": "false"},
}


class PrefixmuxServerError(Exception):
    """`param` is a dotted path into the request; `reason` refines `code` where it has one."""

    code: str = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.reason = reason

    @property
    def http_status(self) -> int:
        return STATUS_OF_CODE[self.code]

    @property
    def headers(self) -> Mapping[str, str]:
        return HEADERS_OF_CODE.get(self.code, {})


class InvalidJson(PrefixmuxServerError):
    code = "invalid_json"


class Unauthorized(PrefixmuxServerError):
    code = "unauthorized"


class Forbidden(PrefixmuxServerError):
    code = "forbidden"


class NotFound(PrefixmuxServerError):
    code = "not_found"


class MethodNotAllowed(PrefixmuxServerError):
    code = "method_not_allowed"


class BodyTooLarge(PrefixmuxServerError):
    code = "body_too_large"


class UnsupportedMediaType(PrefixmuxServerError):
    code = "unsupported_media_type"


class InvalidRequest(PrefixmuxServerError):
    code = "invalid_request"


class InvalidParameter(PrefixmuxServerError):
    code = "invalid_parameter"


class PromptTooLong(PrefixmuxServerError):
    code = "prompt_too_long"


class TokenizerUnavailable(PrefixmuxServerError):
    code = "tokenizer_unavailable"


class Overloaded(PrefixmuxServerError):
    """`retry_after`: whole seconds until there may be room."""

    code = "overloaded"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after)}


class QuotaExceeded(PrefixmuxServerError):
    """`retry_after`: whole seconds until the tenant may try again."""

    code = "quota_exceeded"

    def __init__(self, message: str, retry_after: int, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after)}


class InternalError(PrefixmuxServerError):
    code = "internal_error"


class EngineUnavailable(PrefixmuxServerError):
    code = "engine_unavailable"


class Draining(PrefixmuxServerError):
    code = "draining"


class DeadlineExceeded(PrefixmuxServerError):
    code = "deadline_exceeded"


class Relayed(PrefixmuxServerError):
    """An error that another part of the system typed: its code decides status and headers."""

    def __init__(
        self, code: str, message: str, *, param: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, param=param, reason=reason)
        self.code = code if code in STATUS_OF_CODE else "internal_error"


class UsageError(Exception):
    """The command cannot be obeyed as given; `message` says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
