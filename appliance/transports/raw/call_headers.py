"""What an answer's head says of the call behind it, and of trying again.

``x-openclaw-model`` answered, ``x-openclaw-attempts`` were made, and
``x-openclaw-failover`` lists who did not answer before it. Names of keys and
addresses are in none of them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from appliance.model.attempts import Trail, header_safe
from appliance.model.errors import ApplianceError, Kind, ProviderFailure, QuotaExceeded
from appliance.model.money import format_amount
from appliance.services.model_calls import OpenCall
from appliance.services.routing import Target
from appliance.transports.problems import find_expected
from appliance.transports.raw.failures import Failure, Header

# Tokens that nobody has counted, be they of a prompt or of an answer's usage.
ESTIMATED: Header = (b"x-openclaw-estimated", b"true")
_LONGEST_WAIT = 120.0  # seconds; for more the official clients would rather not ask again
_MAY_WAIT = frozenset({429, 503})


def call_headers(call: OpenCall) -> Sequence[Header]:
    """What is known when the answer begins."""
    trail = call.trail
    headers = [
        _model(call.target),
        (b"x-openclaw-attempts", b"%d" % trail.attempts),
        (b"x-openclaw-cache", call.cache.value.encode()),
    ]
    if trail.missed:
        headers.append(_failover(trail))
    if call.guarded:
        headers.append((b"x-openclaw-guardrails", _listed(call.guarded)))
    return headers


def settled_headers(call: OpenCall) -> Sequence[Header]:
    """What is known when all is in the books; a stream's head has left by then."""
    headers = [*call_headers(call)]
    if call.cost_nano is not None:
        headers.append((b"x-openclaw-cost", format_amount(call.cost_nano).encode()))
    if call.is_estimated:
        headers.append(ESTIMATED)
    return headers


def advised(failure: Failure, error: BaseException) -> Failure:
    """``failure`` with what a client should know before it asks again."""
    expected = find_expected(error)
    if expected is None:
        return failure
    headers = dict(failure.headers)
    again = _is_worth_it(expected)
    if again is not None:
        headers.setdefault(b"x-should-retry", b"true" if again else b"false")
    wait = expected.retry_after
    if wait is not None:
        headers[b"retry-after-ms"] = b"%d" % max(1, math.ceil(wait * 1000))
    elif again and failure.status in _MAY_WAIT:
        headers.setdefault(b"retry-after", b"1")
    trail = expected.trail if isinstance(expected, ProviderFailure) else None
    if trail is not None:
        headers[b"x-openclaw-attempts"] = b"%d" % trail.attempts
        name, value = _failover(trail)
        headers[name] = value
    return replace(failure, headers=tuple(headers.items()), waited=expected.waited)


def _is_worth_it(error: ApplianceError) -> bool | None:
    """Whether the same request may succeed soon; None leaves it to the client's own rules."""
    if isinstance(error, ProviderFailure) and error.lasts:
        return False
    match error.kind:
        case Kind.CONFLICT:
            return False  # clients take any 409 for a lock that somebody holds
        case Kind.LIMITED:
            if isinstance(error, QuotaExceeded):
                return False
            if error.retry_after is None:
                # Ours says when; without that the call is more than fits at all.
                return isinstance(error, ProviderFailure)
            return error.retry_after <= _LONGEST_WAIT
        case Kind.UNAVAILABLE:
            return error.retry_after is None or error.retry_after <= _LONGEST_WAIT
        case _:
            return None


# Few models are asked for over and over.
@lru_cache(maxsize=1024)
def _model(target: Target) -> Header:
    return b"x-openclaw-model", header_safe(str(target)).encode()


def _failover(trail: Trail) -> Header:
    return b"x-openclaw-failover", trail.header().encode()


def _listed(guarded: Sequence[tuple[str, str]]) -> bytes:
    return ", ".join(f"{header_safe(name)};action={action}" for name, action in guarded).encode()
