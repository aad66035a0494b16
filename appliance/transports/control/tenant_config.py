"""Routes of a tenant's configuration overlay."""

from typing import Any

from appliance.model.errors import PreconditionFailed
from appliance.model.tokens import Scope
from appliance.services.tenants import ConfigDocument
from appliance.transports.control.call import Call
from appliance.transports.control.route import Answer, Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.tenant_config import ConfigView

_PATH = "/v1/tenants/{id}/config"


async def get(call: Call[NoBody, NoQuery]) -> Answer:
    document = await call.services.tenants.config(call.caller, call.tenant)
    if _names(call.header("if-none-match"), document.etag):
        return Answer(b"", status=304, headers={"etag": _quoted(document.etag)})
    return _answer(document)


async def put(call: Call[dict[str, Any], NoQuery]) -> Answer:
    document = await call.services.tenants.put_config(
        call.caller, call.tenant, call.body, if_match=_wanted_version(call.header("if-match"))
    )
    return _answer(document)


async def patch(call: Call[dict[str, Any], NoQuery]) -> Answer:
    document = await call.services.tenants.patch_config(
        call.caller, call.tenant, call.body, if_match=_wanted_version(call.header("if-match"))
    )
    return _answer(document)


def _answer(document: ConfigDocument) -> Answer:
    view = ConfigView(
        overlay=document.overlay, effective=document.effective_public, etag=document.etag
    )
    return Answer.of(view, etag=_quoted(document.etag))


def _quoted(etag: str) -> str:
    return f'"{etag}"'


def _tags(header: str) -> list[str]:
    return [tag.strip() for tag in header.split(",") if tag.strip()]


def _names(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match names ``etag`` (weak comparison, RFC 9110 §8.8.3.2)."""
    tags = _tags(header or "")
    return "*" in tags or any(tag.removeprefix("W/") == _quoted(etag) for tag in tags)


def _wanted_version(header: str | None) -> str | None:
    """The bare version an If-Match asks for; None if any will do.

    ``*`` asks only that there is one, and a tenant always has a configuration.
    """
    tags = _tags(header or "")
    if not tags or "*" in tags:
        return None
    # If-Match compares strongly, so a weak tag matches nothing. Of several,
    # which one a client last read is its own to know.
    if len(tags) > 1 or tags[0].startswith("W/"):
        raise PreconditionFailed("If-Match takes the one etag that was read last")
    return tags[0].strip('"')


ROUTES = (
    Route(
        name="config.get",
        method="GET",
        path=_PATH,
        who=Who.TENANT,
        summary="Show the tenant's overlay and its effect",
        handler=get,
        answer=ConfigView,
    ),
    Route(
        name="config.put",
        method="PUT",
        path=_PATH,
        who=Who.TENANT,
        summary="Replace the overlay",
        handler=put,
        scope=Scope.MANAGE,
        body=dict[str, Any],
        answer=ConfigView,
        failures=(412,),
    ),
    Route(
        name="config.patch",
        method="PATCH",
        path=_PATH,
        who=Who.TENANT,
        summary="Change the overlay by a JSON merge patch (RFC 7396)",
        handler=patch,
        scope=Scope.MANAGE,
        body=dict[str, Any],
        answer=ConfigView,
        failures=(412,),
    ),
)
