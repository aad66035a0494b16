"""From a request to a response: parse, authorise, decode, call the handler, render.

This is a transport edge: every failure of a handler becomes a problem here.
"""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, cast

import msgspec
import trio
from quart.wrappers import Request, Response
from werkzeug.exceptions import HTTPException

from appliance.log import log_context
from appliance.model.errors import InvalidRequest, NotFound, TokenRejected, Unavailable
from appliance.protocols.json_body import INLINE_BYTES, decode
from appliance.transports import problems
from appliance.transports.callers import (
    ACCEPTED_AT,
    REQUEST_ID_KEY,
    SAFE_METHODS,
    Presented,
    read_headers,
)
from appliance.transports.control.admission import Admission
from appliance.transports.control.call import Call
from appliance.transports.control.collaborators import ControlServices
from appliance.transports.control.route import Answer, Refusal, Route
from appliance.transports.schemas.base import Body, View
from appliance.transports.schemas.decoding import read_query, read_struct

log = logging.getLogger(__name__)

# A change that was begun is finished even if the client leaves: half of it
# would be worse than an answer nobody reads. Something that hangs is given up.
_CHANGE_SECONDS = 60.0
_LONGEST_PATH = 500  # characters of it in the log
_ROUTE = "openclaw.control_route"
_TENANT = "openclaw.control_tenant"


class ControlDoor:
    def __init__(self, services: ControlServices, *, body_limit: int) -> None:
        self._services = services
        self._body_limit = body_limit
        self._admission = Admission(services)

    async def answer(
        self, route: Route, request: Request, parameters: Mapping[str, str]
    ) -> Response:
        """Handle one request; never raises but for cancellation."""
        scope = _scope(request)
        presented = read_headers(scope["headers"])
        scope[REQUEST_ID_KEY] = presented.request_id
        scope[_ROUTE] = route.path
        try:
            answer = await self._handle(route, request, presented, parameters)
        except Exception as error:  # noqa: BLE001 - the edge: problem_of logs what nobody foresaw
            return self.refuse(request, error, shown=route.refusal)
        return _response(request, answer, answer.status or route.status)

    def refuse(
        self, request: Request, error: BaseException, *, shown: Refusal | None = None
    ) -> Response:
        """Render a failure, of a handler or of the framework before it found one."""
        if isinstance(error, HTTPException):
            error = (
                problems.from_http_exception(
                    error, path=request.path, allow=allow_of(error), body_limit=self._body_limit
                )
                or error
            )
        expected = problems.find_expected(error)
        if expected is not None:
            self._services.metrics.refused(expected.code)
        problem = problems.problem_of(error, request_id=request_id_of(_scope(request)))
        if shown is not None:
            return _response(request, shown(problem, _scope(request)), int(problem.status))
        answer = Answer(
            problem.encode(), media_type=problems.MEDIA_TYPE, headers=dict(problem.headers)
        )
        return _response(request, answer, int(problem.status))

    def finish(self, request: Request, response: Response) -> Response:
        """Add what every response carries; count and log the request."""
        scope = _scope(request)
        seconds = perf_counter() - scope[ACCEPTED_AT]
        request_id = request_id_of(scope)
        response.headers["x-request-id"] = request_id
        response.headers["x-openclaw-overhead-ms"] = f"{seconds * 1000:.2f}"
        tenant: str | None = scope.get(_TENANT)
        self._services.metrics.observe(
            route=scope.get(_ROUTE, "unmatched"),
            method=request.method,
            status=response.status_code,
            seconds=seconds,
            tenant=tenant,
        )
        self._services.access_log.write(
            "request",
            tenant=tenant,
            request_id=request_id,
            method=request.method,
            path=request.path[:_LONGEST_PATH],
            status=response.status_code,
            ms=round(seconds * 1000, 2),
        )
        return response

    async def _handle(
        self, route: Route, request: Request, presented: Presented, parameters: Mapping[str, str]
    ) -> Answer:
        scope = _scope(request)
        require_plain(scope)
        tenant = parameters.get("id", "")
        caller = self._admission.admit(route, scope, presented, tenant=tenant)
        scope[_TENANT] = tenant or (None if caller is None else caller.tenant)
        body = await _read_body(route, request)
        if caller is not None and not self._services.access.is_live(caller):
            raise TokenRejected  # revoked while the body was on its way
        call = Call(
            services=self._services,
            identity=caller,
            presented=presented,
            ip=self._services.peers().client_ip(scope, presented),
            secure=self._services.peers().is_secure(scope, presented),
            tenant=tenant,
            path=parameters,
            query=read_query(route.query, scope["query_string"]),
            body=body,
            headers={name.lower(): value for name, value in request.headers.items()},
            scope=scope,
        )
        with log_context(request_id=presented.request_id, tenant=scope[_TENANT]):
            return _as_answer(await _run(route, call))


def require_plain(scope: Mapping[str, Any]) -> None:
    """Refuse a second spelling of a path, which a proxy's rules would not recognise.

    The framework drops slashes in front and gets its path decoded: to it,
    ``//internal/…`` and ``/internal%2f…`` are what ``/internal/…`` is.
    """
    raw: bytes = scope.get("raw_path") or b""
    if scope["path"].startswith("//") or b"%2f" in raw.lower():
        raise NotFound("there is nothing at this path; GET /docs lists what there is")


async def _run(route: Route, call: Call[Any, Any]) -> View | Answer | None:
    if route.handler is None:
        raise LookupError(f"{route.name} is answered in front of the framework")
    if route.method in SAFE_METHODS:
        return await route.handler(call)
    with trio.move_on_after(_CHANGE_SECONDS, shield=True):
        return await route.handler(call)
    log.error("a change was given up", extra={"route": route.name, "tenant": call.tenant})
    raise Unavailable("this took too long and was given up; look whether it has happened")


async def _read_body(route: Route, request: Request) -> Any:
    if not route.takes_body:
        return route.body()
    raw: bytes = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if not raw.strip() and issubclass(route.body, Body):
        return read_struct(route.body, {})
    if len(raw) > INLINE_BYTES:
        value = await trio.to_thread.run_sync(decode, raw)
    else:
        value = decode(raw)
    return read_struct(route.body, value) if issubclass(route.body, Body) else _object(value)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest.at("", "the body must be a JSON object")
    return value


def _as_answer(result: View | Answer | None) -> Answer:
    if isinstance(result, Answer):
        return result
    return Answer(b"" if result is None else msgspec.json.encode(result))


def _response(request: Request, answer: Answer, status: int) -> Response:
    response = Response(answer.content, status=status, content_type=answer.media_type)
    response.headers["x-content-type-options"] = "nosniff"
    # Answers hold tokens, budgets and audit lines: nothing between us and the
    # caller keeps a copy.
    response.headers["cache-control"] = "no-store"
    for name, value in answer.headers.items():
        response.headers[name] = value
    if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        response.headers.pop("content-type", None)
        response.headers.pop("content-length", None)
    elif request.method == "HEAD":
        response.set_data(b"")
        response.headers["content-length"] = str(len(answer.content))
    return response


def allow_of(error: HTTPException) -> str:
    """What a 405 says the path does answer."""
    methods: Iterable[str] = getattr(error, "valid_methods", None) or ()
    return ", ".join(sorted({*methods, "OPTIONS"}))


def request_id_of(scope: dict[str, Any]) -> str:
    """The id of the request, made up at the first question and kept."""
    if REQUEST_ID_KEY not in scope:
        scope[REQUEST_ID_KEY] = read_headers(scope["headers"]).request_id
    request_id: str = scope[REQUEST_ID_KEY]
    return request_id


def _scope(request: Request) -> dict[str, Any]:
    return cast("dict[str, Any]", request.scope)
