"""Templates to responses: what surrounds every page, and the headers that each is sent with.

Autoescaped: what tenants wrote is text wherever it stands.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse
from starlette.types import Scope

from prefixmux_server.api.services import Services
from prefixmux_server.api.ui.figures import as_json, count, moment, size
from prefixmux_server.service.tenants.tenant import Tenant

PACKAGE = "prefixmux_server.api.ui"
STYLE = "app.css"
# Nothing from any other host, nothing inline, in no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src {style}; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not `no-referrer`: forms would then say that they come from nowhere.
    "referrer-policy": "same-origin",
}


@dataclass(frozen=True)
class Shell:
    """What surrounds a page: whose it is, what its key may do, and how the engine is."""

    tenant: Tenant
    model: str | None
    health: str
    healthy: bool
    draining: bool

    @property
    def state(self) -> str:
        return "draining" if self.draining else self.health


def shell_of(scope: Scope) -> Shell | None:
    """None for a request that nobody signed."""
    tenant: Tenant | None = scope["state"]["tenant"]
    if tenant is None:
        return None
    services: Services = scope["app"].state.services
    ready, health = services.engine.ready, services.engine.health
    draining = services.lifecycle.draining
    return Shell(
        tenant=tenant,
        model=None if ready is None else ready.model.id,
        health=health.reason,
        healthy=health.ok and not draining,
        draining=draining,
    )


def page(scope: Scope, template: str, status: int = 200, **about: object) -> HTMLResponse:
    """Without a key nothing else can be fetched: such a page carries its style in itself."""
    shell = shell_of(scope)
    css = _style() if shell is None else None
    html = _environment().get_template(template).render(shell=shell, css=css, **about)
    source = "'self'" if css is None else f"'sha256-{_digest(css)}'"
    headers = {**HEADERS, "content-security-policy": POLICY.format(style=source)}
    return HTMLResponse(html, status, headers)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": size, "moment": moment, "count": count, "json": as_json}
    return made


@cache
def _style() -> Markup:
    return Markup(files(PACKAGE).joinpath("static", STYLE).read_text("utf-8"))


def _digest(css: Markup) -> str:
    return base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
