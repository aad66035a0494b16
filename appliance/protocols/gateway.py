"""OpenClaw's Gateway frames, both protocol generations (3 and 4), without any IO.

A frame is one JSON object in one text message: ``req`` from the client, ``res``
and ``event`` from us. The strict JSON rules are those of
:mod:`~appliance.protocols.json_body`. Source of the shapes: the schema that
OpenClaw publishes with its client library; both generations share the frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.json_body import decode

LONGEST_ID = 256  # characters
LONGEST_METHOD = 128

CHALLENGE = "connect.challenge"
CONNECT = "connect"

_REQUEST_KEYS = frozenset({"type", "id", "method", "params", "traceparent"})
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Request:
    """``params`` is whatever JSON the client sent, None if it sent none."""

    id: str
    method: str
    params: object


@dataclass(frozen=True, slots=True)
class Ignored:
    """A frame that asks for nothing: a response to a request that was never made."""

    kind: str


@dataclass(frozen=True, slots=True)
class WireError:
    """A refusal as it is sent. ``retry_after_ms`` is milliseconds."""

    code: str
    message: str
    details: Mapping[str, Any] | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None

    def members(self) -> dict[str, Any]:
        shape: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            shape["details"] = dict(self.details)
        if self.retryable is not None:
            shape["retryable"] = self.retryable
        if self.retry_after_ms is not None:
            shape["retryAfterMs"] = self.retry_after_ms
        return shape


class FrameInvalid(Exception):
    """The message is no frame. ``id`` is the request's if it could be read.

    ``is_json`` tells a frame with mistakes from what is no JSON at all.
    """

    def __init__(self, reason: str, *, id: str = "invalid", is_json: bool = True) -> None:  # noqa: A002 - the frame's own word
        super().__init__(reason)
        self.reason = reason
        self.id = id
        self.is_json = is_json


def read_json(data: bytes) -> object:
    """Parse one message. Raises :exc:`FrameInvalid`."""
    try:
        return decode(data)
    except InvalidRequest as exc:
        raise FrameInvalid(exc.detail, is_json=False) from None


def read_frame(value: object) -> Request | Ignored:
    """Read one parsed message. Raises :exc:`FrameInvalid`."""
    if type(value) is not dict:
        raise FrameInvalid("invalid request frame: must be object")
    kind = value.get("type")
    if kind == "req":
        request_id = value.get("id")
        method = value.get("method")
        if (
            type(request_id) is str
            and type(method) is str
            and 0 < len(request_id) <= LONGEST_ID
            and 0 < len(method) <= LONGEST_METHOD
            and value.keys() <= _REQUEST_KEYS
        ):
            return Request(request_id, method, value.get("params"))
        raise _mistake(value)
    if kind == "res" or kind == "event":
        return Ignored(str(kind))
    raise FrameInvalid("invalid request frame: at /type: must be 'req'", id=_readable_id(value))


def _mistake(value: dict[str, object]) -> FrameInvalid:
    """Say what is wrong with a request, in the words of OpenClaw's own validator."""
    readable = _readable_id(value)
    for name, longest in (("id", LONGEST_ID), ("method", LONGEST_METHOD)):
        if name not in value:
            return FrameInvalid(
                f"invalid request frame: must have required property '{name}'", id=readable
            )
        text = value[name]
        if type(text) is not str:
            return FrameInvalid(f"invalid request frame: at /{name}: must be string", id=readable)
        if not 0 < len(text) <= longest:
            return FrameInvalid(
                f"invalid request frame: at /{name}: must have 1 to {longest} characters",
                id=readable,
            )
    extra = next(key for key in value if key not in _REQUEST_KEYS)
    return FrameInvalid(
        f"invalid request frame: at root: unexpected property '{extra[:80]}'", id=readable
    )


def _readable_id(value: dict[str, object]) -> str:
    given = value.get("id")
    return given if type(given) is str and 0 < len(given) <= LONGEST_ID else "invalid"


def encode_response(request_id: str, payload: bytes) -> bytes:
    """``payload`` is JSON."""
    return b'{"type":"res","id":%b,"ok":true,"payload":%b}' % (_encode(request_id), payload)


def encode_error(request_id: str, error: WireError) -> bytes:
    return b'{"type":"res","id":%b,"ok":false,"error":%b}' % (
        _encode(request_id),
        _encode(error.members()),
    )


def event_head(name: str, payload: bytes, state_version: tuple[int, int] | None = None) -> bytes:
    """An event without its end, which differs for each connection: see :func:`end_event`."""
    if state_version is None:
        return b'{"type":"event","event":%b,"payload":%b' % (_encode(name), payload)
    return b'{"type":"event","event":%b,"payload":%b,"stateVersion":{"presence":%d,"health":%d}' % (
        _encode(name),
        payload,
        *state_version,
    )


def end_event(head: bytes, seq: int | None) -> bytes:
    return head + b"}" if seq is None else b'%b,"seq":%d}' % (head, seq)
