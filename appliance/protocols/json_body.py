"""Reads JSON that strangers send, and refuses what readers disagree about.

Two parsers that understand one body differently are how checks get bypassed:
a doubled key is one value to us and another upstream, ``NaN`` and half a
surrogate pair are an error to some readers and not to others. So all of that
is refused here, once, before anything looks at a value.

The parser is msgspec, which refuses all of it but doubled keys and integers
nobody can hold. Both show in the *skeleton*, the body without its strings:
every colon there is one member, so fewer members in the parsed value than
colons in the text means that a key came twice. The skeleton also tells depth
and size before anything is parsed.

A 300-byte body costs about 7 µs, a megabyte of text about 2 ms, the worst 20 MB
half a second. Callers with more than :data:`INLINE_BYTES` in hand call in a
worker thread: no step holds the interpreter for longer than some 20 ms, which
is what ``long_json`` and the bound on values are for.
"""

import json
import re

import msgspec

from appliance.model.errors import InvalidRequest, TooLarge
from appliance.protocols import long_json
from appliance.protocols.long_json import Hollow

INLINE_BYTES = 64 * 1024
DEEPEST = 64
MOST_VALUES = 100_000
_LARGEST = 2**64  # what the integers of other languages hold
_LONGEST_NUMBER = 400  # characters; a 64-bit float needs at most 17 digits
_QUOTED = 80  # characters of the caller's own text in a message
_REMEDY = "send one JSON object in UTF-8"

_BOM = b"\xef\xbb\xbf"
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURE_TO_FIT = 18  # characters of a number
_IN_NUMBERS = b"0123456789.eE+-"
_AS_BLANKS = bytes(each if each in _IN_NUMBERS else 0x20 for each in range(256))
_POSITION = re.compile(r" \(byte \d+\)")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parse_object(
    body: bytes, *, limit_bytes: int, max_depth: int = DEEPEST, most_values: int = MOST_VALUES
) -> dict[str, bytes]:
    """Return the members of the object in ``body``, each value as its own JSON text.

    Raises :exc:`InvalidRequest`, or :exc:`TooLarge` above ``limit_bytes``.
    """
    if len(body) > limit_bytes:
        raise TooLarge(
            f"the body has {len(body)} bytes; the limit is {limit_bytes}", limit=limit_bytes
        )
    if len(body) > long_json.AT_ONCE:
        hollow = _hollow(body, most_values)
        value = _decoded(hollow, max_depth, most_values)
    else:
        hollow = None
        value = decode(body, max_depth=max_depth, most_values=most_values)
    if type(value) is not dict:
        raise InvalidRequest.at("", "the body is not a JSON object", _REMEDY)
    if hollow is not None:
        return hollow.members()
    return {key: bytes(value) for key, value in _MEMBERS.decode(body).items()}


def decode(body: bytes, *, max_depth: int = DEEPEST, most_values: int = MOST_VALUES) -> object:
    """Return the value in ``body``, of any type; raise :exc:`InvalidRequest` if it is not JSON."""
    if len(body) > long_json.AT_ONCE:
        return _decoded(_hollow(body, most_values), max_depth, most_values)
    if not body:
        raise InvalidRequest.at("", "the body is empty", _REMEDY)
    _refuse_mark(body)
    skeleton = _skeleton(body, most_values)
    _check_size(skeleton, max_depth, most_values)
    try:
        value: object = msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise _not_utf8(body) from None
    except msgspec.DecodeError as exc:
        raise InvalidRequest.at("", _reason(body, exc), _REMEDY) from None
    except RecursionError:
        # The depth is checked above; a caller deep in its own stack may still run out.
        raise _too_deep(max_depth) from None
    if skeleton.count(b":") != _count_members(value):
        raise _doubled_key(body)
    return value


def _hollow(body: bytes, most_values: int) -> Hollow:
    _refuse_mark(body)
    try:
        return Hollow.of(body, most_quotes=4 * most_values)
    except long_json.TooManyQuotes:
        raise _too_many_values(most_values) from None
    except long_json.Unterminated:
        raise InvalidRequest.at("", "not JSON: a string does not end", _REMEDY) from None


def _decoded(hollow: Hollow, max_depth: int, most_values: int) -> object:
    """As :func:`decode`, in many short steps."""
    _check_size(hollow.skeleton, max_depth, most_values)
    try:
        value = hollow.value()
    except UnicodeDecodeError:
        raise _not_utf8(hollow.body) from None
    except msgspec.DecodeError as exc:
        # Where it is in what is left of the body tells nobody anything.
        reason = _POSITION.sub("", _reason(hollow.body, exc))
        raise InvalidRequest.at("", reason, _REMEDY) from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    if hollow.skeleton.count(b":") != _count_members(value):
        raise _doubled_key(hollow.text)
    return value


def _refuse_mark(body: bytes) -> None:
    if body.startswith(_BOM):
        raise InvalidRequest.at("", "the body starts with a byte order mark", "leave it out")


def _skeleton(body: bytes, most_values: int) -> bytes:
    """``body`` without its strings. What is not JSON gives nonsense, which the parser refuses."""
    # Replacing and splitting are one pass of C each. A regular expression
    # takes 0.3 µs an escape, and a stranger chooses how many there are.
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if len(body) > most_values and body.count(b'"') > 4 * most_values:
        raise _too_many_values(most_values)
    return b"".join(body.split(b'"')[::2])


def _check_size(skeleton: bytes, max_depth: int, most_values: int) -> None:
    if len(skeleton) > most_values:
        starts = skeleton.count(b",") + skeleton.count(b"[") + skeleton.count(b"{")
        if starts > most_values:
            raise _too_many_values(most_values)
    # No regular expression: one looks at a number from each of its digits.
    for number in skeleton.translate(_AS_BLANKS).split():
        if len(number) > _SURE_TO_FIT:
            _check_number(number)
    brackets = skeleton.translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(max_depth):
        if not brackets:
            return
        # One pass takes away every innermost pair, that is one level.
        brackets = brackets.replace(b"[]", b"")
    if b"[]" in brackets:
        raise _too_deep(max_depth)


def _check_number(number: bytes) -> None:
    # The length first: converting a million digits takes quadratic time.
    is_integer = number.removeprefix(b"-").isdigit()
    if len(number) > _LONGEST_NUMBER or (
        is_integer and not -(_LARGEST // 2) <= int(number) < _LARGEST
    ):
        shown = number[:24].decode()
        raise InvalidRequest.at("", f"the number {shown} is out of range", "send a smaller one")


def _count_members(value: object) -> int:
    members = 0
    unseen = [value]
    while unseen:
        each = unseen.pop()
        if type(each) is dict:
            members += len(each)
            unseen.extend(each.values())
        elif type(each) is list:
            unseen.extend(each)
    return members


def _doubled_key(body: bytes) -> InvalidRequest:
    """Parse once more, now watching for the key."""

    def watch(members: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for key, _ in members:
            if key in seen:
                raise InvalidRequest.at(key[:_QUOTED], "the key appears twice", "send it once")
            seen.add(key)

    try:
        json.loads(body, object_pairs_hook=watch)
    except InvalidRequest as found:
        return found
    except (ValueError, RecursionError):
        pass  # the two parsers disagree: reason enough to refuse
    return InvalidRequest.at("", "the body is ambiguous", _REMEDY)


def _reason(body: bytes, exc: msgspec.DecodeError) -> str:
    if isinstance(exc, msgspec.ValidationError):
        return "a number is out of range"
    if "truncated" in str(exc) and b"\\u" in body:
        return "not JSON: it ends too early, or a \\u escape is half a surrogate pair"
    return f"not JSON: {str(exc).removeprefix('JSON is malformed: ')}"


def _not_utf8(body: bytes) -> InvalidRequest:
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        return InvalidRequest.at("", f"byte {exc.start} is not UTF-8", _REMEDY)
    return InvalidRequest.at("", "a string is not UTF-8", _REMEDY)


def _too_deep(max_depth: int) -> InvalidRequest:
    return InvalidRequest.at("", f"nested deeper than {max_depth} levels", "flatten it")


def _too_many_values(most: int) -> InvalidRequest:
    return InvalidRequest.at("", f"more than {most} values", "split the request")
