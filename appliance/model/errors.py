"""Failures that a caller can cause or must be told about.

Everything else (a bug, a broken invariant) stays an ordinary exception: it is
logged with its traceback at the edge, and the caller learns only a reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from appliance.model.attempts import Trail


class Kind(Enum):
    """What a caller can do about a failure. Each edge maps this to its numbers once."""

    INVALID = "invalid"  # change the request
    UNAUTHENTICATED = "unauthenticated"  # present a valid token
    FORBIDDEN = "forbidden"  # ask for more rights
    MISSING = "missing"  # name something that exists
    CONFLICT = "conflict"  # read again, then retry
    STALE = "stale"  # an If-Match that no longer matches
    TOO_LARGE = "too-large"  # send less
    MISDIRECTED = "misdirected"  # ask the gateway that holds this tenant
    LIMITED = "limited"  # wait
    BAD_UPSTREAM = "bad-upstream"  # the provider answered nonsense or an error
    UPSTREAM_SLOW = "upstream-slow"  # the provider did not answer in time
    UNAVAILABLE = "unavailable"  # retry later; not the caller's doing


class Fault(Enum):
    """What is wrong with a field, for APIs that have codes for it."""

    VALUE = "value"  # it is none of those allowed
    MISSING = "missing"
    UNSUPPORTED = "unsupported"  # this field, or what it asks for, is not taken here


MISSING = "is missing"  # the one reason that says so


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request: where, why, and how to put it right."""

    field: str  # a path such as ``quotas.tokens_per_day``; "" is the whole body
    reason: str
    remedy: str = ""
    fault: Fault = Fault.VALUE


class ApplianceError(Exception):
    """An expected failure whose text is safe to show to whoever caused it.

    ``code`` is public API: clients match on it, so it never changes once
    released. ``detail`` is for people and may be reworded. ``retry_after`` is
    in seconds, None where waiting alone does not help. ``waited`` are the seconds
    until it came that were others': of providers, and of what tools do.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Kind]
    waited: float = 0.0

    def __init__(
        self,
        detail: str,
        *,
        fields: Sequence[FieldError] = (),
        retry_after: float | None = None,
        **facts: str | int,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)
        self.retry_after = retry_after
        self.facts = facts


class InvalidRequest(ApplianceError):
    code = "invalid-request"
    title = "The request is not valid"
    kind = Kind.INVALID

    @classmethod
    def at(
        cls, field: str, reason: str, remedy: str = "", *, fault: Fault = Fault.VALUE
    ) -> "InvalidRequest":
        """The common case: one field, one reason."""
        detail = f"{field}: {reason}" if field else reason
        if remedy:
            detail = f"{detail}; {remedy}"
        if reason == MISSING:
            fault = Fault.MISSING
        return cls(detail, fields=[FieldError(field, reason, remedy, fault)])


class ConfigInvalid(InvalidRequest):
    code = "config-invalid"
    title = "The configuration is not valid"


class ContextTooLong(InvalidRequest):
    code = "context-length-exceeded"
    title = "The conversation does not fit the model's context"


class TokenRejected(ApplianceError):
    """One answer for every reason, so that nobody can search for ids."""

    code = "token-rejected"
    title = "The token grants nothing"
    kind = Kind.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("the token is missing, malformed, unknown, expired or revoked")


class TicketRejected(ApplianceError):
    code = "ticket-rejected"
    title = "The ticket cannot be used"
    kind = Kind.UNAUTHENTICATED


class Forbidden(ApplianceError):
    code = "forbidden"
    title = "This is not yours to do"
    kind = Kind.FORBIDDEN


class ScopeMissing(Forbidden):
    code = "scope-missing"
    title = "The token does not cover this"


class ModelForbidden(ScopeMissing):
    code = "model-forbidden"
    title = "The token is not for this model"


class GuardrailBlocked(Forbidden):
    """Names the rule and never what it found."""

    code = "guardrail-blocked"
    title = "A guardrail does not let this pass"

    def __init__(self, rule: str, reason: str = "there is what is not let pass") -> None:
        super().__init__(f"the guardrail {rule!r}: {reason}", guardrail=rule)


class AdminOnlyKey(Forbidden):
    code = "admin-only-key"
    title = "Only the operator may set this key"


class ForeignSession(Forbidden):
    code = "foreign-session"
    title = "The session key does not belong to this tenant"


class NotFound(ApplianceError):
    code = "not-found"
    title = "There is no such thing"
    kind = Kind.MISSING


class TenantUnknown(NotFound):
    code = "tenant-unknown"
    title = "There is no such tenant"


class ModelUnknown(NotFound):
    code = "model-unknown"
    title = "There is no such model"


class MethodNotAllowed(ApplianceError):
    code = "method-not-allowed"
    title = "The method is not allowed here"
    kind = Kind.INVALID


class AlreadyExists(ApplianceError):
    code = "already-exists"
    title = "It exists already"
    kind = Kind.CONFLICT


class TenantDisabled(ApplianceError):
    code = "tenant-disabled"
    title = "The tenant is disabled"
    kind = Kind.CONFLICT


class PreconditionFailed(ApplianceError):
    code = "precondition-failed"
    title = "It changed since it was read"
    kind = Kind.STALE


class TooLarge(ApplianceError):
    code = "too-large"
    title = "The request is too large"
    kind = Kind.TOO_LARGE


class Misdirected(ApplianceError):
    code = "misdirected"
    title = "This gateway does not hold that tenant"
    kind = Kind.MISDIRECTED


class RateLimited(ApplianceError):
    """Too many at once or too fast: waiting ``retry_after`` seconds helps."""

    code = "rate-limit-exceeded"
    title = "Too many requests"
    kind = Kind.LIMITED


class QuotaExceeded(ApplianceError):
    """A budget for the day or the month is used up."""

    code = "insufficient-quota"
    title = "The quota is used up"
    kind = Kind.LIMITED


class ModelUnpriced(Forbidden):
    """A budget in money cannot be kept with a model that has no price."""

    code = "model-unpriced"
    title = "The model has no price"


class ProviderFailure(ApplianceError):
    """A model provider did not give an answer.

    ``retryable`` says whether another provider may well give one: not when
    the request itself is at fault. ``lasts`` says that the same one will not
    either until its operator has done something about it. ``trail`` says who was
    asked, once nobody is left.
    """

    retryable: bool = True
    lasts: bool = False
    trail: Trail | None = None


class UpstreamFailed(ProviderFailure):
    code = "upstream-failed"
    title = "The model provider failed"
    kind = Kind.BAD_UPSTREAM


class UpstreamTimeout(ProviderFailure):
    code = "upstream-timeout"
    title = "The model provider did not answer in time"
    kind = Kind.UPSTREAM_SLOW


class UpstreamUnavailable(ProviderFailure):
    code = "upstream-unavailable"
    title = "The model provider is not available"
    kind = Kind.UNAVAILABLE


class Unavailable(ApplianceError):
    code = "unavailable"
    title = "This is not available right now"
    kind = Kind.UNAVAILABLE


class ShuttingDown(Unavailable):
    code = "shutting-down"
    title = "The gateway is shutting down"


class DiskFull(Unavailable):
    code = "disk-full"
    title = "The disk is full"


class AuditUnavailable(Unavailable):
    """An action that cannot be audited is refused."""

    code = "audit-unavailable"
    title = "The audit log cannot be written"


class TenantBroken(Unavailable):
    """The tenant's record or database on disk cannot be used; others are not affected."""

    code = "tenant-broken"
    title = "The tenant's data on disk cannot be used"


class SchemaTooNew(Unavailable):
    code = "schema-too-new"
    title = "The data was written by a newer release"
