"""What the gateway itself reads of a request to Anthropic's Messages API.

The rest of the request belongs to the model: it is kept as JSON text and
passed on. Reference: "Create a Message" and "Versioning". With the version of
2026-10-21 sampling parameters, documents in the assistant's messages and
citations in the user's text are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from appliance.model.errors import InvalidRequest
from appliance.protocols.chat_request import LONGEST_MODEL, LONGEST_USER
from appliance.protocols.json_body import parse_object
from appliance.protocols.long_json import shape
from appliance.protocols.prompt_links import linked_size, sources_beyond

T = TypeVar("T")

OLDEST_VERSION = "2023-06-01"
NEWEST_VERSION = "2026-10-21"
VERSIONS = (OLDEST_VERSION, NEWEST_VERSION)

_REMOVED = ("temperature", "top_p", "top_k")
_MOST_TOKENS = 10_000_000
_BETA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_MOST_BETAS = 50

_READ_BY_THE_MODEL = ("system", "tools", "output_config")
_BYTES_A_TOKEN = 4  # as the meter counts a prompt that nobody else has counted


class _Metadata(msgspec.Struct, frozen=True):
    user_id: str | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[msgspec.Raw]


_model = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | None)
_tokens = msgspec.json.Decoder(int)
_metadata = msgspec.json.Decoder(_Metadata | None)
_messages = msgspec.json.Decoder(list[_Message])
_system = msgspec.json.Decoder(str | list[msgspec.Raw] | None)


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    """A request for a message, or for the count of its tokens.

    ``body`` maps every top-level key to its JSON text. ``output_limit`` is in
    tokens, None where only the prompt is counted. ``prompt_bytes`` is the size
    that the prompt's cost is estimated from, pictures already converted.
    """

    model: str
    stream: bool
    output_limit: int | None
    user: str | None
    prompt_bytes: int
    body: Mapping[str, bytes]

    @property
    def estimated_tokens(self) -> int:
        """What the prompt has, as long as nobody has counted."""
        return -(-self.prompt_bytes // _BYTES_A_TOKEN)

    @classmethod
    def parse(
        cls, data: bytes, *, limit_bytes: int, version: str = OLDEST_VERSION
    ) -> "MessagesRequest":
        """Read the body of ``POST /v1/messages``; raise :exc:`InvalidRequest` naming the field."""
        body = parse_object(data, limit_bytes=limit_bytes)
        return cls._of(body, version, output_limit=_output_limit(body))

    @classmethod
    def parse_prompt(
        cls, data: bytes, *, limit_bytes: int, version: str = OLDEST_VERSION
    ) -> "MessagesRequest":
        """Read the body of ``POST /v1/messages/count_tokens``, which needs no limit."""
        return cls._of(parse_object(data, limit_bytes=limit_bytes), version, output_limit=None)

    @classmethod
    def _of(
        cls, body: Mapping[str, bytes], version: str, *, output_limit: int | None
    ) -> "MessagesRequest":
        model = _require(body, "model", _model)
        if not model or len(model) > LONGEST_MODEL or not model.isprintable():
            raise InvalidRequest.at(
                "model",
                f"must be 1 to {LONGEST_MODEL} printable characters",
                "GET /v1/models lists them",
            )
        # Of what only the model reads the form is looked at.
        forms = {name: shape(body[name]) for name in ("messages", "system") if name in body}
        if not _require(forms, "messages", _messages):
            raise InvalidRequest.at("messages", "must not be empty", "send at least one message")
        _read(forms, "system", _system)
        if version >= NEWEST_VERSION:
            _refuse_removed({**body, **forms})
        return cls(
            model=model,
            stream=bool(_read(body, "stream", _flag)),
            output_limit=output_limit,
            user=_user(body),
            prompt_bytes=prompt_size(body),
            body=body,
        )


def read_version(header: str | None) -> str:
    """The version a caller speaks; raise :exc:`InvalidRequest` for one there is not."""
    if header is None:
        return OLDEST_VERSION
    if header not in VERSIONS:
        raise InvalidRequest.at(
            "anthropic-version",
            f"{header[:40]!r} is not a valid version",
            f"send {' or '.join(VERSIONS)}",
        )
    return header


def read_betas(headers: list[str]) -> str:
    """The beta features that all ``anthropic-beta`` headers name together, "" for none.

    Raises :exc:`InvalidRequest` for what is no list of names.
    """
    names = [name.strip() for header in headers for name in header.split(",") if name.strip()]
    if len(names) > _MOST_BETAS or not all(map(_BETA.fullmatch, names)):
        raise InvalidRequest.at("anthropic-beta", "is not a list of beta features")
    return ",".join(dict.fromkeys(names))


def prompt_size(body: Mapping[str, bytes]) -> int:
    """The bytes that the prompt's tokens are estimated from."""
    messages = body["messages"]
    size = len(messages) + sum(len(body.get(field, b"")) for field in _READ_BY_THE_MODEL)
    return size - sources_beyond(messages) + linked_size(messages)


def _output_limit(body: Mapping[str, bytes]) -> int:
    limit = _require(body, "max_tokens", _tokens)
    if not 1 <= limit <= _MOST_TOKENS:
        raise InvalidRequest.at("max_tokens", f"must lie between 1 and {_MOST_TOKENS}")
    return limit


def _user(body: Mapping[str, bytes]) -> str | None:
    metadata = _read(body, "metadata", _metadata)
    user = None if metadata is None else metadata.user_id
    if user is not None and len(user) > LONGEST_USER:
        raise InvalidRequest.at("metadata.user_id", f"must be at most {LONGEST_USER} characters")
    return user


def _refuse_removed(body: Mapping[str, bytes]) -> None:
    """What the version of 2026-10-21 took away."""
    for name in _REMOVED:
        if body.get(name, b"null") != b"null":
            raise InvalidRequest.at(
                name,
                f"is not part of anthropic-version {NEWEST_VERSION}",
                f"leave it out, or send anthropic-version {OLDEST_VERSION}",
            )
    messages: list[dict[str, Any]] = msgspec.json.decode(body["messages"])
    for number, message in enumerate(messages):
        content = message["content"]
        for place, block in enumerate(content if isinstance(content, list) else ()):
            at = f"messages.{number}.content.{place}"
            match message["role"], block:
                case "assistant", {"type": "document"}:
                    raise InvalidRequest.at(at, "an assistant's message cannot hold a document")
                case "user", {"type": "text", "citations": list(citations)} if citations:
                    raise InvalidRequest.at(f"{at}.citations", "a user's text cannot cite")


def _require(body: Mapping[str, bytes], field: str, decoder: msgspec.json.Decoder[T]) -> T:
    value = _read(body, field, decoder)
    if value is None:
        raise InvalidRequest.at(field, "is missing")
    return value


def _read(body: Mapping[str, bytes], field: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    text = body.get(field)
    if text is None:
        return None
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as exc:
        raise InvalidRequest.at(field, str(exc).replace(" - at `$", " at `$")) from exc
