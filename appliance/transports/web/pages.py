"""How a page is made: templates, the headers every page has, refusals for people."""

import secrets
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from appliance.transports.callers import ROUTE_TENANT
from appliance.transports.control.route import HTML, Answer
from appliance.transports.problems import Problem
from appliance.transports.web.assets import Assets

# What comes from elsewhere and is fetched by the build; without it the terminal cannot be shown.
VENDORED = ("xterm.mjs", "xterm.css", "addon-fit.mjs", "addon-unicode11.mjs")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self'; "
    # Also the WebSocket: 'self' includes ws: and wss: of the same host (CSP level 3).
    "connect-src 'self'; "
    # No text can become markup or code, whoever assigns it: there is no policy that would make it.
    "require-trusted-types-for 'script'; trusted-types 'none'; "
    # What is sent, scripts send: a form that lost its script sends nothing anywhere.
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Mapping[str, str] = {
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Site:
    """The templates and assets of one folder, which is ``appliance/web``."""

    def __init__(self, folder: Traversable) -> None:
        self.assets = Assets.of((folder / "static", folder / "vendor"))
        templates = {
            file.name: file.read_text()
            for file in (folder / "templates").iterdir()
            if file.name.endswith(".html")
        }
        self._templates = Environment(
            loader=DictLoader(templates), autoescape=True, undefined=StrictUndefined
        )

    @property
    def has_terminal(self) -> bool:
        """Whether the build fetched what a terminal is drawn with."""
        return all(name in self.assets for name in VENDORED)

    def page(
        self,
        name: str,
        scope: Mapping[str, Any],
        values: Mapping[str, object] = MappingProxyType({}),
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The template ``name``; ``values`` become text in it, whatever they hold."""
        nonce = secrets.token_urlsafe(16)
        prefix = prefix_of(scope)
        html = self._templates.get_template(name).render(
            prefix=prefix, assets=f"{prefix}/assets/{self.assets.digest}", nonce=nonce, **values
        )
        policy = {"content-security-policy": _POLICY.format(nonce=nonce)}
        return Answer(
            html.encode(),
            media_type=HTML,
            status=status,
            headers={**_HEADERS, **policy, **(headers or {})},
        )


@cache
def site() -> Site:
    """This package's own, read at the first question: the command line never asks."""
    return Site(files("appliance") / "web")


def prefix_of(scope: Mapping[str, Any]) -> str:
    """What stands before our paths where a router chooses gateways by ``/t/<id>/``."""
    tenant: str | None = scope.get(ROUTE_TENANT)
    return "" if tenant is None else f"/t/{tenant}"


def refusal(problem: Problem, scope: Mapping[str, Any]) -> Answer:
    """A failure as people can read it; without a session, the page to sign in."""
    template = "sign_in.html" if problem.status is HTTPStatus.UNAUTHORIZED else "refused.html"
    return site().page(
        template,
        scope,
        {name: problem.members[name] for name in ("title", "detail", "request_id")},
        status=int(problem.status),
        headers=problem.headers,
    )
