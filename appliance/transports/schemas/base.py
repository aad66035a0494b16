"""What all requests and all answers have in common."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct

from appliance.model.durations import parse_duration
from appliance.model.errors import InvalidRequest


class Body(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request's body."""


class Query(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request's query string."""


class View(Struct, frozen=True, kw_only=True):
    """An answer, or a part of one."""


class NoBody(Body, frozen=True):
    """The request has no body."""


class NoQuery(Query, frozen=True):
    """The request has no query string."""


Duration = Annotated[
    str, Meta(max_length=32, description="Such as 30d, 12h, 10m or 1h30m.", examples=["30d"])
]
PageSize = Annotated[int, Meta(ge=1, le=1000)]
Cursor = Annotated[str, Meta(max_length=512)]

JsonObject = Annotated[dict[str, Any], Meta(description="A JSON object.")]


class FieldProblem(View, frozen=True):
    field: Annotated[str, Meta(description='A path such as quotas.tokens_per_day; "" is the body.')]
    reason: str
    remedy: str = ""


class ProblemDetails(View, frozen=True):
    """A failure, as RFC 9457 describes it."""

    type: Annotated[str, Meta(description="urn:openclawmu: and the code; never changes.")]
    title: str
    status: int
    detail: str
    code: str
    request_id: str = ""
    errors: Sequence[FieldProblem] = ()
    retry_after: int | None = None
    reference: str | None = None


def duration(text: str, field: str) -> timedelta:
    """Read a duration of a request, or say which field does not hold one."""
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise InvalidRequest.at(field, str(exc)) from exc
