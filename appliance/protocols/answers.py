"""What the dialects share in reading a provider's answer.

Each dialect has a reader: bytes go in as they arrive, deltas come out, and the
reader remembers what billing wants to know. A reader never raises in the
middle of a piece, because what came before the trouble is still good: it hands
that out and leaves the trouble in ``failure``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from appliance.model.calls import Delta, Dialect
from appliance.model.usage import TokenUsage

_MOST = 2**53 - 1
_LONGEST_MESSAGE = 2000


class AnswerFailed(Exception):
    """The answer cannot be used, or not all of it."""


class MalformedAnswer(AnswerFailed):
    """The provider broke its own format; the text is ours and safe to show."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """A provider's error as it put it: text from outside, not yet fit to show."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str = ""


class ErrorReported(AnswerFailed):
    """The provider said itself that it failed, with a good status or amid a stream."""

    def __init__(self, error: ErrorBody) -> None:
        super().__init__(error.type or error.code or "error")
        self.error = error


class AnswerWriter(Protocol):
    """Writes one answer in a caller's dialect, as a stream or in one piece; holds its state.

    A provider of the same dialect has its bytes handed on instead, which is
    the hot path; ``tail`` and ``usage`` are then still the writer's.
    """

    @property
    def dialect(self) -> Dialect: ...

    @property
    def include_usage(self) -> bool:
        """Whether the caller of a stream wants to be told the usage."""

    def start(self, model: str) -> bytes:
        """The events before the first delta; ``model`` is the provider's name for it."""

    def deltas(self, deltas: Sequence[Delta]) -> bytes:
        """The events that say this; may be empty."""

    def end(self, usage: TokenUsage | None) -> bytes:
        """The events after the last delta, as far as they may be seen before all is settled."""

    def tail(self) -> bytes:
        """What makes a stream complete: sent when the call is in the books."""

    def collect(self, deltas: Sequence[Delta]) -> None:
        """Take note of this for :meth:`whole`."""

    def whole(self, model: str, usage: TokenUsage | None) -> bytes:
        """What was collected, as one JSON object."""


class WholeAnswer(Protocol):
    """An answer that came in one piece of JSON, in the provider's dialect."""

    @property
    def text(self) -> bytes: ...
    @property
    def usage(self) -> TokenUsage | None: ...
    def deltas(self) -> Sequence[Delta]:
        """The same answer as a stream would have told it; the last is ``Finished``."""


class AnswerReader(Protocol):
    """Reads one streamed answer."""

    @property
    def usage(self) -> TokenUsage | None:
        """The best figures so far; None until the provider said any."""

    @property
    def finished(self) -> bool:
        """Whether the provider said that the answer is complete."""

    @property
    def text_bytes(self) -> int:
        """How much of the answer has come, for an estimate when usage is missing."""

    @property
    def failure(self) -> AnswerFailed | None:
        """What went wrong, once the deltas before it are handed out."""

    def deltas(self, data: bytes) -> Sequence[Delta]:
        """Read on."""


def read_error(body: object) -> ErrorBody | None:
    """Find the error in a decoded body of any dialect; None if it tells of none.

    Seen in the wild: ``{"error": {…}}`` with ``code`` a string or a number,
    ``{"error": "text"}``, ``{"object": "error", "message": …}`` and
    ``{"detail": …}``.
    """
    if not isinstance(body, dict):
        return None
    found = body.get("error")
    if isinstance(found, dict) and found:
        return ErrorBody(
            message=_text(found.get("message")),
            type=_text(found.get("type")),
            code=_text(found.get("code")),
            param=_text(found.get("param")),
        )
    if isinstance(found, str) and found:
        return ErrorBody(message=_text(found))
    if body.get("object") == "error":
        return ErrorBody(
            message=_text(body.get("message")),
            type=_text(body.get("type")),
            code=_text(body.get("code")),
        )
    return ErrorBody(type="error") if found else None


def read_error_text(text: bytes) -> ErrorBody:
    """The error in the body of a refusal, as far as one can be made out."""
    try:
        body = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return ErrorBody()
    if error := read_error(body):
        return error
    if isinstance(body, dict):
        return ErrorBody(message=_text(body.get("message") or body.get("detail")))
    return ErrorBody()


def decode_object(text: bytes) -> dict[str, Any]:
    """Decode a provider's JSON object; raise :exc:`MalformedAnswer` for anything else."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise MalformedAnswer("what it sent is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedAnswer("what it sent is not a JSON object")
    return value


def count(value: object) -> int | None:
    """A token count as a provider gave it; None for what is no count.

    Floats with nothing behind the point are let pass: some proxies write them.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return value
    return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value[:_LONGEST_MESSAGE]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""
