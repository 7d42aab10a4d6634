"""A request as it goes over the wire, written by hand: a client library would take the cores that
the server needs."""

from __future__ import annotations


def generate(body: bytes, key: str | None = None) -> bytes:
    """`POST /generate` on a connection of its own."""
    authorization = "" if key is None else f"authorization: Bearer {key}\r\n"
    head = (
        f"POST /generate HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n{authorization}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
