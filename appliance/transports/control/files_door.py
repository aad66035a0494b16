"""Files of a workspace on their way in and out, in front of the framework.

The framework reads a body faster than a disk may take it and keeps what waits
in memory. Here each piece goes on before the next is asked for, in both
directions, and all of it is work of the tenant.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import trio

from appliance.log import log_context
from appliance.model.errors import MethodNotAllowed, TokenRejected
from appliance.services.workspace_contents import WorkspaceContents
from appliance.tenants.jobs import ClientLeft
from appliance.tenants.runtime import TenantRuntime
from appliance.transports import problems
from appliance.transports.bodies import ClientGone, Receive
from appliance.transports.callers import Presented, read_headers
from appliance.transports.control import workspace as routes
from appliance.transports.control.admission import Admission
from appliance.transports.control.collaborators import ControlServices
from appliance.transports.control.door import require_plain
from appliance.transports.control.file_answers import FileAnswer
from appliance.transports.control.file_requests import FileBody, FileRequest
from appliance.transports.control.route import Route
from appliance.transports.schemas.decoding import read_query

_PATH = re.compile(r"/v1/tenants/([^/]*)/agents/([^/]*)/files(/content)?")

Scope = dict[str, Any]
Endpoint = Callable[[Scope, Any, Any], Awaitable[None]]


class Tenants(Protocol):
    """``Supervisor``, as far as it is needed here."""

    async def runtime(self, tenant: str, /) -> TenantRuntime: ...


class FilesDoor:
    """Answers its own paths and hands everything else to ``framework``."""

    def __init__(
        self,
        services: ControlServices,
        *,
        tenants: Tenants,
        contents: WorkspaceContents,
        framework: Endpoint,
    ) -> None:
        self._services = services
        self._admission = Admission(services)
        self._tenants = tenants
        self._contents = contents
        self._framework = framework

    async def __call__(self, scope: Scope, receive: Receive, send: Any) -> None:
        match = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await self._framework(scope, receive, send)
            return
        presented = read_headers(scope["headers"])
        patience = self._services.config().server.body_timeout
        body = FileBody(receive, patience)
        answer = FileAnswer(scope, send, presented.request_id, patience=patience)
        found = [each for each in routes.ROUTES if each.path.endswith("/content") is bool(match[3])]
        try:
            route = _route(scope["method"], found)
            request = await self._admitted(route, scope, presented, body, match)
            answer.tenant = match[1]  # proven to be one: it labels what is counted
            with log_context(request_id=presented.request_id, tenant=answer.tenant):
                await request.answer(answer)
        except (ClientGone, ClientLeft, trio.TooSlowError):
            pass  # nobody reads the answer
        except _Options:
            await answer.options(found)
        except Exception as error:  # noqa: BLE001 - the edge: problem_of logs what nobody foresaw
            await self._refuse(answer, error, body)
        finally:
            self._note(scope, answer, found[0].path)

    async def _admitted(
        self,
        route: Route,
        scope: Scope,
        presented: Presented,
        body: FileBody,
        match: "re.Match[str]",
    ) -> FileRequest:
        require_plain(scope)
        caller = self._admission.admit(route, scope, presented, tenant=match[1])
        if caller is None:
            raise TokenRejected  # which the gate has done: the routes are a tenant's
        query = read_query(route.query, scope["query_string"])
        tenant = await self._tenants.runtime(match[1])
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        return FileRequest(route, self._contents, tenant, caller, match[2], query, headers, body)

    async def _refuse(self, answer: FileAnswer, error: Exception, body: FileBody) -> None:
        expected = problems.find_expected(error)
        if expected is not None:
            self._services.metrics.refused(expected.code)
        problem = problems.problem_of(error, request_id=answer.request_id)
        # An answer that has begun cannot become another: it ends before its
        # length, which every client takes for a failure.
        if not answer.has_begun:
            if answer.method == "PUT":
                await body.drain()
            with suppress(trio.TooSlowError):
                await answer.problem(problem)

    def _note(self, scope: Scope, answer: FileAnswer, path: str) -> None:
        self._services.metrics.observe(
            route=path,
            method=scope["method"],
            status=answer.status,
            seconds=answer.seconds,
            tenant=answer.tenant,
        )
        self._services.access_log.write(
            "request",
            tenant=answer.tenant,
            request_id=answer.request_id,
            method=scope["method"],
            path=scope["path"],
            status=answer.status,
            ms=round(answer.seconds * 1000, 2),
            bytes=answer.sent_bytes,
        )


class _Options(Exception):
    """Somebody asks what a path answers."""


def _route(method: str, found: list[Route]) -> Route:
    if method == "OPTIONS":
        raise _Options
    for route in found:
        if route.method == ("GET" if method == "HEAD" else method):
            return route
    allow = ", ".join([*(route.method for route in found), "HEAD", "OPTIONS"])
    raise MethodNotAllowed(f"this path answers {allow}", allow=allow)
