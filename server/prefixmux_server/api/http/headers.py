"""The headers of an upload: the digest that its bytes should have, and whether it must be new."""

from __future__ import annotations

import base64
import binascii
import re

from prefixmux_server.errors import InvalidRequest

# A member of a dictionary (RFC 9651): a key, bytes, and parameters, which say nothing here.
DIGEST = re.compile(
    r"""[ \t]*+ (?P<key>[a-z*][a-z0-9_.*-]*+) = :(?P<bytes>[A-Za-z0-9+/=]*+):
    (?: [ ]*+;[ ]*+ [a-z*][a-z0-9_.*-]*+ (?: = (?: "(?:[^"\\]|\\["\\])*+" | [^\s",;]++ ) )? )*+
    [ \t]*+ (?P<comma>,?)""",
    re.VERBOSE,
)


def content_digest(header: str | None) -> str | None:
    """The sha-256 of a `Content-Digest` (RFC 9530); other algorithms are passed over.

    Raises `InvalidRequest`.
    """
    if header is None:
        return None
    digests, at, more = {}, 0, True
    while more:
        if (match := DIGEST.match(header, at)) is None:
            raise _bad_digest()
        digests[match["key"]] = match["bytes"]
        at, more = match.end(), bool(match["comma"])
    if at != len(header):
        raise _bad_digest()
    return _decoded(digests["sha-256"]) if "sha-256" in digests else None


def _decoded(encoded: str) -> str:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise _bad_digest() from None
    if len(raw) != 32:
        raise _bad_digest()
    return f"sha256:{raw.hex()}"


def _bad_digest() -> InvalidRequest:
    return InvalidRequest(
        "Write it as sha-256=:<base64>: (RFC 9530).", param="headers.content-digest"
    )


def create_only(header: str | None) -> bool:
    """Whether `If-None-Match` says so. Raises `InvalidRequest`."""
    if header not in (None, "*"):
        raise InvalidRequest("Only * is known here.", param="headers.if-none-match")
    return header == "*"
