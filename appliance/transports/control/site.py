"""Routes about the gateway itself: health, readiness, metrics, and the documents."""

from appliance.transports.control.call import Call
from appliance.transports.control.route import Answer, Route, Who
from appliance.transports.schemas.base import NoBody, NoQuery
from appliance.transports.schemas.health import Alive, Ready

_ALIVE = b'{"status":"ok"}'
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


async def healthz(_call: Call[NoBody, NoQuery]) -> Answer:
    return Answer(_ALIVE)


async def readyz(call: Call[NoBody, NoQuery]) -> Answer:
    now = call.services.readiness()
    view = Ready(
        status="ready" if now.ready else "not ready",
        reasons=now.reasons,
        warnings=now.warnings,
        loop_lag_ms=now.loop_lag_ms,
    )
    answer = Answer.of(view)
    return answer if now.ready else Answer(answer.content, status=503)


async def metrics(call: Call[NoBody, NoQuery]) -> Answer:
    content, media_type = call.services.metrics.render(call.header("accept") or "")
    return Answer(content, media_type=media_type)


ROUTES = (
    Route(
        name="site.healthz",
        method="GET",
        path="/healthz",
        who=Who.ANYONE,
        summary="Whether the process answers at all",
        handler=healthz,
        answer=Alive,
    ),
    Route(
        name="site.readyz",
        method="GET",
        path="/readyz",
        who=Who.ANYONE,
        summary="Whether new work would go well, and why not",
        handler=readyz,
        answer=Ready,
        failures=(503,),
    ),
    Route(
        name="site.metrics",
        method="GET",
        path="/metrics",
        who=Who.LOOPBACK,
        summary="Everything that is counted, for Prometheus",
        handler=metrics,
        produces=(PROMETHEUS, OPENMETRICS),
    ),
)
