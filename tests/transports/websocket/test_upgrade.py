"""What the HTTP request of a WebSocket says of its sender."""

from typing import Any

import msgspec
import pytest

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import ApplianceError, Forbidden, NotFound, TokenRejected, Unavailable
from appliance.transports.callers import ROUTE_TENANT, Peers
from appliance.transports.websocket.upgrade import Upgrade, read_upgrade, refuse
from tests.transports.websocket.bench import FakeAccess, someone

TOKEN = "tenant:acme:secret"
ACCESS = FakeAccess()
ACCESS.callers = {
    TOKEN: someone(),
    "admin:key:with:colons": Caller(ActorKind.ADMIN, "ops", None),
    "cookie": someone(credential="session"),
}
OWN = "https://gateway.example"


def read(
    headers: dict[str, str] | None = None,
    *,
    path: str = "/",
    route: str | None = None,
    subprotocols: tuple[str, ...] = (),
) -> Upgrade:
    given = {"host": "gateway.example", **(headers or {})}
    scope = {
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("192.0.2.7", 1),
        "subprotocols": subprotocols,
        ROUTE_TENANT: route,
    }
    peers = Peers(behind_proxy=False, trusted_proxies=())
    return read_upgrade(scope, access=ACCESS, peers=peers, allowed_origins=("https://ui.example",))


@pytest.mark.parametrize("path", ["/", "/ws"])
def test_who_says_nothing_is_asked_later(path: str) -> None:
    upgrade = read(path=path)

    assert (upgrade.caller, upgrade.subprotocol, upgrade.ip) == (None, None, "192.0.2.7")
    assert upgrade.from_own_page


@pytest.mark.parametrize("path", ["", "/ws/", "//", "/v1/tenants", "/WS"])
def test_other_paths_are_none_of_ours(path: str) -> None:
    with pytest.raises(NotFound):
        read(path=path)


def test_a_bearer_token_says_who_it_is() -> None:
    assert read({"authorization": f"Bearer {TOKEN}"}).caller == someone()


@pytest.mark.parametrize("written", [TOKEN, TOKEN.replace(":", ".")])
def test_so_does_a_subprotocol(written: str) -> None:
    offered = ("other", f"openclaw.bearer.{written}")
    upgrade = read(subprotocols=offered)

    assert (upgrade.caller, upgrade.subprotocol) == (someone(), offered[1])


def test_what_a_page_names_itself_comes_before_its_cookie() -> None:
    cookie = {"cookie": "openclaw_session=cookie", "sec-fetch-site": "same-origin"}
    offered = (f"openclaw.bearer.{TOKEN}",)

    assert read(cookie).caller == someone(credential="session")
    assert read(cookie, subprotocols=offered).caller == someone()
    with pytest.raises(TokenRejected):
        read(cookie, subprotocols=("openclaw.bearer.tenant.acme.guessed",))
    elsewhere = {**cookie, "sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert not read(elsewhere, subprotocols=offered).from_own_page


def test_dots_of_an_admin_key_stay_what_they_are() -> None:
    with pytest.raises(TokenRejected):
        read(subprotocols=("openclaw.bearer.admin.key.with.dots",))
    assert read(subprotocols=("openclaw.bearer.admin:key:with:colons",)).caller is not None


def test_other_subprotocols_are_not_agreed_to() -> None:
    assert read(subprotocols=("graphql-ws",)).subprotocol is None


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer x"}, {"authorization": f"Basic {TOKEN}"}]
)
def test_a_credential_that_grants_nothing_is_refused_at_once(headers: dict[str, str]) -> None:
    with pytest.raises(TokenRejected):
        read(headers)


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, True),
        ({"origin": OWN}, True),
        ({"origin": "https://ui.example"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": OWN, "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_the_page_is_looked_at(headers: dict[str, str], *, own: bool) -> None:
    assert read(headers).from_own_page is own


def test_a_cookie_counts_from_our_own_pages_only() -> None:
    cookie = {"cookie": "openclaw_session=cookie"}
    assert read({**cookie, "origin": OWN}).caller == someone(credential="session")
    for more in ({}, {"origin": "https://evil.example"}):
        with pytest.raises(Forbidden):
            read({**cookie, **more})


def test_a_path_is_for_its_own_tenant() -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert read(bearer, route="acme").caller == someone()
    with pytest.raises(Forbidden):
        read(bearer, route="other")
    with pytest.raises(Forbidden):
        read(subprotocols=(f"openclaw.bearer.{TOKEN}",), route="other")


@pytest.mark.parametrize(
    ("error", "status"),
    [(TokenRejected(), 401), (NotFound("no"), 404), (Unavailable("full", retry_after=5), 503)],
)
async def test_a_refusal_is_a_plain_problem(error: ApplianceError, status: int) -> None:
    told: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    await refuse(send, error, request_id="req_7")

    start, body = told
    headers = dict(start["headers"])
    assert start["status"] == status
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"connection"] == b"close"
    assert headers[b"x-request-id"] == b"req_7"
    assert msgspec.json.decode(body["body"])["request_id"] == "req_7"
    assert (b"retry-after" in headers) is (error.retry_after is not None)
    assert body["more_body"] is False
