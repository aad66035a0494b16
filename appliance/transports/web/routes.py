"""Routes of the pages and of the files they load."""

from appliance.model.errors import NotFound
from appliance.model.tokens import Scope
from appliance.transports.control.call import Call
from appliance.transports.control.route import HTML, Answer, Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.web.pages import refusal, site

_FOR_EVER = "public, max-age=31536000, immutable"


async def terminal(call: Call[NoBody, NoQuery]) -> Answer:
    return _page("terminal.html", call, tenant=call.caller.require_tenant())


async def replay(call: Call[NoBody, NoQuery]) -> Answer:
    tenant = call.caller.require_tenant()
    return _page("replay.html", call, tenant=tenant, recording=call.path["recording"])


async def support(call: Call[NoBody, NoQuery]) -> Answer:
    return _page("support.html", call)


async def asset(call: Call[NoBody, NoQuery]) -> Answer:
    found = site().assets.find(call.path["digest"], call.path["name"])
    if found is None:
        raise NotFound("there is no such file in this release; load the page again")
    headers = {
        "cache-control": _FOR_EVER,
        "cross-origin-resource-policy": "same-origin",
        "vary": "accept-encoding",
    }
    if found.compressed is not None and "gzip" in (call.header("accept-encoding") or ""):
        headers["content-encoding"] = "gzip"
        return Answer(found.compressed, media_type=found.media_type, headers=headers)
    return Answer(found.content, media_type=found.media_type, headers=headers)


def _page(name: str, call: Call[NoBody, NoQuery], **values: str) -> Answer:
    if not site().has_terminal:
        return site().page("not_built.html", call.scope)
    return site().page(name, call.scope, values)


ROUTES = (
    Route(
        name="web.terminal",
        method="GET",
        path="/terminal",
        who=Who.TENANT,
        summary="The page with the tenant's terminals, for a browser that has a session",
        handler=terminal,
        scope=Scope.TERMINAL,
        produces=(HTML,),
        refusal=refusal,
    ),
    Route(
        name="web.replay",
        method="GET",
        path="/terminal/replay/{recording}",
        who=Who.TENANT,
        summary="The page that plays a recording of a terminal",
        handler=replay,
        scope=None,  # what it plays is asked for by its script, and refused there
        produces=(HTML,),
        refusal=refusal,
    ),
    Route(
        name="web.support",
        method="GET",
        path="/terminal/support",
        who=Who.ANYONE,
        summary="The page by which the operator asks to see a tenant's terminal",
        handler=support,
        produces=(HTML,),
        refusal=refusal,
    ),
    Route(
        name="web.asset",
        method="GET",
        path="/assets/{digest}/{name}",
        who=Who.ANYONE,
        summary="A file that pages load; its address changes with the release",
        handler=asset,
        failures=(404,),
        produces=("text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/svg+xml"),
    ),
)
