"""What is asked of a proxy."""

import pytest

from appliance.protocols.http_connect import (
    Forward,
    Tunnel,
    check_origin_request,
    proxy_request,
)
from appliance.protocols.http_head import RequestRefused, parse_head


def asks(line: str, *headers: str) -> Tunnel | Forward:
    return proxy_request(parse_head("\r\n".join((line, *headers, "", "")).encode()))


def test_connect_asks_for_a_tunnel() -> None:
    assert asks("CONNECT A.example.:443 HTTP/1.1") == Tunnel("a.example", 443)
    assert asks("CONNECT a.example:443 HTTP/1.0", "Host: anything") == Tunnel("a.example", 443)


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://a.example/b?c", "a.example", Forward("a.example", 80, "/b?c")),
        ("HTTP://A.Example", "a.example:80", Forward("a.example", 80, "/")),
        ("http://a.example:8080?x", "a.example:8080", Forward("a.example", 8080, "/?x")),
        ("http://a.example//b", "A.EXAMPLE", Forward("a.example", 80, "//b")),
    ],
)
def test_a_url_asks_to_be_sent_on(url: str, host: str, expected: Forward) -> None:
    assert asks(f"GET {url} HTTP/1.1", f"Host: {host}") == expected


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT a.example HTTP/1.1", 403),
        ("CONNECT a.example:0 HTTP/1.1", 403),
        ("CONNECT user@a.example:443 HTTP/1.1", 403),
        ("CONNECT http://a.example:443 HTTP/1.1", 403),
        ("CONNECT 127.0.0.1:443 HTTP/1.1", 403),
        ("CONNECT [::1]:443 HTTP/1.1", 403),
        ("connect a.example:443 HTTP/1.1", 400),
        ("GET / HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET a.example/ HTTP/1.1", 400),
        ("GET https://a.example/ HTTP/1.1", 400),
        ("GET ftp://a.example/ HTTP/1.1", 400),
        ("GET http:/a.example/ HTTP/1.1", 400),
        ("GET http:///a HTTP/1.1", 403),
        ("GET http://a.example/#x HTTP/1.1", 400),
        ("GET http://u:p@a.example/ HTTP/1.1", 403),
        ("GET http://a.example\\@b.example/ HTTP/1.1", 403),
        ("GET http://0x7f.1/ HTTP/1.1", 403),
        ("GET http://b.example/ HTTP/1.1", 421),
        ("GET http://a.example:81/ HTTP/1.1", 421),
    ],
)
def test_anything_else_is_refused(line: str, status: int) -> None:
    with pytest.raises(RequestRefused) as caught:
        asks(line, "Host: a.example")

    assert caught.value.status == status
    assert "u:p" not in caught.value.reason


def test_a_url_needs_a_host_header_as_http_does() -> None:
    with pytest.raises(RequestRefused, match="missing"):
        asks("GET http://a.example/ HTTP/1.1")
    assert asks("GET http://a.example/ HTTP/1.0") == Forward("a.example", 80, "/")


@pytest.mark.parametrize("header", ["Content-Length: 3", "Transfer-Encoding: chunked"])
def test_a_connect_with_a_body_is_refused(header: str) -> None:
    with pytest.raises(RequestRefused, match="no body"):
        asks("CONNECT a.example:443 HTTP/1.1", header)


def origin(line: str, host: str | None = "a.example") -> None:
    headers = "" if host is None else f"Host: {host}\r\n"
    check_origin_request(parse_head(f"{line}\r\n{headers}\r\n".encode()), "a.example", 443)


def test_inside_a_tunnel_requests_are_for_its_host() -> None:
    origin("GET /a HTTP/1.1")
    origin("GET /a HTTP/1.1", "A.example:443")
    origin("OPTIONS * HTTP/1.1")
    origin("GET /a HTTP/1.0", None)


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("GET /a HTTP/1.1", "b.example"),
        ("GET /a HTTP/1.1", "a.example:80"),
        ("GET /a HTTP/1.1", "a.example, b.example"),
        ("GET /a HTTP/1.1", ""),
        ("GET /a HTTP/1.1", None),
        ("GET https://a.example/ HTTP/1.1", "a.example"),
        ("GET * HTTP/1.1", "a.example"),
        ("GET /a#b HTTP/1.1", "a.example"),
    ],
)
def test_inside_a_tunnel_no_other_host_is_asked(line: str, host: str | None) -> None:
    with pytest.raises(RequestRefused):
        origin(line, host)
