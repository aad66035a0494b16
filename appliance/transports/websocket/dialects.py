"""The two ways to say the same over one socket: OpenClaw's frames and JSON-RPC 2.0.

The first message decides; a connection does not change its dialect.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from appliance.protocols import gateway, jsonrpc
from appliance.protocols.gateway import FrameInvalid, WireError
from appliance.services.events import Event


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``tag`` is how its answer finds its way back: the dialect's own business."""

    method: str
    params: object
    tag: object


class MessageInvalid(Exception):
    """A message that asks for nothing that could be done.

    ``answer`` is sent, if there is one; ``ends`` closes the connection.
    """

    def __init__(self, reason: str, *, answer: bytes | None, ends: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer
        self.ends = ends


class Dialect(Protocol):
    protocol: int

    def read(self, data: bytes) -> Sequence[Request]:
        """The requests in a message. Raises :exc:`MessageInvalid`."""

    def result(self, tag: object, payload: bytes) -> bytes | None:
        """The message that answers; None if nothing is to be sent (yet)."""

    def error(self, tag: object, error: WireError) -> bytes | None: ...
    def interim(self, tag: object, payload: bytes) -> bytes | None:
        """An answer before the last one."""

    def last_word(self, tag: object, error: WireError) -> bytes | None:
        """The error before the connection ends: nothing else of its message is answered."""

    def event(self, event: Event, seq: int) -> bytes: ...
    def lone_event(self, name: str, payload: bytes, seq: int) -> bytes: ...


class OpenClawDialect:
    """``req``, ``res`` and ``event`` frames."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol

    def read(self, data: bytes) -> Sequence[Request]:
        try:
            frame = gateway.read_frame(gateway.read_json(data))
        except FrameInvalid as exc:
            error = WireError("INVALID_REQUEST", exc.reason)
            # The older clients' own gateway closes on a frame with mistakes;
            # answering it serves both, and ends nobody's other requests.
            raise MessageInvalid(
                exc.reason, answer=gateway.encode_error(exc.id, error), ends=not exc.is_json
            ) from None
        if isinstance(frame, gateway.Ignored):
            return ()
        return (Request(frame.method, frame.params, frame.id),)

    def result(self, tag: object, payload: bytes) -> bytes | None:
        return gateway.encode_response(str(tag), payload)

    def error(self, tag: object, error: WireError) -> bytes | None:
        return gateway.encode_error(str(tag), error)

    def interim(self, tag: object, payload: bytes) -> bytes | None:
        return gateway.encode_response(str(tag), payload)

    def last_word(self, tag: object, error: WireError) -> bytes | None:
        return gateway.encode_error(str(tag), error)

    def event(self, event: Event, seq: int) -> bytes:
        return gateway.end_event(_heads.of(event), seq)

    def lone_event(self, name: str, payload: bytes, seq: int) -> bytes:
        return gateway.end_event(gateway.event_head(name, payload), seq)


class _Heads:
    """The encoded beginning of the event that is being sent around: the same for everybody."""

    __slots__ = ("_event", "_head")

    def __init__(self) -> None:
        self._event: Event | None = None
        self._head = b""

    def of(self, event: Event) -> bytes:
        if event is not self._event:
            version = event.state_version
            pair = None if version is None else (version.presence, version.health)
            self._head = gateway.event_head(event.name, event.payload, pair)
            self._event = event
        return self._head


_heads = _Heads()


class JsonRpcDialect:
    """JSON-RPC 2.0: batches, notifications, and our events as notifications to the client."""

    protocol = 4

    def read(self, data: bytes) -> Sequence[Request]:
        return self.understand(jsonrpc.parse(data))

    def understand(self, message: jsonrpc.Batch | jsonrpc.Entry) -> Sequence[Request]:
        """The requests in a parsed message. Raises :exc:`MessageInvalid`."""
        if isinstance(message, jsonrpc.Fault):
            raise MessageInvalid(message.message, answer=message.encoded())
        if isinstance(message, jsonrpc.Batch):
            gathered = jsonrpc.BatchAnswer(message)
            requests = [
                request for each in message.entries if (request := _request(each, gathered))
            ]
            if gathered.complete and (answer := gathered.encoded()) is not None:
                if not requests:
                    raise MessageInvalid("a batch of mistakes", answer=answer)
                # Nothing else is answered: the mistakes are, with the last notification.
                requests[-1] = replace(requests[-1], tag=gathered)
            return requests
        request = _request(message, None)
        return () if request is None else (request,)

    def result(self, tag: object, payload: bytes) -> bytes | None:
        return self._answer(tag, lambda call: jsonrpc.encode_result(call.id, payload))

    def error(self, tag: object, error: WireError) -> bytes | None:
        number = _number(error)
        return self._answer(
            tag, lambda call: jsonrpc.encode_wire_error(call.id, error, number=number)
        )

    def interim(self, tag: object, payload: bytes) -> bytes | None:
        return None  # a JSON-RPC call is answered once

    def last_word(self, tag: object, error: WireError) -> bytes | None:
        if not isinstance(tag, _Tag):
            return None
        return jsonrpc.encode_wire_error(tag.call.id, error, number=_number(error))

    def event(self, event: Event, seq: int) -> bytes:
        version = event.state_version
        pair = None if version is None else (version.presence, version.health)
        head = jsonrpc.event_head(event.name, event.payload, pair)
        return jsonrpc.end_event(head, seq)

    def lone_event(self, name: str, payload: bytes, seq: int) -> bytes:
        return jsonrpc.encode_event(name, payload, seq)

    def _answer(self, tag: object, encode: Callable[[jsonrpc.Call], bytes]) -> bytes | None:
        if isinstance(tag, jsonrpc.BatchAnswer):
            return tag.encoded()
        if not isinstance(tag, _Tag):  # a notification
            return None
        if tag.gathered is None:
            return encode(tag.call)
        tag.gathered.answer(tag.call, encode(tag.call))
        return tag.gathered.encoded() if tag.gathered.complete else None


@dataclass(frozen=True, slots=True)
class _Tag:
    call: jsonrpc.Call
    gathered: jsonrpc.BatchAnswer | None


def _request(entry: jsonrpc.Entry, gathered: jsonrpc.BatchAnswer | None) -> Request | None:
    match entry:
        case jsonrpc.Call():
            return Request(entry.method, entry.params, _Tag(entry, gathered))
        case jsonrpc.Notification():
            return Request(entry.method, entry.params, None)
        case _:
            return None


def _number(error: WireError) -> int | None:
    """What our codes do not tell apart and JSON-RPC does; None for the usual one."""
    code = (error.details or {}).get("code")
    if code in _NUMBERS:
        return _NUMBERS[code]
    if error.code == "INVALID_REQUEST" and " params: " in error.message[:160]:
        return jsonrpc.PARAMS_INVALID
    return None


_NUMBERS = {
    "UNKNOWN_METHOD": jsonrpc.METHOD_UNKNOWN,
    "INTERNAL": jsonrpc.INTERNAL,
    "RATE_LIMIT_EXCEEDED": jsonrpc.NUMBERS["RATE_LIMITED"],
    "INSUFFICIENT_QUOTA": jsonrpc.NUMBERS["RATE_LIMITED"],
    "TOKEN_REJECTED": jsonrpc.NUMBERS["UNAUTHENTICATED"],
    "AUTH_TOKEN_MISMATCH": jsonrpc.NUMBERS["UNAUTHENTICATED"],
    "AUTH_TOKEN_MISSING": jsonrpc.NUMBERS["UNAUTHENTICATED"],
    "AUTH_DEVICE_TOKEN_MISMATCH": jsonrpc.NUMBERS["UNAUTHENTICATED"],
    "TOKEN_REVOKED": jsonrpc.NUMBERS["UNAUTHENTICATED"],
    "AUTH_RATE_LIMITED": jsonrpc.NUMBERS["RATE_LIMITED"],
}
