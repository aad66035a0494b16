"""``POST /v1/responses``, and what else is asked of a model there."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec

from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.ids import parse_agent_id
from appliance.model.session_keys import DEFAULT_AGENT, SessionKey
from appliance.model.session_scopes import user_key
from appliance.model.tokens import Scope
from appliance.protocols.json_body import parse_object
from appliance.protocols.responses.request import ResponsesRequest
from appliance.protocols.responses.writer import DONE
from appliance.services.responses.compaction import Compaction
from appliance.services.responses.responses import Responses
from appliance.services.responses.runs import Asked, ResponseRun
from appliance.transports.bodies import off_the_loop
from appliance.transports.openai_api.failures import failure_of
from appliance.transports.problems import find_expected
from appliance.transports.raw.agents import AGENT_HEADER, SESSION_HEADER, agent_of
from appliance.transports.raw.call_headers import ESTIMATED, settled_headers
from appliance.transports.raw.exchange import Exchange
from appliance.transports.raw.failures import Failure

PATH = "/v1/responses"
_FORM = b"application/x-www-form-urlencoded"
_LONGEST_QUERY = 4096  # bytes
_MOST_PARAMETERS = 50

T = TypeVar("T")


def described(error: BaseException, request_id: str) -> dict[str, str | None]:
    """The members of OpenAI's error object."""
    return msgspec.json.decode(failure_of(error, request_id).body, type=_Failure).error


class _Failure(msgspec.Struct):
    error: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class ResponsesHandler:
    """Answers, as a stream or whole; with ``background`` at once."""

    responses: Responses

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        caller = exchange.admit(Scope.CHAT)
        body = await exchange.read()
        request = await off_the_loop(body, partial(_parsed, exchange, body))
        runtime = await exchange.wake()
        asked = asked_of(exchange, request)
        run = self.responses.begin(asked)
        if request.background:
            start = partial(self.responses.start, runtime, caller, run)
            queued = await exchange.perform(start)
            if request.stream:
                await follow(exchange, self.responses, run.id, after=-1)
            else:
                await exchange.answer.whole(queued)
            return
        exchange.answer.streams = request.stream
        exchange.form = partial(failure_in, run)
        await exchange.perform(
            partial(self.responses.answer, runtime, caller, run, exchange.answer)
        )


@dataclass(frozen=True, slots=True)
class CompactHandler:
    """``POST /v1/responses/compact``."""

    compaction: Compaction

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        caller = exchange.admit(Scope.CHAT)
        request = await _read(exchange, ResponsesRequest.of_compaction)
        runtime = await exchange.wake()
        agent = asked_of(exchange, request).agent
        work = partial(self.compaction.compact, runtime, caller, request, agent=agent)
        made = await exchange.perform(work)
        headers = settled_headers(made.call)
        await exchange.answer.whole(made.body, headers=headers, waited=made.call.waited)


@dataclass(frozen=True, slots=True)
class InputTokensHandler:
    """``POST /v1/responses/input_tokens``."""

    compaction: Compaction

    async def __call__(self, exchange: Exchange) -> None:
        exchange.require_method("POST")
        caller = exchange.admit(Scope.CHAT, Scope.READ)
        request = await _read(exchange, ResponsesRequest.of_count)
        runtime = await exchange.wake()
        agent = asked_of(exchange, request).agent
        count = partial(self.compaction.count, runtime, caller, request, agent=agent)
        counted = await exchange.perform(count)
        told = {"object": "response.input_tokens", "input_tokens": counted.tokens}
        await exchange.answer.whole(
            msgspec.json.encode(told),
            headers=(ESTIMATED,) if counted.is_estimated else (),
            waited=counted.waited,
        )


async def follow(exchange: Exchange, responses: Responses, response_id: str, *, after: int) -> None:
    """Tell the events of a run in the background, as far as they come while the client is there."""
    runtime = exchange.runtime
    if runtime is None:
        raise RuntimeError("the tenant was not woken")
    answer = exchange.answer
    answer.streams = True

    async def tell() -> None:
        async with aclosing(responses.follow(runtime, response_id, after=after)) as events:
            async for some in events:
                await answer.open_stream()
                await answer.send(some)
        await answer.open_stream()
        await answer.close_stream(DONE)

    await exchange.perform(tell)


def failure_in(run: ResponseRun, error: BaseException, request_id: str) -> Failure:
    """``error`` as it is told, also where the stream has begun."""
    if run.told is not None and find_expected(error) is None:
        # Logged with its reference already.
        return Failure(500, msgspec.json.encode({"error": run.told}), (), run.failure)
    failure = failure_of(error, request_id)
    if run.failure:
        return replace(failure, stream=run.failure)
    told = msgspec.json.decode(failure.body, type=_Failure).error
    stream = run.writer.failed(
        code=told["code"] or "server_error",
        message=told["message"] or "",
        type=told["type"] or "server_error",
        param=told["param"],
    )
    return replace(failure, stream=stream)


def asked_of(exchange: Exchange, request: ResponsesRequest) -> Asked:
    """Whom the request is for. Raises :exc:`InvalidRequest`."""
    agent = agent_named(request.model, exchange.header(AGENT_HEADER))
    if agent is None:
        return Asked(request=request)
    tenant = "" if exchange.runtime is None else exchange.runtime.id
    session = session_named(tenant, agent, exchange.header(SESSION_HEADER), request.user)
    return Asked(request=request, agent=agent, session=session)


def agent_named(model: str, header: bytes | None) -> str | None:
    """The agent that is asked, None for a model. Raises :exc:`InvalidRequest`."""
    agent = agent_of(model)
    if agent is None:
        return None
    if header is not None and agent == DEFAULT_AGENT:
        agent = header.decode("latin-1").strip().lower()
    try:
        return parse_agent_id(agent)
    except ValueError as exc:
        raise InvalidRequest.at("model", str(exc)) from exc


def session_named(
    tenant: str, agent: str, header: bytes | None, user: str | None
) -> SessionKey | None:
    """The session that a header names, or the caller's ``user``. Raises :exc:`InvalidRequest`."""
    if header is not None:
        try:
            text = header.decode()
        except UnicodeDecodeError:
            raise InvalidRequest.at("x-openclaw-session-key", "is not UTF-8") from None
        return SessionKey.parse(text, tenant=tenant, agent=agent)
    if user:
        return user_key(tenant, agent, user)
    return None


def query_of(exchange: Exchange) -> dict[str, str]:
    """The query's parameters, the last of each name. Raises :exc:`InvalidRequest`."""
    query: bytes = exchange.scope.get("query_string", b"")
    if len(query) > _LONGEST_QUERY:
        raise InvalidRequest.at("", f"the query is longer than {_LONGEST_QUERY} bytes")
    try:
        found = parse_qs(
            query.decode(),
            keep_blank_values=True,
            max_num_fields=_MOST_PARAMETERS,
            errors="strict",
        )
    except ValueError:
        raise InvalidRequest.at("", "the query cannot be read") from None
    return {name: values[-1] for name, values in found.items()}


def flag_of(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise InvalidRequest.at(name, "must be true or false")
    return text in {"true", "1"}


def number_of(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.removeprefix("-").isdigit() or len(text) > 18 or not text.isascii():
        raise InvalidRequest.at(name, "must be a whole number")
    return int(text)


def id_in(part: str, prefix: str) -> str:
    """An id from a path. What cannot be one is like one that nobody has."""
    if not part or len(part) > 128 or not part.isascii() or not part.isprintable():
        raise NotFound(f"there is no {prefix} with this id")
    return part


async def read_members(exchange: Exchange) -> dict[str, bytes]:
    """The members of a JSON body."""
    body = await exchange.read()
    limit = exchange.door.config.server.max_body_bytes
    return await off_the_loop(body, partial(parse_object, body, limit_bytes=limit))


async def _read(exchange: Exchange, read: Callable[[dict[str, bytes]], T]) -> T:
    body = await exchange.read()
    limit = exchange.door.config.server.max_body_bytes
    return await off_the_loop(body, lambda: read(parse_object(body, limit_bytes=limit)))


def _parsed(exchange: Exchange, body: bytes) -> ResponsesRequest:
    limit = exchange.door.config.server.max_body_bytes
    kind = (exchange.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    # A form never begins like that; curl calls everything a form unless told otherwise.
    if kind == _FORM and not body.lstrip().startswith(b"{"):
        return ResponsesRequest.parse_form(body, limit_bytes=limit)
    return ResponsesRequest.parse(body, limit_bytes=limit)


Handler = Callable[[Exchange], Awaitable[None]]
