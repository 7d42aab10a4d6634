"""The store's error tree; every error carries a code of the HTTP contract.

    StoreError
    ├── UnsafeFormat               unsafe_format: the bytes are of a format that can run code
    ├── InvalidPrefix              invalid_prefix, `reason` says which rule
    ├── DigestMismatch             digest_mismatch
    ├── IncompatiblePrefix         incompatible_prefix: well formed, for another model
    ├── UnsupportedMethod          unsupported_method
    ├── PrefixTooLarge             prefix_too_large (bytes)
    ├── InvalidRequest             invalid_request, `param` says which argument
    │   ├── InvalidTaskId
    │   ├── InvalidTenant
    │   └── InvalidCursor
    ├── TaskNotFound               task_not_found
    ├── VersionNotFound            version_not_found
    ├── VersionActive              version_active
    ├── PreconditionFailed         precondition_failed
    ├── KeyNotFound                not_found
    ├── QuotaExceeded              quota_exceeded, `reason` names the limit
    ├── StorageFull                storage_full
    │   └── TenantFull             the disk has room, the tenant has not
    ├── Unavailable                prefix_unavailable
    │   ├── BlobMissing
    │   ├── BlobCorrupt
    │   ├── StorageFailed          one read or write failed; the store goes on
    │   ├── StoreBusy              another process held the catalogue for too long
    │   └── StoreReadOnly          a sync failed: nothing is written until the store is reopened
    └── StoreUnusable              internal_error, raised by `open` only, for the operator
        └── SchemaTooNew

Messages are for clients: no path, no traceback, nothing of another tenant. `StoreUnusable` alone
speaks to the operator and names the folder.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Reason = Literal[
    "truncated",
    "header",
    "offsets",
    "duplicate",
    "names",
    "dtype",
    "shape",
    "empty",
    "too_long",
    "non_finite",
    "magnitude",
    "metadata",
]


class StoreError(Exception):
    """`message` is safe for clients; `param` names an argument, `reason` refines `code`."""

    code: ClassVar[str] = "internal_error"

    def __init__(
        self, message: str, *, reason: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.param = param


class UnsafeFormat(StoreError):
    code = "unsafe_format"


class InvalidPrefix(StoreError):
    """The bytes break a rule of the file format, whatever the model."""

    code = "invalid_prefix"

    def __init__(self, reason: Reason, message: str, *, param: str | None = None) -> None:
        super().__init__(message, reason=reason, param=param)


class DigestMismatch(StoreError):
    code = "digest_mismatch"

    def __init__(self) -> None:
        super().__init__("The digest sent is not the file's: the upload was damaged on its way.")


class IncompatiblePrefix(StoreError):
    code = "incompatible_prefix"


class UnsupportedMethod(StoreError):
    code = "unsupported_method"


class PrefixTooLarge(StoreError):
    """`limit` is in bytes."""

    code = "prefix_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The prefix file is larger than {limit} bytes.")


class InvalidRequest(StoreError):
    code = "invalid_request"


class InvalidTaskId(InvalidRequest):
    def __init__(self) -> None:
        message = (
            "A task_id has 1 to 64 characters: lower-case letters, digits and . _ -,"
            " starting with a letter or digit."
        )
        super().__init__(message, param="task_id")


class InvalidTenant(InvalidRequest):
    def __init__(self) -> None:
        message = (
            "A tenant has 1 to 64 characters: lower-case letters, digits and . _ -,"
            " starting with a letter or digit."
        )
        super().__init__(message, param="tenant")


class InvalidCursor(InvalidRequest):
    def __init__(self) -> None:
        super().__init__("The cursor is not one that a listing returned.", param="cursor")


class TaskNotFound(StoreError):
    code = "task_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such task.", param="task_id")


class VersionNotFound(StoreError):
    code = "version_not_found"

    def __init__(self, message: str = "The task has no such version.") -> None:
        super().__init__(message, param="version")


class VersionActive(StoreError):
    code = "version_active"

    def __init__(self) -> None:
        super().__init__("The version is active: activate another one, or delete the task.")


class PreconditionFailed(StoreError):
    code = "precondition_failed"

    def __init__(self) -> None:
        super().__init__("The task exists already.")


class KeyNotFound(StoreError):
    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is no key with this id; `prefixmux keys ls` shows all.")


class QuotaExceeded(StoreError):
    code = "quota_exceeded"

    def __init__(self, max_tasks: int) -> None:
        super().__init__(
            f"The tenant has its {max_tasks} tasks: delete one, or ask the operator for more.",
            reason="max_tasks",
        )


class StorageFull(StoreError):
    code = "storage_full"

    def __init__(
        self, message: str = "The store's disk is full; nothing was stored.", **about: str
    ) -> None:
        super().__init__(message, **about)


class TenantFull(StorageFull):
    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"This would take the tenant beyond its {max_bytes} bytes: delete versions or tasks"
            " that are not needed, or ask the operator for more.",
            reason="max_bytes",
        )


class Unavailable(StoreError):
    code = "prefix_unavailable"


class BlobMissing(Unavailable):
    def __init__(self) -> None:
        super().__init__("The prefix's file is missing from the store; upload it again.")


class BlobCorrupt(Unavailable):
    def __init__(self) -> None:
        super().__init__("The prefix's file is damaged in the store; upload it again.")


class StorageFailed(Unavailable):
    """`what` failed; it need not be the disk."""

    def __init__(self, what: str = "disk") -> None:
        super().__init__(f"The store's {what} reported an error; try again later.")


class StoreBusy(Unavailable):
    def __init__(self) -> None:
        super().__init__("The store is busy; try again later.")


class StoreReadOnly(Unavailable):
    def __init__(self) -> None:
        super().__init__(
            "The store takes no changes after a disk error, until the server is restarted."
        )


class StoreUnusable(StoreError):
    """The store cannot be opened at all."""


class SchemaTooNew(StoreUnusable):
    """The catalogue was written by a newer release; `found` and `known` are schema numbers."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"The store has schema {found}, this release knows {known}: use the newer release."
        )
        self.found = found
        self.known = known
