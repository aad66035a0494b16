"""Every route there is. A route that is not in here does not exist."""

from appliance.transports.control import (
    audit,
    credentials,
    front,
    internal,
    quotas,
    site,
    status,
    tenant_config,
    tenants,
    terminals,
    tickets,
    tokens,
    usage,
    workspace,
)
from appliance.transports.control.documents import with_documents
from appliance.transports.control.route import Route
from appliance.transports.web import routes as web

ROUTES: tuple[Route, ...] = with_documents(
    (
        *front.ROUTES,
        *tenants.ROUTES,
        *tokens.ROUTES,
        *tickets.ROUTES,
        *tenant_config.ROUTES,
        *quotas.ROUTES,
        *usage.ROUTES,
        *terminals.ROUTES,
        *workspace.ROUTES,
        *credentials.ROUTES,
        *audit.ROUTES,
        *status.ROUTES,
        *internal.ROUTES,
        *web.ROUTES,
        *site.ROUTES,
    )
)
