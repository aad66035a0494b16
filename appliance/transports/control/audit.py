"""The route of the audit log: all of it for an admin, its own lines for a tenant."""

from appliance.model.errors import Forbidden
from appliance.transports.control.call import Call
from appliance.transports.control.route import Route, Who
from appliance.transports.schemas.audit import AuditLine, AuditPage, AuditQuery
from appliance.transports.schemas.base import NoBody


async def tail(call: Call[NoBody, AuditQuery]) -> AuditPage:
    query, own = call.query, call.caller.tenant
    if own is not None and query.tenant not in {None, own}:
        raise Forbidden("the audit lines of another tenant are not yours to read")
    entries = await call.services.audit.tail(
        call.caller, limit=query.limit, tenant=own or query.tenant, before=query.before
    )
    if own is not None:
        # An id may be given again: its lines from before are somebody else's.
        began = (await call.services.tenants.get(call.caller, own)).created_at
        entries = [entry for entry in entries if entry.ts >= began]
    # A tenant is told no numbers, so it has its newest lines and no next page.
    more = len(entries) == query.limit and entries[-1].seq > 1
    return AuditPage(
        entries=[AuditLine.of(entry) for entry in entries],
        next_before=entries[-1].seq if more else None,
    )


ROUTES = (
    Route(
        name="audit.tail",
        method="GET",
        path="/v1/audit",
        who=Who.TENANT,
        summary="Read the audit log, newest first; a tenant sees its own lines",
        handler=tail,
        query=AuditQuery,
        answer=AuditPage,
    ),
)
