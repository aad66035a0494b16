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
    tickets,
    tokens,
    usage,
)
from appliance.transports.control.documents import with_documents
from appliance.transports.control.route import Route

ROUTES: tuple[Route, ...] = with_documents(
    (
        *front.ROUTES,
        *tenants.ROUTES,
        *tokens.ROUTES,
        *tickets.ROUTES,
        *tenant_config.ROUTES,
        *quotas.ROUTES,
        *usage.ROUTES,
        *credentials.ROUTES,
        *audit.ROUTES,
        *status.ROUTES,
        *internal.ROUTES,
        *site.ROUTES,
    )
)
