"""JSON-RPC 2.0 over the Gateway's methods, without any IO.

https://www.jsonrpc.org/specification. The strict JSON rules are those of
:mod:`~appliance.protocols.json_body`. Parameters go by name; an array is read
only where it holds nothing or the one object, as some libraries send it.
Nothing in here raises: what is wrong with a message is an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.gateway import LONGEST_ID, LONGEST_METHOD, Ignored, WireError
from appliance.protocols.json_body import decode

Id = str | int | None

MOST_CALLS = 100  # in one batch
LARGEST_BATCH_ANSWER = 8 * 1024 * 1024  # bytes; the longest history has six

PARSE_ERROR = -32700
INVALID = -32600
METHOD_UNKNOWN = -32601
PARAMS_INVALID = -32602
INTERNAL = -32603
UNAVAILABLE = -32000

NUMBERS: Mapping[str, int] = {
    "INVALID_REQUEST": INVALID,
    "INTERNAL": INTERNAL,
    "UNAVAILABLE": UNAVAILABLE,
    "AGENT_TIMEOUT": UNAVAILABLE,
    "NOT_LINKED": UNAVAILABLE,
    "UNAUTHENTICATED": -32001,
    "NOT_PAIRED": -32001,
    "FORBIDDEN": -32003,
    "NOT_FOUND": -32004,
    "APPROVAL_NOT_FOUND": -32004,
    "RATE_LIMITED": -32029,
}
"""Our codes as numbers; any other code is :data:`UNAVAILABLE`."""

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Call:
    """A request to answer under its ``id``, which may be ``null``."""

    id: Id
    method: str
    params: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Notification:
    """A request that is never answered, whatever comes of it."""

    method: str
    params: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class Fault:
    """No request; answer it with this error."""

    id: Id
    number: int
    message: str

    def encoded(self) -> bytes:
        return encode_error(self.id, self.number, self.message)


Entry = Call | Notification | Fault | Ignored


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries are never none and at most :data:`MOST_CALLS`."""

    entries: tuple[Entry, ...]


def speaks_jsonrpc(value: object) -> bool:
    """Whether a connection's first message, parsed, is JSON-RPC 2.0 and not a Gateway frame."""
    if type(value) is list and value:
        value = value[0]
    return type(value) is dict and value.get("jsonrpc") == "2.0"


def parse(data: bytes) -> Batch | Entry:
    """Read one message."""
    try:
        value = decode(data)
    except InvalidRequest as exc:
        return Fault(None, PARSE_ERROR, f"parse error: {exc.detail}")
    return read(value)


def read(value: object) -> Batch | Entry:
    """Read one message that is parsed already."""
    if type(value) is not list:
        return _read_entry(value)
    if not value:
        return _invalid(None, "the batch is empty")
    if len(value) > MOST_CALLS:
        return _invalid(None, f"a batch holds at most {MOST_CALLS} calls; send several")
    return Batch(tuple(_read_entry(each) for each in value))


def _read_entry(value: object) -> Entry:
    if type(value) is not dict:
        return _invalid(None, "must be an object")
    if "method" not in value and ("result" in value or "error" in value):
        return Ignored("response")
    call_id = value.get("id")
    if not _is_id(call_id):
        reason = f"id must be a string of at most {LONGEST_ID} characters, an integer or null"
        return _invalid(None, reason)
    if value.get("jsonrpc") != "2.0":
        return _invalid(call_id, 'jsonrpc must be "2.0"')
    method = value.get("method")
    if type(method) is not str or not 0 < len(method) <= LONGEST_METHOD:
        reason = f"method must be a string of 1 to {LONGEST_METHOD} characters"
        return _invalid(call_id, reason)
    params = value.get("params")
    if type(params) is list and not params:
        params = None
    if type(params) is list and len(params) == 1 and type(params[0]) is dict:
        params = params[0]
    if params is not None and type(params) is not dict:
        if "id" not in value:
            return Ignored("notification")
        if type(params) is list:
            reason = f"invalid {method} params: must be object (by name, not by position)"
            return Fault(call_id, PARAMS_INVALID, reason)
        return _invalid(call_id, "params must be an object")
    if "id" not in value:
        return Notification(method, params)
    return Call(call_id, method, params)


def _is_id(value: object) -> bool:
    if type(value) is str:
        return len(value) <= LONGEST_ID
    return value is None or type(value) is int


def _invalid(call_id: Id, reason: str) -> Fault:
    return Fault(call_id, INVALID, f"invalid request: {reason}")


class BatchAnswer:
    """Gathers the answers to a batch, which may come in any order, into one message.

    A call whose answer no longer fits is answered with an error, so that a
    hundred long answers need not all wait in memory.
    """

    def __init__(self, batch: Batch, *, limit_bytes: int = LARGEST_BATCH_ANSWER) -> None:
        faults = [each for each in batch.entries if isinstance(each, Fault)]
        self._answers = [fault.encoded() for fault in faults]
        self._open = sum(isinstance(each, Call) for each in batch.entries)
        self._space = limit_bytes

    def answer(self, call: Call, answer: bytes) -> None:
        """``answer`` is the whole encoded response to ``call``. Exactly once for each call."""
        if len(answer) > self._space:
            answer = encode_error(
                call.id, UNAVAILABLE, "the answers of this batch are too long; send the call alone"
            )
        self._space -= len(answer)
        self._answers.append(answer)
        self._open -= 1

    @property
    def complete(self) -> bool:
        return self._open <= 0

    def encoded(self) -> bytes | None:
        """The message; None if there is nothing to answer."""
        return b"[%b]" % b",".join(self._answers) if self._answers else None


def number_of(error: WireError) -> int:
    return NUMBERS.get(error.code, UNAVAILABLE)


def encode_result(call_id: Id, payload: bytes) -> bytes:
    """``payload`` is JSON."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (_encode(call_id), payload)


def encode_error(
    call_id: Id, number: int, message: str, data: Mapping[str, Any] | None = None
) -> bytes:
    error: dict[str, Any] = {"code": number, "message": message}
    if data is not None:
        error["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (_encode(call_id), _encode(error))


def encode_wire_error(call_id: Id, error: WireError, *, number: int | None = None) -> bytes:
    """Say a Gateway error in JSON-RPC. ``number`` is for what the code alone does not tell."""
    data = error.members()
    del data["message"]
    return encode_error(
        call_id, number_of(error) if number is None else number, error.message, data
    )


def encode_event(name: str, payload: bytes, seq: int | None = None) -> bytes:
    """An event as a notification; ``payload`` is JSON."""
    return end_event(event_head(name, payload), seq)


def event_head(name: str, payload: bytes, state_version: tuple[int, int] | None = None) -> bytes:
    """An event without its end, which differs for each connection: see :func:`end_event`."""
    head = b'{"jsonrpc":"2.0","method":%b,"params":{"payload":%b' % (_encode(name), payload)
    if state_version is None:
        return head
    return b'%b,"stateVersion":{"presence":%d,"health":%d}' % (head, *state_version)


def end_event(head: bytes, seq: int | None) -> bytes:
    return head + b"}}" if seq is None else b'%b,"seq":%d}}' % (head, seq)
