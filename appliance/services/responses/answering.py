"""Getting an answer: from a model, or from an agent's turn."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import msgspec
import trio

from appliance.model.cache_use import CacheWish
from appliance.model.callers import Caller
from appliance.model.calls import Delta, Dialect, Finished
from appliance.model.errors import ContextTooLong, Fault, InvalidRequest
from appliance.model.session_keys import SessionKey
from appliance.model.usage import TokenUsage
from appliance.protocols.chat_request import ChatRequest
from appliance.protocols.responses.items import TOOL_CALL, Item
from appliance.protocols.responses.options import LOGPROBS, TOOL_CALLS
from appliance.protocols.responses.request import ResponsesRequest, prompt_size
from appliance.protocols.translation import read_prompt, write_body
from appliance.providers.base import LARGEST_ANSWER
from appliance.providers.errors import UpstreamFailed
from appliance.services.model_calls import CallRequest, ModelCalls, OpenCall
from appliance.services.responses.compaction import Summary, on_the_way
from appliance.services.responses.contexts import Continued, shorter, upstream_body
from appliance.services.responses.runs import ResponseRun, ResponseSink, ResponsesTenant
from appliance.services.turns.requests import ToolActivity, TurnRequest
from appliance.services.turns.rounds import added
from appliance.services.turns.turns import Turns

Complete = Callable[[], Awaitable[None]]  # makes the response durable


class ModelAnswer:
    """One response of a provider's model."""

    def __init__(
        self,
        calls: ModelCalls,
        tenant: ResponsesTenant,
        caller: Caller,
        run: ResponseRun,
        sink: ResponseSink,
        complete: Complete,
    ) -> None:
        self._calls = calls
        self._tenant = tenant
        self._caller = caller
        self._run = run
        self._sink = sink
        self._complete = complete
        self._summary: Summary | None = None  # of what was before, made on the way
        self._waited = 0.0  # seconds for the model, before it was asked for the answer itself

    async def give(self) -> None:
        """Ask and pass on the answer; the last of it is sent once it is kept.

        A conversation that is longer than ``context_management`` allows is compacted
        before anything is told. With ``truncation: auto`` one that the model finds
        too long is sent again without its beginning. Raises what a model call
        raises, be it the one for the summary.
        """
        run = self._run
        request, context = run.resolved, run.context
        found = Continued(request=request, context=context)
        compacted = await on_the_way(self._calls, self._tenant, self._caller, found)
        if compacted is not None:
            self._summary, request = compacted
            self._waited = self._summary.call.waited
            context = ()
        ways: Iterator[tuple[ResponsesRequest, Sequence[Item]]] = iter(())
        if request.truncation == "auto":
            ways = shorter(request, context)
        while True:
            try:
                call = await self._ask(request, context)
            except ContextTooLong as error:
                error.waited += self._waited
                self._waited = error.waited
                if run.has_begun:
                    raise
                # In a thread: it writes all of a long conversation down to measure it.
                following = await trio.to_thread.run_sync(next, ways, None)
                if following is None:
                    raise
                request, context = following
            else:
                break
        await self._finish(call)

    async def _ask(self, request: ResponsesRequest, context: Sequence[Item]) -> OpenCall:
        caller = self._caller
        if request.has_hosted_tools:
            self._require_open_tools()
        if request.may_have_hosted_tools or request.prewarm:
            # What they find is of today, and what they do is done once. An answer without
            # words is for nobody who wants some.
            caller = replace(caller, cache=CacheWish.BYPASS)
        body = await upstream_body(request, context)
        # As it came it has no ids, which cost nothing and are half of a short message.
        as_it_came = not context and request is self._run.asked.request
        asked = CallRequest(
            model=request.model,
            body=body,
            stream=self._run.is_streamed,
            prompt_bytes=request.prompt_bytes if as_it_came else prompt_size(body),
            output_limit=request.output_limit,
            kind="responses",
            dialect=Dialect.RESPONSES,
        )
        async with self._calls.open(self._tenant, caller, asked) as call:
            call.waited += self._waited
            if self._run.is_streamed:
                await self._stream(call)
            else:
                await self._collect(call)
        return call

    def _require_open_tools(self) -> None:
        """Raise :exc:`InvalidRequest` where answers are looked through: nobody could, in theirs."""
        rules = self._calls.rules.find(self._tenant.id, self._tenant.config)
        if rules is not None and any(each.action != "flag" for each in rules.answer):
            raise InvalidRequest.at(
                "tools",
                "what tools of a provider find cannot be looked through, as the guardrails demand",
                "send function tools",
            )

    async def _stream(self, call: OpenCall) -> None:
        run, sink = self._run, self._sink
        events = b""
        async with aclosing(call.reply.deltas()) as answer:
            async for deltas in answer:
                if not run.has_begun:
                    # Only now: what fails at once still gets an answer with its own status.
                    run.has_begun = True
                    await sink.begin(call)
                    events = run.writer.start(call.target.model)
                    if self._summary is not None:
                        events += run.writer.compacted(self._summary.item)
                _check_size(call)
                events += run.writer.deltas(deltas)
                if events:
                    await sink.send(events)
                    events = b""

    async def _collect(self, call: OpenCall) -> None:
        if self._summary is not None and not self._run.writer.output:  # asked again, it is there
            self._run.writer.compacted(self._summary.item)
        async with aclosing(call.reply.deltas()) as answer:
            async for deltas in answer:
                _check_size(call)
                self._run.writer.collect(deltas)

    async def _finish(self, call: OpenCall) -> None:
        run = self._run
        usage = None if call.settlement is None else call.settlement.usage
        if self._summary is not None:
            usage = added(self._summary.usage, usage or TokenUsage())
            call.cost_nano = _sum(self._summary.cost_nano, call.cost_nano)
            call.is_estimated = usage.estimated
        if not run.is_streamed:
            whole = run.writer.whole(call.target.model, usage)
            await self._complete()
            await self._sink.finish(call, whole)
            return
        await _finish_stream(run, self._sink, call, usage, self._complete)


async def _finish_stream(
    run: ResponseRun,
    sink: ResponseSink,
    call: OpenCall,
    usage: TokenUsage | None,
    complete: Complete,
) -> None:
    """Write the last events. That it is complete is told, and counted, once it is kept."""
    run.unsent = run.writer.end(usage)
    run.writer.complete()
    last = b""
    if run.asked.request.background:
        last = run.writer.tail()  # it is kept with all of its events
    await complete()
    rest, run.unsent = run.unsent, b""
    await sink.finish(call, rest + (last or run.writer.tail()))


class AgentAnswer:
    """One response of an agent; satisfies ``turns.requests.TurnSink``."""

    def __init__(self, run: ResponseRun, sink: ResponseSink, complete: Complete) -> None:
        self._run = run
        self._sink = sink
        self._complete = complete
        self._model = run.resolved.model
        self._waiting = b""  # written and not sent
        self._news = trio.Event()  # a tool told something, which cannot wait until it is sent
        self._sending = trio.Lock()
        self._broken: Exception | None = None  # why nothing can be sent any more

    async def give(
        self, turns: Turns, tenant: ResponsesTenant, caller: Caller, turn: TurnRequest
    ) -> None:
        """Raises what a turn raises."""
        run = self._run
        if not run.is_streamed or TOOL_CALLS not in run.resolved.include:
            await turns.run(tenant, caller, turn, self)
            return
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_tools)
            try:
                await turns.run(tenant, caller, turn, self)
            except Exception as error:  # noqa: BLE001 - raised again, but for the nursery's group
                failure = error
            async with self._sending:  # what is being sent leaves whole
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _tell_tools(self) -> None:
        """Send what tools tell while nothing else is said."""
        try:
            while True:
                await self._news.wait()
                self._news = trio.Event()
                await self._flush()
        except Exception as error:  # noqa: BLE001 - for the turn, which ends with it
            self._broken = error

    async def _flush(self) -> None:
        try:
            self._sending.acquire_nowait()  # mostly nobody else sends, and there are many deltas
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            events, self._waiting = self._waiting, b""
            if events:
                await self._sink.send(events)
        finally:
            self._sending.release()

    async def begin(self, call: OpenCall) -> None:
        if self._run.is_streamed:
            self._run.has_begun = True
            await self._sink.begin(call)
            await self._sink.send(self._run.writer.start(self._model))

    async def deltas(self, deltas: Sequence[Delta]) -> None:
        if not self._run.is_streamed:
            self._run.writer.collect(deltas)
            return
        if self._broken is not None:
            raise self._broken
        self._waiting += self._run.writer.deltas(deltas)
        await self._flush()

    def tool(self, activity: ToolActivity) -> None:
        writer = self._run.writer
        if activity.phase == "start":
            arguments = msgspec.json.encode(activity.arguments or {}).decode()
            events = writer.hosted_call(
                call_id=activity.call_id, name=activity.name, arguments=arguments
            )
        elif activity.phase == "result":
            events = writer.hosted_result(
                call_id=activity.call_id, output=activity.text, is_error=activity.is_error
            )
        else:
            return
        if self._run.is_streamed and events:
            self._waiting += events
            self._news.set()

    async def finish(self, call: OpenCall, finished: Finished) -> None:
        writer = self._run.writer
        if self._run.is_streamed:
            await self.deltas([finished])
            await _finish_stream(self._run, self._sink, call, finished.usage, self._complete)
            return
        writer.collect([finished])
        whole = writer.whole(self._model, finished.usage)
        await self._complete()
        await self._sink.finish(call, whole)


async def turn_of(tenant: ResponsesTenant, run: ResponseRun, found: Continued) -> TurnRequest:
    """The turn that a request asks of its agent; ``found`` is what it goes on from.

    Without a session of its own, and where what was said before did not come
    from this agent, the whole conversation is sent along and nothing is
    remembered but in the stored response. So it is where that session has gone
    on since the response that is continued. Raises :exc:`InvalidRequest`.
    """
    agent = run.asked.agent
    if agent is None:
        raise RuntimeError("no agent was named")
    request = run.resolved
    key, follows = run.asked.session, None
    if key is None and request.store:
        key = _going_on(tenant.id, agent, found.session)
        follows = None if key is None else _run_of(found.last)
    keeps = key is not None
    if key is None:
        key = SessionKey(tenant.id, agent, f"responses:{secrets.token_hex(12)}")
        keeps = request.store and not run.context and not any(map(_is_answer, request.input))
    run.session = key.short if keeps else ""
    chat = await _chat(run)
    return TurnRequest(
        key,
        chat,
        chat.messages(),
        keeps_history=keeps,
        run_id=_run_of(run.id),
        follows=follows,
        max_tool_calls=request.max_tool_calls,
        field="input",
    )


def _run_of(response_id: str) -> str:
    """The id of the turn behind a response. Who sees the one cannot tell the other."""
    return f"run_{hashlib.sha256(response_id.encode()).hexdigest()[:24]}"


def without_paused(items: Sequence[Item]) -> list[Item]:
    """The items but for what an agent itself did on its way to a call of its caller's tools.

    The turn that waits for the result knows that better (``storage.paused_calls``): said twice,
    it would be done twice to the model.
    """
    found: list[Item] = []
    since: list[Item] = []  # what was said since the user spoke
    for item in items:
        kind = item["type"]
        if kind == "function_call":
            since = [each for each in since if each["type"] != TOOL_CALL]
        since.append(item)
        if kind == "function_call_output" or (kind == "message" and item["role"] != "assistant"):
            found += since
            since = []
    return found + since


def _going_on(tenant: str, agent: str, continued: str) -> SessionKey | None:
    if not continued:
        return None
    key = SessionKey.parse(continued, tenant=tenant, agent=agent, field="previous_response_id")
    return key if key.agent == agent else None


def _is_answer(item: Item) -> bool:
    return item["type"] != "message" or item.get("role") == "assistant"


async def _chat(run: ResponseRun) -> ChatRequest:
    request = run.resolved
    for name, is_given in (
        ("include", LOGPROBS in request.include),
        ("top_logprobs", request.top_logprobs),
    ):
        if is_given:
            raise InvalidRequest.at(
                name,
                "an agent gives no log probabilities",
                "name a model as provider/model instead",
                fault=Fault.UNSUPPORTED,
            )
    body = await upstream_body(
        replace(request, input=tuple(without_paused([*run.context, *request.input]))), ()
    )

    def translate() -> Mapping[str, bytes]:
        prompt = read_prompt(Dialect.RESPONSES, body)
        prompt.require_functions()  # beside its own an agent has no other tools
        return write_body(Dialect.OPENAI, prompt)

    large = len(body["input"]) > 128 * 1024
    members = dict(await trio.to_thread.run_sync(translate) if large else translate())
    members["model"] = msgspec.json.encode(request.model)
    if request.output_limit is not None:
        members["max_completion_tokens"] = b"%d" % request.output_limit
    if members.get("messages", b"[]") == b"[]":
        raise InvalidRequest.at("input", "nothing was said", "send a message")
    return ChatRequest.of(members)


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def _check_size(call: OpenCall) -> None:
    if call.reply.text_bytes > LARGEST_ANSWER:
        raise UpstreamFailed("the model said more than an answer may hold")
