"""``/openapi.json``: the table of routes as OpenAPI 3.1. Pure; knows no framework."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, get_origin

import msgspec

from appliance.transports.callers import PLAIN_COOKIE
from appliance.transports.control.route import JSON, Form, Route, Who
from appliance.transports.problems import MEDIA_TYPE as PROBLEM_JSON
from appliance.transports.schemas.apis import AnthropicError, OpenAiError, ToolError
from appliance.transports.schemas.base import NoQuery, ProblemDetails, View
from appliance.transports.schemas.tenants import TenantId

_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_HEADERS: dict[str, Any] = {
    "x-request-id": {
        "description": "The request's id in logs and audit; the caller's own if it sent one.",
        "schema": {"type": "string"},
    },
    "x-openclaw-overhead-ms": {
        "description": "Milliseconds this gateway added.",
        "schema": {"type": "number"},
    },
}
_FORMS: dict[Form, type[View]] = {
    Form.PROBLEM: ProblemDetails,
    Form.OPENAI: OpenAiError,
    Form.ANTHROPIC: AnthropicError,
    Form.OPENCLAW: ToolError,
}
_SECURITY: dict[Who, list[dict[str, list[str]]]] = {
    Who.ANYONE: [],
    Who.TENANT: [{"token": []}, {"session": []}],
    Who.ADMIN: [{"token": []}],
    Who.CONTROL_PLANE: [{"token": []}, {"controlPlane": []}],
    Who.LOOPBACK: [{}, {"token": []}],
}


def document(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """The OpenAPI document of ``routes``."""
    listed = tuple(routes)
    schemas = _Schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for route in listed:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenClawMU",
            "version": version,
            "description": (
                "Every route of one tenant also answers below /t/{tenant}/. "
                "Failures are problem details (RFC 9457), but for the routes that speak "
                "somebody else's API: those use its form."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": _HEADERS,
            "responses": {form.value: _failure(form, schemas) for form in Form},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "tenant:<id>:<secret>, or an admin key admin:<secret>",
                },
                "session": {"type": "apiKey", "in": "cookie", "name": PLAIN_COOKIE},
                "controlPlane": {"type": "apiKey", "in": "header", "name": "X-Control-Plane-Token"},
            },
        },
    }


def statuses(route: Route) -> tuple[int, ...]:
    """Every status by which ``route`` may fail, sorted."""
    found = {500, *route.failures}
    if route.form is not Form.PROBLEM:
        return tuple(sorted(found | _of_raw_routes(route)))
    if route.who is not Who.ANYONE:
        found |= {401, 403}
    if route.is_of_one_tenant:
        found.add(421)
    if _PARAMETER.search(route.path):
        found.add(404)
    if route.takes_body:
        found |= {408, 413, 422}
    if route.query is not NoQuery:
        found.add(422)
    if route.method not in {"GET", "HEAD"}:
        found.add(503)
    return tuple(sorted(found))


def _of_raw_routes(route: Route) -> set[int]:
    """What the doors in front of the framework may answer with: for them a bad field is a 400."""
    found = {400, 401, 403, 409, 421, 429, 503}
    if _PARAMETER.search(route.path):
        found.add(404)
    if route.takes_body:
        found |= {404, 408, 413}
    return found


class _Schemas:
    """JSON Schema of every struct in the table, from the annotations that also validate."""

    def __init__(self, routes: Sequence[Route]) -> None:
        types: list[Any] = [TenantId, *_FORMS.values()]
        for route in routes:
            types += [each for each in (route.body, route.query, route.answer, *route.also) if each]
        unique = list(dict.fromkeys(types))
        found, components = msgspec.json.schema_components(unique, ref_template=_REFERENCE)
        self._of = dict(zip(unique, found, strict=True))
        # A query is a list of parameters in OpenAPI, not a schema.
        queries = {route.query for route in routes}
        self._queries = {query: components.pop(query.__name__) for query in queries}
        self.components = components

    def of(self, kind: Any) -> dict[str, Any]:
        return dict(self._of[kind])

    def parameters(self, route: Route) -> list[dict[str, Any]]:
        query = self._queries[route.query]
        required = query.get("required", ())
        in_path = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": self.of(TenantId) if name == "id" else {"type": "string"},
            }
            for name in _PARAMETER.findall(route.path)
        ]
        in_query = [
            {"name": name, "in": "query", "required": name in required, "schema": _stated(schema)}
            for name, schema in query.get("properties", {}).items()
        ]
        return in_path + in_query


def _stated(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema: null is how it looks to us when nobody named it."""
    named = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return dict(named[0]) if len(named) == 1 else schema


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _who(route),
        "tags": [route.name.partition(".")[0]],
        "security": _SECURITY[route.who],
        "responses": {str(route.status): _success(route, schemas)},
    }
    if parameters := schemas.parameters(route):
        operation["parameters"] = parameters
    if route.takes_body:
        schema = {"type": "object"} if get_origin(route.body) else schemas.of(route.body)
        operation["requestBody"] = {"content": {JSON: {"schema": schema}}}
    if route.uploads:
        file = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"content": {"application/octet-stream": file}}
    for status in statuses(route):
        operation["responses"].setdefault(
            str(status), {"$ref": f"#/components/responses/{route.form}"}
        )
    return operation


def _who(route: Route) -> str:
    if route.who is not Who.TENANT or route.scope is None:
        return f"Who may: {route.who.value}."
    return f"Who may: {route.who.value}. A tenant's token needs the scope {route.scope.value}."


def _success(route: Route, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": HTTPStatus(route.status).phrase,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS},
    }
    answers = [schemas.of(each) for each in (route.answer, *route.also) if each]
    if route.status != HTTPStatus.NO_CONTENT:
        # A JSON answer without a struct is an object of the API it belongs to.
        schema = {"anyOf": answers} if len(answers) > 1 else next(iter(answers), {"type": "object"})
        response["content"] = {
            media_type: {"schema": schema if media_type == JSON else {"type": "string"}}
            for media_type in route.produces
        }
    return response


def _failure(form: Form, schemas: _Schemas) -> dict[str, Any]:
    media_type = PROBLEM_JSON if form is Form.PROBLEM else JSON
    return {
        "description": "What went wrong, and what to do about it",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS},
        "content": {media_type: {"schema": schemas.of(_FORMS[form])}},
    }
