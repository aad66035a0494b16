"""Routes that turn a ticket into a browser session."""

import re
from datetime import datetime
from urllib.parse import quote

from appliance.model.errors import InvalidRequest, MethodNotAllowed
from appliance.transports.callers import PLAIN_COOKIE, ROUTE_TENANT, SECURE_COOKIE
from appliance.transports.control.call import Call
from appliance.transports.control.pages import page
from appliance.transports.control.route import HTML, Answer, Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery, duration
from appliance.transports.schemas.tokens import LoginQuery, TicketCreate, TicketCreated

# A path of this gateway and nothing that a browser would read as another host:
# not "//host", not "/\host", none of the controls browsers drop before they look.
_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*", re.ASCII)


async def issue(call: Call[TicketCreate, NoQuery]) -> TicketCreated:
    body = call.body
    onward = "" if body.next is None else f"&next={quote(_own_path(body.next), safe='')}"
    ttl = None if body.ttl is None else duration(body.ttl, "ttl")
    ticket = await call.services.tickets.issue(call.caller, call.tenant, ttl=ttl)
    return TicketCreated(
        ticket=ticket.text,
        url=f"/login?ticket={quote(ticket.text, safe='')}{onward}",
        expires_at=ticket.expires_at,
    )


async def login(call: Call[NoBody, LoginQuery]) -> Answer:
    # A HEAD is somebody looking at the link, not using it: the ticket works once.
    if call.scope["method"] != "GET":
        raise MethodNotAllowed("/login answers GET", allow="GET, OPTIONS")
    onward = None if call.query.next is None else _own_path(call.query.next)
    session = await call.services.tickets.redeem(
        call.query.ticket,
        tenant=call.scope.get(ROUTE_TENANT),
        request_id=call.presented.request_id,
        ip=call.ip,
    )
    now = call.services.clock()
    cookie = _cookie(session.cookie, session.expires_at, now=now, secure=call.secure)
    headers = {"set-cookie": cookie, "referrer-policy": "no-referrer"}
    if onward is not None:
        return Answer(b"", media_type=HTML, status=303, headers={**headers, "location": onward})
    text = "<p>This browser is now logged in. You may close this page.</p>"
    return page("Logged in", text, headers=headers)


async def logout(call: Call[NoBody, NoQuery]) -> Answer:
    await call.services.tickets.end(call.caller)
    now = call.services.clock()
    return Answer(b"", headers={"set-cookie": _cookie("", now, now=now, secure=call.secure)})


def _own_path(text: str) -> str:
    if _OWN_PATH.fullmatch(text) is None:
        raise InvalidRequest.at("next", "is not a path of this gateway", "such as /chat")
    return text


def _cookie(value: str, expires_at: datetime, *, now: datetime, secure: bool) -> str:
    # Lax: a link from elsewhere may arrive logged in, a form from elsewhere may
    # not; and what changes anything is checked for its origin besides.
    seconds = max(0, int((expires_at - now).total_seconds()))
    name = SECURE_COOKIE if secure else PLAIN_COOKIE
    attributes = f"Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax"
    return f"{name}={value}; {attributes}" + ("; Secure" if secure else "")


ROUTES = (
    Route(
        name="tickets.issue",
        method="POST",
        path="/v1/tenants/{id}/tickets",
        who=Who.TENANT,
        summary="Issue a ticket that opens one browser session, once, within minutes",
        handler=issue,
        scope=None,
        body=TicketCreate,
        answer=TicketCreated,
        status=201,
    ),
    Route(
        name="tickets.login",
        method="GET",
        path="/login",
        who=Who.ANYONE,
        summary="Use a ticket: sets the session cookie, then shows a page or goes on to next",
        handler=login,
        query=LoginQuery,
        failures=(401,),
        produces=(HTML,),
    ),
    Route(
        name="tickets.logout",
        method="POST",
        path="/logout",
        who=Who.TENANT,
        summary="End this browser's session, and whatever it opened",
        handler=logout,
        scope=None,
        status=204,
        failures=(422,),
    ),
)
