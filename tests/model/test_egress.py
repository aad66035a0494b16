"""Which hosts a rule means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.egress import (
    EgressRule,
    EgressRules,
    HostPattern,
    Injection,
    allowing,
    are_inspected,
    parse_authority,
    parse_host,
)

LABELS = st.from_regex(r"[a-z](?:[a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
PATTERNS = st.one_of(HOSTS, HOSTS.map(lambda host: f"*.{host}")).map(HostPattern)


def rule(host: str, *ports: int, **settings: object) -> EgressRule:
    return EgressRule(host=HostPattern(host), ports=frozenset(ports or {443}), **settings)  # type: ignore[arg-type] # the caller names real fields


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("api.example.org", "api.example.org"),
        ("API.Example.ORG", "api.example.org"),
        ("api.example.org.", "api.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a.xn--p1ai", "a.xn--p1ai"),
        ("1.2.example", "1.2.example"),
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
    ],
)
def test_a_host_is_compared_in_one_spelling(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "localhost", "example.", "a..example", ".a.example", "a.example..",
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
        "a.example.0x1", "1.2.3.4.5", "[::1]", "::1", "a.b:c.example", "fe80::1%eth0",
        "user@a.example", "a.example/b", "a.example#", "a.example%00.x", "*.example", "a_b.example",
        "-a.example", "a-.example", "bücher.example", "a.example\u3002org", "\u212a.example.org",
        "a.\uff45xample", " a.example", "a.example\n", "a\x00.example", f"{'a' * 64}.example",
        ".".join(["abcdefgh"] * 32),
    ],
)  # fmt: skip
def test_what_is_not_a_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        parse_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "a.example:", "a.example:0", "a.example:65536", "a.example:+1", "a.example:1 ",
        "a.example:٣", "a.example:443:443", ":443", "a.example:99999999999999999999", "a.example",
        "u:p@a.example:1",
    ],
)  # fmt: skip
def test_an_authority_is_a_host_and_a_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|port"):
        parse_authority(text)


def test_a_port_may_be_left_out_where_there_is_a_usual_one() -> None:
    assert parse_authority("a.example", default_port=80) == ("a.example", 80)
    assert parse_authority("A.example.:8443", default_port=80) == ("a.example", 8443)


@given(st.text())
def test_any_text_is_a_host_or_refused(text: str) -> None:
    try:
        host = parse_host(text)
    except ValueError:
        return
    assert parse_host(host) == host
    assert host.isascii()
    assert host == host.lower()


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.a.example", False),
        ("*.a.example", "b.a.example", True),
        ("*.a.example", "c.b.a.example", True),
        ("*.a.example", "a.example", False),
        ("*.a.example", "evila.example", False),
        ("*.a.example", "a.example.evil.com", False),
    ],
)
def test_a_pattern_means_one_name_or_all_below_it(
    pattern: str, host: str, *, matches: bool
) -> None:
    assert HostPattern(pattern).matches(host) is matches


@given(PATTERNS, PATTERNS, HOSTS)
def test_what_is_within_both_patterns_matches_both(
    one: HostPattern, other: HostPattern, host: str
) -> None:
    both = one.within(other)
    matches_both = one.matches(host) and other.matches(host)

    assert (both is not None and both.matches(host)) is matches_both
    assert both == other.within(one)


def test_the_operators_bound_narrows_what_tenants_allow() -> None:
    rules = EgressRules(
        (rule("*.example.org"), rule("api.other.org", 8443), rule("api.example.org"))
    )

    bounded = rules.bounded([HostPattern("api.example.org"), HostPattern("*.other.org")])

    assert [each.host.text for each in bounded.rules] == [
        "api.example.org",
        "api.other.org",
        "api.example.org",
    ]
    assert bounded.rules[1].ports == {8443}
    assert rules.bounded(None) is rules
    assert rules.bounded([]).is_empty


@given(st.lists(PATTERNS, max_size=4), st.lists(PATTERNS, max_size=4), HOSTS)
def test_nothing_is_allowed_beyond_the_bound(
    allowed: list[HostPattern], only: list[HostPattern], host: str
) -> None:
    rules = EgressRules(tuple(EgressRule(host=each) for each in allowed))

    found = rules.bounded(only).matching(host, 443)

    is_allowed = any(each.matches(host) for each in allowed)
    assert bool(found) is (is_allowed and any(each.matches(host) for each in only))


def test_the_most_exact_host_decides() -> None:
    exact = rule("a.b.example", methods=frozenset({"GET"}))
    near, far = rule("*.b.example"), rule("*.example", 443, 8443)
    rules = EgressRules((far, near, exact))

    assert rules.matching("a.b.example", 443) == (exact,)
    assert rules.matching("c.b.example", 443) == (near,)
    assert rules.matching("a.b.example", 8443) == (far,)
    assert rules.matching("a.b.example", 80) == ()
    assert rules.matching("example", 443) == ()


def test_of_rules_for_one_host_the_first_that_allows_the_method_counts() -> None:
    reading = rule("a.example", methods=frozenset({"GET"}))
    writing = rule("a.example", injection=Injection("key"))
    found = EgressRules((reading, writing)).matching("a.example", 443)

    assert are_inspected(found)
    assert allowing(found, "GET") is reading
    assert allowing(found, "POST") is writing
    assert allowing([reading], "POST") is None
    assert not are_inspected([rule("a.example")])


@pytest.mark.parametrize("method", ["TRACE", "trace", "TRACK", "CONNECT"])
def test_what_would_repeat_or_hide_a_request_is_never_allowed(method: str) -> None:
    assert not rule("a.example", injection=Injection("key")).allows(method)
    assert not rule("a.example", methods=frozenset({method})).allows(method)


def test_a_credential_becomes_a_header() -> None:
    assert Injection("key").value("sk-1") == "Bearer sk-1"
    assert Injection("key", "x-api-key", "").value("sk-1") == "sk-1"


@pytest.mark.parametrize("secret", ["", "a\r\nb: c", "a\nb", "a\x00", "ключ", " a", "a "])
def test_what_cannot_travel_in_a_header_is_no_credential(secret: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        Injection("key", prefix="").value(secret)


def test_other_spellings_of_the_header_are_replaced_too() -> None:
    injection = Injection("key", "x-api-key")

    assert all(map(injection.replaces, ["X-API-Key", "x_api_key", "X-Api_Key"]))
    assert not injection.replaces("x-api-key-2")
