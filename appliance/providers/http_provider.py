"""A model provider reached over HTTP, whatever its dialect.

What differs between dialects is a :class:`Wire`: where a request goes, what it
says, and how the answer is read. Everything else is here once.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

import msgspec
import trio

import appliance
from appliance.model.calls import Dialect, ModelCall, Timeouts
from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall
from appliance.model.errors import ConfigInvalid, InvalidRequest, ProviderFailure, UpstreamFailed
from appliance.model.ids import REQUEST_ID
from appliance.protocols.answers import WholeAnswer
from appliance.protocols.embeddings import largest_answer
from appliance.protocols.json_body import INLINE_BYTES
from appliance.providers.base import LARGEST_ANSWER, Reply
from appliance.providers.connections import ConnectionPool, Response
from appliance.providers.errors import (
    CONNECTION_TROUBLE,
    EmbeddingRefused,
    connection_failure,
    refusal,
)
from appliance.providers.replies import Context, StreamedReply, WholeReply

Clock = Callable[[], datetime]

_LARGEST_REFUSAL = 64 * 1024
_INLINE_ANSWER = 128 * 1024  # bytes; more is read in a thread, a vector at a time
_INLINE_COPY = 1024 * 1024  # bytes; copying more holds up everybody else for milliseconds
_REFUSAL_PATIENCE = 10.0
_LARGEST_LIST = 4 * 1024 * 1024
_LIST_PATIENCE = 10.0
_LIST_LASTS = 300.0  # seconds
_MOST_MODELS = 2000
_KEY = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_USUAL = Timeouts()
_REQUEST_ID_HEADERS = (b"x-request-id", b"request-id")


class Wire(Protocol):
    """What a dialect is on the wire. Holds no state of a call."""

    dialect: Dialect
    chat_path: str  # below the base URL
    models_path: str
    headers: Sequence[tuple[str, str]]  # that every request carries
    answer_types: frozenset[bytes]  # media types of a stream in this dialect

    def authorization(self, api_key: str) -> tuple[str, str]:
        """The header that carries the key."""

    def encode(self, call: ModelCall) -> bytes:
        """The request's body; raise :exc:`InvalidRequest` for what cannot be said."""

    def reply(self, response: Response, context: Context) -> StreamedReply:
        """The reply that reads a streamed answer."""

    def read_whole(self, text: bytes) -> WholeAnswer:
        """An answer in one piece; raise :exc:`AnswerFailed` for what is none."""

    def read_models(self, body: bytes) -> Sequence[str]:
        """The ids in the answer to ``models_path``; raise :exc:`ValueError` for nonsense."""


@runtime_checkable
class EmbeddingWire(Protocol):
    """What a dialect that has embeddings adds to :class:`Wire`."""

    embeddings_path: str  # below the base URL

    def encode_embeddings(self, call: EmbeddingCall) -> bytes:
        """The request's body; raise :exc:`EmbeddingRefused` for what cannot be said."""

    def read_embeddings(self, text: bytes, call: EmbeddingCall) -> EmbeddingAnswer:
        """The answer to ``call``; raise :exc:`AnswerFailed` for what is none."""


class HttpProvider:
    """One provider, its connections, and the head of the requests to it."""

    def __init__(
        self,
        name: str,
        wire: Wire,
        pool: ConnectionPool,
        *,
        base_url: str,
        clock: Clock,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        models: Sequence[str] = (),
        request_timeout: float = 600.0,
        stream_idle_timeout: float = 60.0,
    ) -> None:
        """Raise :exc:`ConfigInvalid` for a key or a header that no request could carry."""
        self.name = name
        self.dialect = wire.dialect
        self._wire = wire
        self._pool = pool
        self._clock = clock
        self._configured_models = tuple(models)
        self._request_timeout = request_timeout
        self._stream_idle_timeout = stream_idle_timeout
        url = urlsplit(base_url)
        self._path = url.path.rstrip("/")
        self._fixed = self._fixed_headers(url.netloc.rpartition("@")[2], headers or {})
        self._api_key = api_key
        self._head = self._request_head(api_key)
        self._listed: tuple[float, Sequence[str]] | None = None

    def open(self, call: ModelCall, *, api_key: str | None = None) -> "_Opening":
        return _Opening(self, call, api_key)

    async def ask(self, call: ModelCall, api_key: str | None) -> StreamedReply | WholeReply:
        """Send ``call`` and return the reply once it begins (see ``Provider.open``)."""
        own = call.headers if call.dialect is self.dialect else None
        head = self._head
        if api_key is not None or own:
            head = self._request_head(api_key or self._api_key, own=own)
        if REQUEST_ID.fullmatch(call.request_id):
            head += b"X-Request-Id: %s\r\n" % call.request_id.encode("ascii")
        began = trio.current_time()
        timeouts = call.timeouts or _USUAL
        body = await self._encoded(call)
        response = await self._send(head, body, patience=self._until_head(call, timeouts))
        try:
            reply = await self._reply(call, response)
            # A provider that says 200 and then fails, or thinks, has not answered yet.
            first_token = timeouts.first_token
            await reply.prime(
                deadline=math.inf if first_token is None else began + first_token,
                needs_token=first_token is not None or call.has_next,
            )
        except CONNECTION_TROUBLE as exc:
            response.release()
            raise connection_failure(self.name, exc) from exc
        except BaseException:
            response.release()
            raise
        return reply

    async def _encoded(self, call: ModelCall) -> bytes:
        """The body; a large one that has to be translated is not to hold up everybody else."""
        # Of responses each item is read and written anew, also for one who speaks like that.
        is_own = call.dialect is self._wire.dialect is not Dialect.RESPONSES
        if sum(map(len, call.body.values())) <= (_INLINE_COPY if is_own else INLINE_BYTES):
            return self._wire.encode(call)
        return await trio.to_thread.run_sync(self._wire.encode, call)

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        limit: int,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send a request that is no chat and return the body of a good answer.

        ``path`` is below the base URL; ``limit`` bounds the answer in bytes;
        ``headers`` come in place of those of the same name. Raises
        :exc:`ProviderFailure`.
        """
        head = self._request_head(api_key or self._api_key, path=path, own=headers)
        text, _ = await self._exchange(head, body, limit=limit)
        return text

    async def embed(self, call: EmbeddingCall, *, api_key: str | None = None) -> EmbeddingAnswer:
        """As :meth:`EmbeddingProvider.embed`."""
        wire = self._wire
        if not isinstance(wire, EmbeddingWire):
            raise EmbeddingRefused.at(
                "model",
                f"{self.name} has no embeddings",
                "name a model of a provider that makes them, or set models.embedding",
            )
        key = self._api_key if api_key is None else api_key
        head = self._request_head(key, path=wire.embeddings_path)
        if REQUEST_ID.fullmatch(call.request_id):
            head += b"X-Request-Id: %s\r\n" % call.request_id.encode("ascii")
        if sum(map(len, call.texts or call.tokens)) <= INLINE_BYTES:
            body = wire.encode_embeddings(call)
        else:
            body = await trio.to_thread.run_sync(wire.encode_embeddings, call)
        text, request_id = await self._exchange(
            head, body, limit=largest_answer(call), patience=call.patience
        )
        try:
            if len(text) < _INLINE_ANSWER:
                answer = wire.read_embeddings(text, call)
            else:
                answer = await trio.to_thread.run_sync(wire.read_embeddings, text, call)
        except CONNECTION_TROUBLE as exc:
            raise connection_failure(self.name, exc) from exc
        return replace(answer, provider_request_id=request_id)

    async def _exchange(
        self, head: bytes, body: bytes, *, limit: int, patience: float | None = None
    ) -> tuple[bytes, str | None]:
        """Send a request; return a good answer's body and what the provider calls the request."""
        patience = patience or self._request_timeout
        response = await self._send(head, body, patience=patience)
        try:
            if not 200 <= response.status < 300:
                raise await self._refusal(response)
            text = await response.read_all(limit=limit, patience=patience)
            return text, _request_id(response)
        except CONNECTION_TROUBLE as exc:
            raise connection_failure(self.name, exc) from exc
        finally:
            response.release()

    def _until_head(self, call: ModelCall, timeouts: Timeouts) -> float:
        patience = timeouts.request or self._request_timeout
        if call.stream and timeouts.first_token is not None:
            patience = min(patience, timeouts.first_token)
        return patience

    async def _send(self, head: bytes, body: bytes, *, patience: float | None = None) -> Response:
        head = b"%sContent-Length: %d\r\n\r\n" % (head, len(body))
        if len(body) <= _INLINE_COPY:
            request = head + body
        else:
            request = await trio.to_thread.run_sync(operator.add, head, body)
        try:
            return await self._pool.exchange(request, patience=patience or self._request_timeout)
        except CONNECTION_TROUBLE as exc:
            raise connection_failure(self.name, exc) from exc

    async def models(self) -> Sequence[str]:
        if self._configured_models:
            return self._configured_models
        now = trio.current_time()
        if self._listed is None or now - self._listed[0] >= _LIST_LASTS:
            # Also an empty list is kept: a provider that is down is not asked each time.
            self._listed = (now, await self._ask_for_models())
        return self._listed[1]

    def close(self) -> None:
        """Close what is idle; calls under way go on to their end."""
        self._pool.close()

    async def aclose(self) -> None:
        self.close()

    async def _reply(self, call: ModelCall, response: Response) -> StreamedReply | WholeReply:
        if not 200 <= response.status < 300:
            raise await self._refusal(response)
        if response.header(b"content-encoding") not in {None, b"", b"identity"}:
            raise UpstreamFailed(f"{self.name} compressed its answer, which nobody asked for")
        media_type = (response.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        context = Context(
            provider=self.name,
            model=call.model,
            request_id=_request_id(response),
            idle_timeout=(call.timeouts and call.timeouts.idle) or self._stream_idle_timeout,
            prompt_bytes=call.prompt_bytes,
        )
        if media_type in self._wire.answer_types:
            return self._wire.reply(response, context)
        if media_type != b"application/json":
            shown = media_type.decode("ascii", "replace")[:60] or "nothing we know"
            raise UpstreamFailed(f"{self.name} answered with {shown} instead of JSON")
        patience = (call.timeouts and call.timeouts.request) or self._request_timeout
        text = await response.read_all(limit=LARGEST_ANSWER, patience=patience)
        response.release()
        return WholeReply(self._wire.read_whole(text), context, dialect=self._wire.dialect)

    async def _refusal(self, response: Response) -> ProviderFailure:
        try:
            body = await response.read_all(limit=_LARGEST_REFUSAL, patience=_REFUSAL_PATIENCE)
        except CONNECTION_TROUBLE:
            body = b""  # the status says enough
        response.release()
        return refusal(self.name, response.status, dict(response.headers), body, now=self._clock())

    async def _ask_for_models(self) -> Sequence[str]:
        head = self._request_head(self._api_key, method="GET", path=self._wire.models_path)
        try:
            response = await self._pool.exchange(head + b"\r\n", patience=_LIST_PATIENCE)
            try:
                body = await response.read_all(limit=_LARGEST_LIST, patience=_LIST_PATIENCE)
            finally:
                response.release()
            return self._wire.read_models(body)[:_MOST_MODELS] if response.status == 200 else ()
        except (*CONNECTION_TROUBLE, ValueError):
            return ()

    def _fixed_headers(self, host: str, headers: Mapping[str, str]) -> str:
        lines = [f"Host: {host}", f"User-Agent: openclawmu/{appliance.__version__}"]
        for name, value in headers.items():
            field = f"providers.{self.name}.headers.{name}"
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigInvalid.at(field, "is not a header", "use one line of printable ASCII")
            lines.append(f"{name}: {value}")
        return "\r\n".join(lines)

    def _request_head(
        self,
        api_key: str | None,
        *,
        method: str = "POST",
        path: str | None = None,
        own: Mapping[str, str] | None = None,
    ) -> bytes:
        """``own`` headers of a call come in place of the dialect's of the same name."""
        target = self._path + (self._wire.chat_path if path is None else path)
        lines = [f"{method} {target} HTTP/1.1", self._fixed, *self._dialect_headers(own or {})]
        if api_key:
            if not _KEY.fullmatch(api_key):
                field = f"providers.{self.name}.api_key"
                raise ConfigInvalid.at(field, "is not a key", "it holds what no header can carry")
            lines.append(": ".join(self._wire.authorization(api_key)))
        if method == "POST":
            lines.append("Content-Type: application/json")
        lines.append("Accept: application/json, text/event-stream, application/x-ndjson")
        return ("\r\n".join(lines) + "\r\n").encode("ascii")

    def _dialect_headers(self, own: Mapping[str, str]) -> Iterator[str]:
        named = {name.lower() for name in own}
        for name, value in self._wire.headers:
            if name.lower() not in named:
                yield f"{name}: {value}"
        for name, value in own.items():
            # They come from a stranger: a line's end in one would begin another.
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise InvalidRequest.at(name, "is not a header", "use one line of printable ASCII")
            yield f"{name}: {value}"


class _Opening:
    """The context of one call: what was asked for ends with the block."""

    __slots__ = ("_api_key", "_call", "_provider", "_reply")

    def __init__(self, provider: HttpProvider, call: ModelCall, api_key: str | None) -> None:
        self._provider = provider
        self._call = call
        self._api_key = api_key
        self._reply: StreamedReply | WholeReply | None = None

    async def __aenter__(self) -> Reply:
        self._reply = await self._provider.ask(self._call, self._api_key)
        self._reply.begin()
        return self._reply

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reply is not None:
            await self._reply.end(exc)


def _request_id(response: Response) -> str | None:
    for name in _REQUEST_ID_HEADERS:
        value = response.header(name)
        if value is not None and len(value) <= 128 and value.isascii():
            return value.decode("ascii")
    return None


class _Listed(msgspec.Struct):
    id: str


class _List(msgspec.Struct):
    data: list[_Listed]


_list = msgspec.json.Decoder(_List)


def listed_ids(body: bytes) -> list[str]:
    """The ids in ``{"data": [{"id": …}]}``, as OpenAI and Anthropic list their models."""
    return [entry.id for entry in _list.decode(body).data]
