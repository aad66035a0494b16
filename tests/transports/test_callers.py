import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.ids import REQUEST_ID
from appliance.transports.callers import Peers, is_same_origin, read_headers

Pairs = list[tuple[bytes, bytes]]


def test_what_is_not_sent_is_not_claimed() -> None:
    presented = read_headers([])

    assert presented.bearer is None
    assert presented.cookie is None
    assert presented.acting_for is None
    assert presented.control_plane_token is None
    assert not presented.forwarded


@pytest.mark.parametrize(
    ("values", "bearer"),
    [
        ([b"Bearer abc"], b"abc"),
        ([b"bearer   abc "], b"abc"),
        ([b"BEARER abc"], b"abc"),
        ([b"Basic abc"], b""),
        ([b"Bearer"], b""),
        ([b""], b""),
        ([b"Bearer a", b"Bearer a"], b""),
    ],
)
def test_a_bearer_token_is_the_only_authorization(values: list[bytes], bearer: bytes) -> None:
    headers = [(b"authorization", value) for value in values]

    assert read_headers(headers).bearer == bearer


@pytest.mark.parametrize(
    ("values", "cookie"),
    [
        ([b"openclaw_session=x.y"], "x.y"),
        ([b"a=b; openclaw_session=x; c=d"], "x"),
        ([b"a=b", b"openclaw_session=x"], "x"),
        ([b"openclaw_session=first; openclaw_session=second"], "first"),
        ([b"openclaw_session=plain; __Host-openclaw_session=own"], "own"),
        ([b"openclaw_session="], None),
        ([b"openclaw_session=" + b"x" * 5000], None),
        ([b";;;=;"], None),
    ],
)
def test_the_session_is_found_among_the_cookies(values: list[bytes], cookie: str | None) -> None:
    headers = [(b"cookie", value) for value in values]

    assert read_headers(headers).cookie == cookie


@given(st.lists(st.tuples(st.sampled_from([
    b"authorization", b"cookie", b"host", b"origin", b"x-request-id", b"x-forwarded-for",
    b"x-openclaw-tenant", b"x-control-plane-token", b"sec-fetch-site", b"x-forwarded-proto",
]), st.binary(max_size=60))))  # fmt: skip
def test_no_header_makes_reading_fail(headers: Pairs) -> None:
    presented = read_headers(headers)

    assert REQUEST_ID.fullmatch(presented.request_id)
    peers = Peers(behind_proxy=True, trusted_proxies=["127.0.0.1"])
    peers.client_ip({"client": ("127.0.0.1", 1)}, presented)
    is_same_origin(presented)


def client_ip(peer: str, *forwarded: str, trusted: list[str] | None = None) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    proxies = ["10.0.0.0/8", "::1"] if trusted is None else trusted
    peers = Peers(behind_proxy=True, trusted_proxies=proxies)
    return peers.client_ip({"client": (peer, 4000)}, read_headers(headers))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9", "10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.7"], "10.0.0.3"),
        ("10.0.0.1", ["garbage, 10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", ["garbage"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:5555"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:5555"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
    ],
)
def test_the_client_is_the_first_who_is_not_trusted(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert client_ip(peer, *forwarded) == client


def test_without_a_trusted_proxy_nobody_speaks_for_others() -> None:
    assert client_ip("10.0.0.1", "203.0.113.9", trusted=[]) == "10.0.0.1"


def test_a_unix_socket_has_no_address() -> None:
    peers = Peers(behind_proxy=False, trusted_proxies=[])

    assert peers.client_ip({"client": None}, read_headers([])) == ""
    assert not peers.is_loopback({"client": None}, read_headers([]))


@pytest.mark.parametrize(
    ("peer", "headers", "behind_proxy", "is_loopback"),
    [
        ("127.0.0.1", [], False, True),
        ("127.8.8.8", [], False, True),
        ("::1", [], False, True),
        ("::ffff:127.0.0.1", [], False, True),
        ("192.0.2.1", [], False, False),
        ("127.0.0.1", [], True, False),
        ("127.0.0.1", [(b"x-forwarded-for", b"127.0.0.1")], False, False),
        ("127.0.0.1", [(b"forwarded", b"for=192.0.2.1")], False, False),
        ("127.0.0.1", [(b"x-real-ip", b"192.0.2.1")], False, False),
        ("127.0.0.1", [(b"via", b"1.1 proxy")], False, False),
    ],
)
def test_only_this_machine_itself_is_loopback(
    peer: str,
    headers: Pairs,
    behind_proxy: bool,  # noqa: FBT001 - a column of the table
    is_loopback: bool,  # noqa: FBT001 - a column of the table
) -> None:
    peers = Peers(behind_proxy=behind_proxy, trusted_proxies=["127.0.0.1"])

    assert peers.is_loopback({"client": (peer, 1)}, read_headers(headers)) is is_loopback


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ([(b"sec-fetch-site", b"same-origin")], True),
        ([(b"sec-fetch-site", b"cross-site")], False),
        ([(b"sec-fetch-site", b"same-site")], False),
        ([(b"sec-fetch-site", b"none")], False),
        ([(b"sec-fetch-site", b"cross-site"), (b"origin", b"https://gw.test")], False),
        ([(b"sec-fetch-site", b"cross-site"), (b"origin", b"https://chat.test")], True),
        ([(b"origin", b"https://gw.test")], True),
        ([(b"origin", b"https://GW.test")], True),
        ([(b"origin", b"https://gw.test:8443")], False),
        ([(b"origin", b"https://gw.test.evil.test")], False),
        ([(b"origin", b"null")], False),
        ([(b"origin", b"")], False),
        ([], False),
    ],
)
def test_a_page_is_ours_only_if_the_browser_says_so(
    headers: Pairs,
    ours: bool,  # noqa: FBT001 - a column of the table
) -> None:
    presented = read_headers([(b"host", b"gw.test"), *headers])

    assert is_same_origin(presented, ["https://chat.test"]) is ours


@pytest.mark.parametrize(
    ("headers", "bearer"),
    [
        ([(b"x-api-key", b"key")], b"key"),
        ([(b"x-api-key", b"key"), (b"authorization", b"Bearer token")], b"token"),
        ([(b"x-api-key", b"key"), (b"authorization", b"Basic eDp5")], b"key"),
        ([(b"x-api-key", b"key"), (b"authorization", b"Bearer")], b"key"),
        ([(b"x-api-key", b"key"), (b"cookie", b"openclaw_session=x.y")], b"key"),
        # Of two, none is the right one.
        ([(b"x-api-key", b"a"), (b"x-api-key", b"b")], b""),
        ([(b"x-api-key", b"")], b""),
        ([(b"authorization", b"Bearer token")], b"token"),
        ([(b"authorization", b"Basic eDp5")], b""),
        ([], None),
    ],
)
def test_a_route_that_takes_an_api_key_prefers_a_usable_bearer_token(
    headers: Pairs, bearer: bytes | None
) -> None:
    assert read_headers(headers).with_api_key().bearer == bearer


def test_an_api_key_is_no_bearer_token_to_those_who_do_not_ask_for_it() -> None:
    presented = read_headers([(b"x-api-key", b"key")])

    assert presented.bearer is None
    assert presented.cookie is None
