"""Which paths are the page's, and how a request there says its key.

The key's cookie is looked at below `/ui` only; the API wants its header.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from prefixmux_server.api.http.tenancy import bearer_key

ROOT = "/ui"
COOKIE = "prefixmux_key"
# Needs no key in its head: it brings one in its body.
SIGN_IN = ("POST", f"{ROOT}/sign-in")


def is_page(path: str) -> bool:
    """Whether a path is of the page or of what it calls."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def key_of(path: str, headers: Headers) -> str | None:
    """What the request says its key is: by the header or, below `/ui`, by the cookie."""
    return bearer_key(headers) or (_cookie(headers) if is_page(path) else None)


def _cookie(headers: Headers) -> str | None:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None
