"""The door of the raw routes: who may pass, and what is noted when they leave."""

from dataclasses import dataclass, field
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from appliance.config.schema import GatewayConfig, ServerConfig
from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, Misdirected, RateLimited, TokenRejected
from appliance.transports.callers import ACCEPTED_AT, ROUTE_TENANT, read_headers
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.door import RawDoor


@dataclass
class Everything:
    """All that a door talks to."""

    config: GatewayConfig = field(default_factory=GatewayConfig)
    held: set[str] = field(default_factory=lambda: {"acme", "other"})
    asked: list[dict[str, Any]] = field(default_factory=list)
    observed: list[dict[str, Any]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    written: list[dict[str, Any]] = field(default_factory=list)

    def door(self) -> RawDoor:
        return RawDoor(
            config=lambda: self.config,
            access=self,
            holds=self.held.__contains__,
            log=self,
            metrics=self,
        )

    def authenticate(
        self, bearer: str | bytes | None, *, acting_for: str | None, request_id: str, ip: str
    ) -> Caller:
        self.asked.append({"bearer": bearer, "acting_for": acting_for, "ip": ip})
        if bearer == b"admin:key":
            return Caller(ActorKind.ADMIN, "first", acting_for, request_id=request_id)
        if bearer != b"tenant:acme:secret":
            raise TokenRejected
        return Caller(ActorKind.TENANT, "tok_1", "acme", request_id=request_id)

    def authenticate_cookie(self, value: str, *, request_id: str, ip: str) -> Caller:
        self.asked.append({"cookie": value, "ip": ip})
        return Caller(ActorKind.TENANT, "tok_1", "acme", request_id=request_id)

    def observe(self, **seen: Any) -> None:
        self.observed.append(seen)

    def refused(self, code: str) -> None:
        self.counted.append(code)

    def write(self, event: str, **fields: object) -> None:
        self.written.append({"event": event, **fields})


@pytest.fixture
def everything() -> Everything:
    return Everything()


def scope(*, tenant: str | None = None, method: str = "POST", **headers: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "method": method,
        "path": "/v1/chat/completions",
        "client": ("192.0.2.9", 4000),
        "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()],
        ACCEPTED_AT: perf_counter() - 0.5,
    }
    if tenant is not None:
        found[ROUTE_TENANT] = tenant
    return found


def admit(door: RawDoor, request: dict[str, Any]) -> Caller:
    return door.admit(request, read_headers(request["headers"]))


ACME = "Bearer tenant:acme:secret"
ADMIN = "Bearer admin:key"


def test_a_token_passes_with_the_address_it_came_from(everything: Everything) -> None:
    caller = admit(everything.door(), scope(authorization=ACME))

    assert caller.tenant == "acme"
    assert everything.asked[0]["ip"] == "192.0.2.9"


def test_a_token_that_grants_nothing_does_not_pass(everything: Everything) -> None:
    with pytest.raises(TokenRejected):
        admit(everything.door(), scope(authorization="Bearer x"))


def test_a_tenant_that_is_not_here_is_said_before_anybody_is_identified(
    everything: Everything,
) -> None:
    with pytest.raises(Misdirected):
        admit(everything.door(), scope(tenant="elsewhere", authorization="Bearer x"))

    assert everything.asked == []


def test_the_tenant_in_the_path_must_be_the_tokens(everything: Everything) -> None:
    door = everything.door()
    assert admit(door, scope(tenant="acme", authorization=ACME)).tenant == "acme"

    with pytest.raises(Forbidden):
        admit(door, scope(tenant="other", authorization=ACME))


def test_an_admin_acts_for_the_tenant_in_the_path(everything: Everything) -> None:
    caller = admit(everything.door(), scope(tenant="other", authorization=ADMIN))

    assert caller.tenant == "other"


def test_a_cookie_works_from_our_own_pages_only(everything: Everything) -> None:
    door, cookie = everything.door(), "openclaw_session=abc"
    assert admit(door, scope(cookie=cookie, sec_fetch_site="same-origin")).tenant == "acme"

    for elsewhere in ("cross-site", "same-site", "none"):
        with pytest.raises(Forbidden):
            admit(door, scope(cookie=cookie, sec_fetch_site=elsewhere))
    with pytest.raises(Forbidden):
        admit(door, scope(cookie=cookie))


def test_a_reload_changes_whom_the_door_believes(everything: Everything) -> None:
    door = everything.door()
    request = scope(authorization=ACME, x_forwarded_for="198.51.100.7")
    admit(door, request)
    server = ServerConfig(behind_proxy=True, trusted_proxies=["192.0.2.0/24"])
    everything.config = GatewayConfig(server=server)
    admit(door, request)

    assert [asked["ip"] for asked in everything.asked] == ["192.0.2.9", "198.51.100.7"]


def test_a_foreseen_failure_is_counted_by_its_code(everything: Everything) -> None:
    door = everything.door()

    door.count_refusal(RateLimited("x"))
    door.count_refusal(ExceptionGroup("x", [Forbidden("y")]))
    door.count_refusal(ValueError("nobody foresaw this"))

    assert everything.counted == ["rate-limit-exceeded", "forbidden"]


@pytest.mark.parametrize("tenant", ["acme", None])
def test_each_request_is_counted_and_written_down(
    everything: Everything, tenant: str | None
) -> None:
    caller = None if tenant is None else Caller(ActorKind.TENANT, "tok_1", tenant)
    answer = SimpleNamespace(status=200, sent_bytes=12, request_id="req_1")

    everything.door().note(scope(), caller, cast("Answer", answer), route="/v1/models/{model}")

    [observed] = everything.observed
    assert observed["seconds"] >= 0.5
    assert (observed["route"], observed["status"], observed["tenant"]) == (
        "/v1/models/{model}", 200, tenant,
    )  # fmt: skip
    [written] = everything.written
    assert written["ms"] >= 500
    assert (written["event"], written["request_id"], written["bytes"]) == ("request", "req_1", 12)
    assert written["tenant"] == tenant
