"""Keeps pages of other sites from using a visitor's browser to reach this server.

A browser says where a request comes from; a program says nothing and is served. Without this, any
page that the operator looks at could change what a server on loopback holds.
"""

from __future__ import annotations

import ipaddress

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


def refuse_rebound(headers: Headers) -> None:
    """Raises `Forbidden` for a name that somebody else may have pointed at this machine.

    Where no key is asked for, a page could reach the server under a name of its own, and would
    then be of the same origin. Addresses and names without a dot are nobody else's.
    """
    name = _name(headers.get("host", "").lower())
    if "." not in name or name.endswith(".localhost") or _is_address(name):
        return
    raise Forbidden(
        "Without API keys the server is called by its address or as localhost: make a key, or"
        " start it with --allow-anonymous."
    )


def _name(host: str) -> str:
    """Without the port and the last dot."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_origin(headers: Headers) -> bool:
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        scheme, _, authority = origin.lower().partition("://")
        port = DEFAULT_PORT.get(scheme, "")
        if not authority or authority.removesuffix(port) != host.removesuffix(port):
            return False
    return True
