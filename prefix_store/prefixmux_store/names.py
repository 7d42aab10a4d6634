"""Names that come from outside: what a task, a tenant and a digest may look like.

Tenants become folder names and digests file names, so nothing else may pass.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from prefixmux_store.errors import InvalidTaskId, InvalidTenant

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_blob_name(text: str) -> bool:
    return _HEX.fullmatch(text) is not None


def check_task_id(text: str) -> str:
    if not is_name(text):
        raise InvalidTaskId
    return text


def check_tenant(text: str) -> str:
    if not is_name(text):
        raise InvalidTenant
    return text


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def joint_digest(digests: Sequence[str]) -> str:
    """One name for several prefixes in order; that of one is its own."""
    return digests[0] if len(digests) == 1 else digest_of("\n".join(digests).encode("ascii"))
