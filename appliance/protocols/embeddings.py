"""Reads and writes OpenAI's embeddings: the caller's request, a provider's answer, ours.

2048 vectors of 1536 numbers are three million numbers, so a vector stays in the
form it came in until somebody wants another one: numbers are read to be checked
and passed on as their text, packed ones as their bytes. What remains is C's work
on a vector at a time. Fields and limits: OpenAI's API reference, "Create embeddings".
"""

import base64
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from appliance.model.embeddings import (
    EmbeddingAnswer,
    EmbeddingCall,
    Encoding,
    Numbers,
    Packed,
    Vector,
)
from appliance.model.errors import Fault, InvalidRequest
from appliance.model.usage import TokenUsage
from appliance.protocols import long_json
from appliance.protocols.answers import ErrorReported, MalformedAnswer, count, read_error
from appliance.protocols.chat_request import LONGEST_MODEL, LONGEST_USER
from appliance.protocols.json_body import parse_object

T = TypeVar("T")

MOST_INPUTS = 2048
MOST_TOKENS = 300_000  # of one request; as many as OpenAI takes
MOST_DIMENSIONS = 65_536
_LARGEST_TOKEN = 2**31 - 1
_MOST_VALUES = MOST_TOKENS + MOST_INPUTS + 100  # in the body of a request
_BYTES_A_TOKEN = 4  # as the meter counts them where nobody else does

_FIELDS = frozenset({"model", "input", "encoding_format", "dimensions", "user"})

# Bytes that an answer may hold: each number may take a line of its own.
_ANSWER_BASE = 1024 * 1024
_ANSWER_EACH = 96 * 1024

_text = msgspec.json.Decoder(str)
_optional_text = msgspec.json.Decoder(str | None)
_optional_number = msgspec.json.Decoder(int | None)
_input = msgspec.json.Decoder(str | list[str | int | list[int]])
_numbers = msgspec.json.Decoder(list[float])


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A caller's request. ``call.model`` is the name the caller gave.

    ``said`` is the JSON of a list of the texts, empty where tokens came.
    """

    call: EmbeddingCall
    said: bytes
    prompt_bytes: int  # what its cost is estimated from

    @classmethod
    def parse(cls, data: bytes, *, limit_bytes: int) -> "EmbeddingRequest":
        """Read a request body; raise :exc:`InvalidRequest` naming the field."""
        body = parse_object(data, limit_bytes=limit_bytes, most_values=_MOST_VALUES)
        for name, value in body.items():
            if name not in _FIELDS and value != b"null":
                raise InvalidRequest.at(
                    name[:80],
                    "is not known to embeddings",
                    "leave it out",
                    fault=Fault.UNSUPPORTED,
                )
        texts, tokens = _inputs(_read(body, "input", _input))
        call = EmbeddingCall(
            model=_model(body),
            texts=texts,
            tokens=tokens,
            encoding=_encoding(body),
            dimensions=_dimensions(body),
            user=_user(body),
        )
        size = sum(len(text.encode()) for text in texts)
        said = long_json.encode(texts) if texts else b""
        return cls(call, said, size + _BYTES_A_TOKEN * sum(map(len, tokens)))


def _model(body: Mapping[str, bytes]) -> str:
    model: str = _read(body, "model", _text)
    if not model or len(model) > LONGEST_MODEL or not model.isprintable():
        raise InvalidRequest.at(
            "model",
            f"must be 1 to {LONGEST_MODEL} printable characters",
            "GET /v1/models lists them",
        )
    return model


def _encoding(body: Mapping[str, bytes]) -> Encoding:
    text: str | None = _read(body, "encoding_format", _optional_text, missing=b"null")
    try:
        return Encoding.FLOAT if text is None else Encoding(text)
    except ValueError:
        known = " or ".join(Encoding)
        raise InvalidRequest.at("encoding_format", f"must be {known}") from None


def _dimensions(body: Mapping[str, bytes]) -> int | None:
    dimensions: int | None = _read(body, "dimensions", _optional_number, missing=b"null")
    if dimensions is not None and not 1 <= dimensions <= MOST_DIMENSIONS:
        raise InvalidRequest.at("dimensions", f"must lie between 1 and {MOST_DIMENSIONS}")
    return dimensions


def _user(body: Mapping[str, bytes]) -> str | None:
    user: str | None = _read(body, "user", _optional_text, missing=b"null")
    if user is not None and len(user) > LONGEST_USER:
        raise InvalidRequest.at("user", f"must be at most {LONGEST_USER} characters")
    return user


def _inputs(
    given: str | list[str | int | list[int]],
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """The texts and the token arrays of ``input``, one of them empty."""
    if isinstance(given, str):
        return (_filled(given, "input"),), ()
    if not given:
        raise InvalidRequest.at("input", "must not be empty", "send a text or a list of them")
    first = given[0]
    if isinstance(first, int):
        return (), (_tokens(given, "input"),)
    if len(given) > MOST_INPUTS:
        raise InvalidRequest.at(
            "input", f"holds {len(given)} inputs; the limit is {MOST_INPUTS}", "send fewer at once"
        )
    if isinstance(first, str):
        texts = tuple(_filled(each, f"input[{i}]") for i, each in enumerate(given))
        return texts, ()
    arrays = tuple(_tokens(each, f"input[{i}]") for i, each in enumerate(given))
    total = sum(map(len, arrays))
    if total > MOST_TOKENS:
        raise InvalidRequest.at(
            "input", f"holds {total} tokens; the limit is {MOST_TOKENS}", "send fewer at once"
        )
    return (), arrays


def _filled(text: object, field: str) -> str:
    if not isinstance(text, str):
        raise _mixed(field)
    if not text:
        raise InvalidRequest.at(field, "must not be empty", "leave it out")
    return text


def _tokens(tokens: object, field: str) -> tuple[int, ...]:
    if not isinstance(tokens, list) or not set(map(type, tokens)) <= {int}:
        raise _mixed(field)
    if not tokens:
        raise InvalidRequest.at(field, "must not be empty", "leave it out")
    if len(tokens) > MOST_TOKENS:
        raise InvalidRequest.at(
            field, f"holds {len(tokens)} tokens; the limit is {MOST_TOKENS}", "cut it"
        )
    if min(tokens) < 0 or max(tokens) > _LARGEST_TOKEN:
        raise InvalidRequest.at(field, f"tokens lie between 0 and {_LARGEST_TOKEN}")
    return tuple(tokens)


def _mixed(field: str) -> InvalidRequest:
    return InvalidRequest.at(
        field, "is unlike the inputs before it", "send either texts or lists of tokens"
    )


def _read(
    body: Mapping[str, bytes],
    field: str,
    decoder: msgspec.json.Decoder[T],
    *,
    missing: bytes | None = None,
) -> T:
    """Decode a member; ``missing`` is the text of one that is not there."""
    text = body.get(field, missing)
    if text is None:
        raise InvalidRequest.at(field, "is missing")
    try:
        if len(text) > long_json.AT_ONCE:
            return msgspec.convert(long_json.decode(text), decoder.type)
        return decoder.decode(text)
    except msgspec.ValidationError as exc:
        raise InvalidRequest.at(field, str(exc).replace(" - at `$", " at `$")) from exc


# -- the request to a provider ------------------------------------------------


def encode_request(call: EmbeddingCall) -> bytes:
    """The request in OpenAI's words; what the caller did not say is not said."""
    request: dict[str, object] = {"model": call.model, "input": call.texts or call.tokens}
    if call.encoding is not Encoding.FLOAT:
        request["encoding_format"] = call.encoding.value
    if call.dimensions is not None:
        request["dimensions"] = call.dimensions
    if call.user is not None:
        request["user"] = call.user
    return long_json.encode(request) if call.texts else msgspec.json.encode(request)


def largest_answer(call: EmbeddingCall) -> int:
    """Bytes that a provider's answer to ``call`` may hold."""
    return _ANSWER_BASE + call.size * _ANSWER_EACH


# -- a provider's answer ------------------------------------------------------


class _Embedding(msgspec.Struct):
    embedding: msgspec.Raw
    index: int | None = None


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: msgspec.Raw = msgspec.Raw(b"null")
    usage: msgspec.Raw = msgspec.Raw(b"null")


_answer = msgspec.json.Decoder(_Embeddings)


def read_answer(text: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
    """Read an answer in OpenAI's form, with numbers or base64 whatever was asked for.

    Raises :exc:`AnswerFailed` for one that is not whole: a vector too few, of
    another length, with a number that is none.
    """
    try:
        answer = _answer.decode(text)
    except (ValueError, RecursionError):
        raise trouble_in(text) from None
    texts = [each.embedding for each in _in_order(answer.data)]
    model = _told_model(answer.model) or call.model
    return answer_of(texts, call, model=model, usage=_usage(answer.usage))


def answer_of(
    texts: Sequence[msgspec.Raw], call: EmbeddingCall, *, model: str, usage: TokenUsage | None
) -> EmbeddingAnswer:
    """The answer of the vectors whose JSON is ``texts``, in the order of the inputs.

    Raises :exc:`MalformedAnswer` for too few of them and for what is no vector.
    """
    if len(texts) != call.size:
        raise MalformedAnswer(f"{len(texts)} vectors for {call.size} inputs")
    vectors: list[Vector] = []
    sizes = set()
    for text in texts:
        vector, size = _vector(text)
        vectors.append(vector)
        sizes.add(size)
    dimensions = sizes.pop()
    if sizes or not 1 <= dimensions <= MOST_DIMENSIONS:
        raise MalformedAnswer("the vectors are empty, too long, or not of one length")
    return EmbeddingAnswer(model, vectors, usage, dimensions)


def _in_order(data: Sequence[_Embedding]) -> Sequence[_Embedding]:
    """``data`` by index, if its entries have one."""
    indexes = [each.index for each in data]
    if indexes == list(range(len(data))) or all(index is None for index in indexes):
        return data
    by_index = {each.index: each for each in data}
    if by_index.keys() != set(range(len(data))):
        raise MalformedAnswer("the indexes of its vectors are not those of the inputs")
    return [by_index[index] for index in range(len(data))]


def _vector(raw: msgspec.Raw) -> tuple[Vector, int]:
    """One vector and how many numbers it has."""
    text = bytes(raw)
    vector: Vector
    try:
        if text.startswith(b'"'):
            data = base64.b64decode(_text.decode(text), validate=True)
            vector, numbers = Packed(data), floats(data)
        else:
            vector, numbers = Numbers(text), array("f", _numbers.decode(text))
    except (ValueError, RecursionError):
        raise MalformedAnswer("one of its vectors is neither numbers nor base64") from None
    # One that is infinite, or none, makes the sum so.
    if not math.isfinite(sum(numbers)):
        raise MalformedAnswer("one of its vectors holds what is no number of 32 bits")
    return vector, len(numbers)


def _told_model(raw: msgspec.Raw) -> str:
    try:
        model = _text.decode(raw)
    except ValueError:
        return ""
    return model if len(model) <= LONGEST_MODEL and model.isprintable() else ""


def _usage(raw: msgspec.Raw) -> TokenUsage | None:
    """What the provider counted. No text has no tokens: that was not counted."""
    try:
        usage = msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(usage, dict):
        return None
    tokens = count(usage.get("prompt_tokens")) or count(usage.get("total_tokens"))
    return TokenUsage(input=tokens) if tokens else None


def trouble_in(text: bytes) -> MalformedAnswer | ErrorReported:
    """Why ``text`` is no answer."""
    try:
        error = read_error(msgspec.json.decode(text))
    except (ValueError, RecursionError):
        return MalformedAnswer("what it sent is not JSON")
    if error is not None:
        return ErrorReported(error)
    return MalformedAnswer("what it sent is no list of embeddings")


def joined(answers: Sequence[EmbeddingAnswer]) -> EmbeddingAnswer:
    """One answer of several that the same model gave, one after the other."""
    first = answers[0]
    told = [answer.usage for answer in answers if answer.usage is not None]
    usage = TokenUsage(input=sum(usage.input for usage in told))
    vectors = [vector for answer in answers for vector in answer.vectors]
    return EmbeddingAnswer(first.model, vectors, usage if told else None, first.dimensions)


def shortened(answer: EmbeddingAnswer, dimensions: int) -> EmbeddingAnswer:
    """The first ``dimensions`` numbers of each vector, made as long as 1 again.

    Only what a model learned to say in its first numbers is still said there.
    """
    vectors = [_unit(numbers_of(vector)[:dimensions]) for vector in answer.vectors]
    return replace(answer, vectors=vectors, dimensions=dimensions)


def _unit(numbers: Sequence[float]) -> Packed:
    length = math.hypot(*numbers) or 1.0
    return Packed(_pack(array("f", [number / length for number in numbers])))


# -- the answer to the caller -------------------------------------------------


def write_answer(answer: EmbeddingAnswer, *, encoding: Encoding, usage: TokenUsage) -> bytes:
    """The answer in OpenAI's form."""
    told = {"prompt_tokens": usage.prompt, "total_tokens": usage.total}
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(_entries(answer.vectors, encoding)),
        msgspec.json.encode(answer.model),
        msgspec.json.encode(told),
    )


def _entries(vectors: Sequence[Vector], encoding: Encoding) -> Iterator[bytes]:
    written = _as_base64 if encoding is Encoding.BASE64 else _as_numbers
    for index, vector in enumerate(vectors):
        yield b'{"object":"embedding","index":%d,"embedding":%b}' % (index, written(vector))


def _as_base64(vector: Vector) -> bytes:
    return b'"%b"' % base64.b64encode(packed(vector))


def _as_numbers(vector: Vector) -> bytes:
    if isinstance(vector, Numbers):
        return vector.text
    return msgspec.json.encode(floats(vector.data).tolist())


def numbers_of(vector: Vector) -> Sequence[float]:
    """The numbers of a vector that was checked."""
    return _numbers.decode(vector.text) if isinstance(vector, Numbers) else floats(vector.data)


def packed(vector: Vector) -> bytes:
    """``vector`` as little-endian float32."""
    if isinstance(vector, Packed):
        return vector.data
    return _pack(array("f", _numbers.decode(vector.text)))


def _pack(numbers: "array[float]") -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def floats(data: bytes) -> "array[float]":
    """The numbers in little-endian float32; raise :exc:`ValueError` for half a number."""
    numbers = array("f")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
