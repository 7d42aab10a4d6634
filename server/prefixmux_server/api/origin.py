"""Keeps pages of other sites from using a visitor's browser to reach this server.

A browser says where a request comes from; a program says nothing and is served. Without this, any
page that the operator looks at could change what a server on loopback holds.
"""

from __future__ import annotations

from starlette.datastructures import Headers

from prefixmux_server.errors import Forbidden

READING = ("GET", "HEAD", "OPTIONS")
DEFAULT_PORT = {"http": ":80", "https": ":443"}


def refuse_cross_site(method: str, headers: Headers) -> None:
    """Raises `Forbidden` for a page of another origin, unless `method` only reads."""
    site = headers.get("sec-fetch-site")
    if method in READING or site == "same-origin":
        return
    if site == "cross-site" or not _same_origin(headers):
        raise Forbidden("A page of another site must not do this; call the server directly.")


def _same_origin(headers: Headers) -> bool:
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        scheme, _, authority = origin.lower().partition("://")
        port = DEFAULT_PORT.get(scheme, "")
        if not authority or authority.removesuffix(port) != host.removesuffix(port):
            return False
    return True
