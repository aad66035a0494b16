"""Builds the Quart-Trio application of the control plane from its table of routes."""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from time import perf_counter
from typing import Any

from quart import request
from quart.globals import request_ctx
from quart.wrappers import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from appliance.transports.callers import ACCEPTED_AT
from appliance.transports.control.collaborators import ControlServices
from appliance.transports.control.door import ControlDoor
from appliance.transports.control.route import Route
from appliance.transports.control.table import ROUTES

# What a reader that stops reading may hold on to: its one answer, this long.
_RESPONSE_SECONDS = 120
_NOT_HERE = 1008  # policy violation; before the handshake the server makes it a 403


class ControlApp(QuartTrio):
    """Quart-Trio, less what it would answer in HTML or by itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _NOT_HERE})
            return
        # The dispatcher in front has noted when the request arrived; alone, it is now.
        scope.setdefault(ACCEPTED_AT, perf_counter())
        await super().__call__(scope, receive, send)

    async def make_default_options_response(self) -> Response:
        adapter = request_ctx.url_adapter
        methods = () if adapter is None else adapter.allowed_methods()
        allow = ", ".join(sorted({*methods, "OPTIONS"}))
        response = Response(b"", status=HTTPStatus.NO_CONTENT, headers={"allow": allow})
        del response.headers["content-type"], response.headers["content-length"]
        return response


def build_app(services: ControlServices, *, routes: Iterable[Route] = ROUTES) -> ControlApp:
    """Return the ASGI application; everything it needs is in ``services``.

    Limits of size and time are read once: changing them takes a restart.
    """
    server = services.config().server
    app = ControlApp("appliance", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = server.max_control_body_bytes
    app.config["BODY_TIMEOUT"] = server.body_timeout
    app.config["RESPONSE_TIMEOUT"] = _RESPONSE_SECONDS
    # One path is one resource: no redirect to the spelling somebody meant.
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    door = ControlDoor(services, body_limit=server.max_control_body_bytes)

    async def refuse(error: Exception) -> Response:
        return door.refuse(request, error)

    async def finish(response: Response) -> Response:
        return door.finish(request, response)

    app.register_error_handler(HTTPException, refuse)
    app.register_error_handler(Exception, refuse)
    app.after_request(finish)
    for route in routes:
        if route.handler is not None:
            app.add_url_rule(route.rule, route.name, _view(door, route), methods=[route.method])
    return app


def _view(door: ControlDoor, route: Route) -> Callable[..., Awaitable[Response]]:
    async def view(**parameters: str) -> Response:
        return await door.answer(route, request, parameters)

    return view
