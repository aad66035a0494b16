"""What the routes of this API do alike: who may come in, in which version, and what is told."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.model.callers import Caller
from appliance.model.tokens import Scope
from appliance.protocols.messages_request import OLDEST_VERSION, read_betas, read_version
from appliance.transports.raw.exchange import Exchange
from appliance.transports.raw.failures import Header

VERSION_HEADER = "anthropic-version"
BETA_HEADER = "anthropic-beta"


@dataclass(frozen=True, slots=True)
class Entered:
    """``headers`` are those that a provider of this dialect is to hear of."""

    caller: Caller
    version: str
    headers: Mapping[str, str]


def enter(exchange: Exchange, *, clock: Callable[[], datetime]) -> Entered:
    """Let a caller in, by bearer token or ``x-api-key``.

    Raises :exc:`MethodNotAllowed`, what ``Exchange.admit`` raises, and
    :exc:`InvalidRequest` for a version there is not.
    """
    exchange.more_headers = lambda: _told(exchange, clock)
    exchange.presented = exchange.presented.with_api_key()
    exchange.require_method("POST")
    caller = exchange.admit(Scope.CHAT)
    given = exchange.header(VERSION_HEADER.encode())
    version = read_version(None if given is None else given.decode("latin-1").strip())
    betas = read_betas(_values(exchange, BETA_HEADER.encode()))
    headers = {} if version == OLDEST_VERSION else {VERSION_HEADER: version}
    if betas:
        headers[BETA_HEADER] = betas
    return Entered(caller, version, headers)


def _values(exchange: Exchange, name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in exchange.scope["headers"] if each == name]


def _told(exchange: Exchange, clock: Callable[[], datetime]) -> Sequence[Header]:
    request_id = (b"request-id", exchange.answer.request_id.encode())
    if exchange.runtime is None:
        return (request_id,)
    return (request_id, *rate_headers(exchange.runtime.meter.rate_headers(), now=clock()))


def rate_headers(rates: Mapping[str, str], *, now: datetime) -> Sequence[Header]:
    """The rates of ``x-ratelimit-*`` under Anthropic's names; a reset is a point in time."""
    headers = []
    for name, value in rates.items():
        figure, _, what = name.removeprefix("x-ratelimit-").partition("-")
        if figure == "reset":
            # Rounded up: a client that comes back a fraction early is refused again.
            at = now + timedelta(seconds=math.ceil(float(value.removesuffix("s"))))
            value = at.isoformat(timespec="seconds").replace("+00:00", "Z")
        headers.append((f"anthropic-ratelimit-{what}-{figure}".encode(), value.encode()))
    return headers
