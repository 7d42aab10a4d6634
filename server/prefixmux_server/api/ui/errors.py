"""What went wrong, as a page, where a browser asked for one; without a key, the way to sign in."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from prefixmux_server.api.ui.identity import ROOT, SIGN_IN, is_page
from prefixmux_server.api.ui.rendering import page
from prefixmux_server.errors import PrefixmuxServerError, Unauthorized


def speaks(scope: Scope) -> bool:
    """Scripts are answered as the API answers."""
    path: str = scope["path"]
    return (
        is_page(path)
        and not path.startswith((f"{ROOT}/api/", f"{ROOT}/static/"))
        and "text/html" in Headers(scope=scope).get("accept", "")
    )


def response(
    error: PrefixmuxServerError, request_id: str, headers: Mapping[str, str], scope: Scope
) -> Response:
    """With the status and the headers that the error has everywhere."""
    if isinstance(error, Unauthorized):
        wrong = (scope["method"], scope["path"]) == SIGN_IN
        again = not wrong and _by_link(scope)
        answer = page(scope, "sign_in.html", error.http_status, wrong=wrong, again=again)
    else:
        title = HTTPStatus(error.http_status).phrase
        answer = page(
            scope, "error.html", error.http_status, error=error, title=title, request_id=request_id
        )
    answer.headers.update(headers)
    return answer


def _by_link(scope: Scope) -> bool:
    """Followed from another site, where the browser keeps the cookie back. What the page asks for
    itself is of its own site: it tries once more, and reading changes nothing."""
    return Headers(scope=scope).get("sec-fetch-site") == "cross-site"
