"""The documents made from the table of routes: ``/openapi.json`` and ``/docs``."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

import msgspec

from appliance import __version__
from appliance.transports.control.call import Call
from appliance.transports.control.pages import page
from appliance.transports.control.route import HTML, JSON, Answer, Route, Who
from appliance.transports.openapi import document, statuses
from appliance.transports.schemas.base import NoBody, NoQuery


def with_documents(routes: Sequence[Route]) -> tuple[Route, ...]:
    """``routes`` and, behind them, the two that describe them all."""
    made: list[Answer] = []

    def render() -> list[Answer]:
        if not made:  # at the first question: the command line never asks
            made.append(Answer(msgspec.json.encode(document(whole, version=__version__))))
            made.append(page(f"API of OpenClawMU {__version__}", _listing(whole)))
        return made

    async def openapi(_call: Call[NoBody, NoQuery]) -> Answer:
        return render()[0]

    async def docs(_call: Call[NoBody, NoQuery]) -> Answer:
        return render()[1]

    whole = (
        *routes,
        Route(
            name="site.openapi",
            method="GET",
            path="/openapi.json",
            who=Who.ANYONE,
            summary="This interface as an OpenAPI 3.1 document",
            handler=openapi,
            produces=(JSON,),
        ),
        Route(
            name="site.docs",
            method="GET",
            path="/docs",
            who=Who.ANYONE,
            summary="This interface as a page",
            handler=docs,
            produces=(HTML,),
        ),
    )
    return whole


def _listing(routes: Sequence[Route]) -> str:
    parts = [
        "<p>Every route of one tenant also answers below <code>/t/&lt;id&gt;/</code>. Failures are "
        "problem details (RFC 9457), or OpenAI's error object on its routes. The same as a "
        'document for machines: <a href="/openapi.json">openapi.json</a>.</p>'
    ]
    for noun, group in groupby(routes, key=lambda route: route.name.partition(".")[0]):
        rows = "\n".join(_row(route) for route in group)
        parts.append(
            f"<h2>{escape(noun)}</h2>\n<table>\n<thead><tr><th>route</th><th>does</th>"
            f"<th>who may</th><th>fails with</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
        )
    return "\n".join(parts)


def _row(route: Route) -> str:
    failures = " ".join(str(status) for status in statuses(route))
    return (
        f"<tr><td><code>{escape(route.method)} {escape(route.path)}</code></td>"
        f"<td>{escape(route.summary)}</td><td>{escape(route.who.value)}</td>"
        f'<td class="quiet">{failures}</td></tr>'
    )
