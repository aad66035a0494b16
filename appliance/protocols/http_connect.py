"""What a request asks of a proxy: a tunnel (CONNECT), or to be sent on (absolute form)."""

import re
from dataclasses import dataclass

from appliance.model.egress import parse_authority
from appliance.protocols.http_head import RequestHead, RequestRefused

_ABSOLUTE = re.compile(r"(?i:http)://([^/?#]*)([/?][^#]*)?")
CLEAR_TEXT_PORT = 80


@dataclass(frozen=True, slots=True)
class Tunnel:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Forward:
    """``path`` is what the server is asked for: the path with its query."""

    host: str
    port: int
    path: str


def proxy_request(head: RequestHead) -> Tunnel | Forward:
    """What ``head``, sent to a proxy, asks for; raise :exc:`RequestRefused`."""
    if head.method == "CONNECT":
        return _tunnel(head)
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is None:
        raise RequestRefused("this is a proxy: it takes CONNECT, and requests for http://… URLs")
    host, port = _authority(absolute[1], default_port=CLEAR_TEXT_PORT)
    check_host(head, host, port, default_port=CLEAR_TEXT_PORT)
    path = absolute[2] or "/"
    return Forward(host, port, path if path.startswith("/") else f"/{path}")


def check_origin_request(head: RequestHead, host: str, port: int) -> None:
    """Raise :exc:`RequestRefused` unless ``head`` is for ``host`` and for nobody behind it."""
    if not head.target.startswith("/") and (head.method, head.target) != ("OPTIONS", "*"):
        raise RequestRefused("the request names no path")
    if "#" in head.target:
        raise RequestRefused("the path holds a '#'")
    check_host(head, host, port, default_port=443)


def check_host(head: RequestHead, host: str, port: int, *, default_port: int) -> None:
    """Raise :exc:`RequestRefused` if the Host header says another host, or is missing."""
    if not head.values(b"host") and not head.is_http_1_0:
        raise RequestRefused("the Host header is missing")
    for value in head.values(b"host"):
        if _authority(value.decode("latin-1"), default_port=default_port) != (host, port):
            raise RequestRefused("the Host header names another host", status=421)


def _tunnel(head: RequestHead) -> Tunnel:
    if head.values(b"content-length") or head.values(b"transfer-encoding"):
        raise RequestRefused("a CONNECT has no body")
    host, port = _authority(head.target, default_port=None)
    return Tunnel(host, port)


def _authority(text: str, *, default_port: int | None) -> tuple[str, int]:
    try:
        return parse_authority(text, default_port=default_port)
    except ValueError as exc:
        # What was asked for is not repeated: a URL may hold a password.
        raise RequestRefused(str(exc), status=403) from None
