"""What the gateway itself reads of a chat-completions request.

The rest of the request belongs to the model: it is kept as JSON text and
passed on. Fields and limits: OpenAI's API reference, "Create chat completion".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.json_body import parse_object
from appliance.protocols.long_json import shape
from appliance.protocols.prompt_links import linked_size, pictures_beyond

T = TypeVar("T")

LONGEST_MODEL = 256  # characters
LONGEST_USER = 512
_MOST_TOKENS = 10_000_000


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


_model = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | None)
_tokens = msgspec.json.Decoder(int | None)
_text = msgspec.json.Decoder(str | None)
_options = msgspec.json.Decoder(_StreamOptions | None)
_messages = msgspec.json.Decoder(list[_Message])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])

# Only where a part holds one: what a text says of "data:" is text, and costs
# what text costs. Inside a string the quotes around these names would be escaped.
# A document is not a picture: as long as it is, so much it may cost.
_PICTURES = (b'"url"', b'"image_url"', b'"file_data"')
_READ_BY_THE_MODEL = ("tools", "functions", "response_format", "prediction")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat-completions request.

    ``body`` maps every top-level key to its JSON text. ``output_limit`` is in
    tokens, None where the caller set none. ``prompt_bytes`` is the size that
    the prompt's cost is estimated from, attachments already converted.
    """

    model: str
    stream: bool
    include_usage: bool
    output_limit: int | None
    user: str | None
    choices: int
    prompt_bytes: int
    body: Mapping[str, bytes]

    @classmethod
    def parse(cls, data: bytes, *, limit_bytes: int) -> "ChatRequest":
        """Read a request body; raise :exc:`InvalidRequest` naming the field."""
        return cls.of(parse_object(data, limit_bytes=limit_bytes))

    @classmethod
    def of(cls, body: Mapping[str, bytes]) -> "ChatRequest":
        """Read a request from its top-level members; raises like :meth:`parse`."""
        model = _read(body, "model", _model, required=True)
        if not model or len(model) > LONGEST_MODEL or not model.isprintable():
            raise InvalidRequest.at(
                "model",
                f"must be 1 to {LONGEST_MODEL} printable characters",
                "GET /v1/models lists them",
            )
        options = _read(body, "stream_options", _options)
        return cls(
            model=model,
            stream=bool(_read(body, "stream", _flag)),
            include_usage=options is not None and bool(options.include_usage),
            output_limit=_output_limit(body),
            user=_user(body),
            choices=_choices(body),
            prompt_bytes=prompt_size(body),
            body=body,
        )

    def messages(self) -> list[dict[str, object]]:
        """The messages, decoded; raise :exc:`InvalidRequest` for one without a role."""
        _read(self.body, "messages", _messages, required=True)
        decoded: list[dict[str, object]] = msgspec.json.decode(self.body["messages"])
        return decoded


def _output_limit(body: Mapping[str, bytes]) -> int | None:
    for field in ("max_completion_tokens", "max_tokens"):
        limit: int | None = _read(body, field, _tokens)
        if limit is None:
            continue
        if not 1 <= limit <= _MOST_TOKENS:
            raise InvalidRequest.at(field, f"must lie between 1 and {_MOST_TOKENS}")
        return limit
    return None


def _choices(body: Mapping[str, bytes]) -> int:
    choices: int | None = _read(body, "n", _tokens)
    if choices is None:
        return 1
    if not 1 <= choices <= 128:
        raise InvalidRequest.at("n", "must lie between 1 and 128")
    return choices


def _user(body: Mapping[str, bytes]) -> str | None:
    user: str | None = _read(body, "user", _text)
    if user is not None and len(user) > LONGEST_USER:
        raise InvalidRequest.at("user", f"must be at most {LONGEST_USER} characters")
    return user


def prompt_size(body: Mapping[str, bytes]) -> int:
    """The bytes that the prompt's tokens are estimated from.

    Raises :exc:`InvalidRequest` for messages that are missing or empty.
    """
    messages = body.get("messages")
    if messages is None:
        raise InvalidRequest.at("messages", "is missing", "send a list of messages")
    if not _read({"messages": shape(messages)}, "messages", _raw_list):
        raise InvalidRequest.at("messages", "must not be empty", "send at least one message")
    size = len(messages) + sum(len(body.get(field, b"")) for field in _READ_BY_THE_MODEL)
    return size - pictures_beyond(messages, _PICTURES) + linked_size(messages)


def _read(
    body: Mapping[str, bytes],
    field: str,
    decoder: msgspec.json.Decoder[T],
    *,
    required: bool = False,
) -> T | None:
    text = body.get(field)
    if text is None:
        if required:
            raise InvalidRequest.at(field, "is missing")
        return None
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as exc:
        raise InvalidRequest.at(field, str(exc).replace(" - at `$", " at `$")) from exc
