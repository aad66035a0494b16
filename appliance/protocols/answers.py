"""What the dialects share in reading a provider's answer.

Each dialect has a reader: bytes go in as they arrive, deltas come out, and the
reader remembers what billing wants to know. A reader never raises in the
middle of a piece, because what came before the trouble is still good: it hands
that out and leaves the trouble in ``failure``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import msgspec

from appliance.model.calls import Delta, Dialect
from appliance.model.usage import MOST_TOKENS, TokenUsage

_BYTES_A_TOKEN = 4
# What a search of the web adds to the prompts after it, as fair as a guess can be.
FOUND_TOKENS = 10_000
_LONGEST_MESSAGE = 2000
# Of one answer; what is beyond is not worth its memory.
LONGEST_ANNOTATION = 8 * 1024  # bytes
MOST_ANNOTATIONS = 1_000


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


@runtime_checkable
class RelayedAnswer(Protocol):
    """A :class:`WholeAnswer` that callers of its dialect are handed as it came."""

    def relayed(self, usage: TokenUsage | None) -> bytes:
        """The answer, but for what no client could read; ``usage`` is told if it is estimated."""


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


class RelayingReader(AnswerReader, Protocol):
    """Reads an answer whose events are handed on to callers of its dialect."""

    @property
    def last_word(self) -> bytes:
        """What a body that ends here has left unsaid; empty if its answer is not complete."""

    def relay(self, data: bytes, *, include_usage: bool) -> bytes:
        """Return what may be passed on now of the events that ``data`` completes."""

    def ending(self, usage: TokenUsage | None, *, include_usage: bool) -> bytes:
        """The events that a finished answer ends with, as far as they may be seen before the tail.

        ``usage`` is what the call is taken to have used: told in place of the
        provider's figures if it is estimated.
        """


def estimated(size: int) -> int:
    """How many tokens so many bytes are, as fair as a guess can be."""
    return -(-size // _BYTES_A_TOKEN)


def believed(
    told: TokenUsage | None, *, prompt_bytes: int | None, text_bytes: int
) -> TokenUsage | None:
    """What a call with a complete answer used: what the provider says, if that can be.

    A figure that is missing, or zero where it cannot be, is estimated from bytes.
    None where that takes a size that nobody knows.
    """
    knows_prompt = told is not None and told.counts_prompt(prompt_bytes)
    knows_answer = told is not None and told.counts_answer(text_bytes)
    if knows_prompt and knows_answer:
        return told
    if prompt_bytes is None:
        # Searches were counted, be it that nothing else was.
        return told if told is not None and told.web_searches else None
    usage = replace(told or TokenUsage(), estimated=True)
    if not knows_prompt:
        usage = replace(
            usage,
            input=estimated(prompt_bytes) + usage.web_searches * FOUND_TOKENS,
            cache_read=0,
            cache_write=0,
            cache_write_hour=0,
            input_audio=0,
        )
    if knows_answer:
        return usage
    return replace(usage, output=estimated(text_bytes), reasoning=0, output_audio=0)


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
        try:
            value = msgspec.json.decode(text)
        except ValueError:
            if b"\\u" not in text:
                raise
            # Some cut an emoji in two, and each half is an escape that says nothing.
            mended = json.dumps(json.loads(text), ensure_ascii=False)
            value = msgspec.json.decode(mended.encode("utf-8", "replace"))
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
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
        return value
    return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value[:_LONGEST_MESSAGE]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return ""
