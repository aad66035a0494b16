"""Responses: made, found again, cancelled and deleted."""

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

import msgspec
import trio

from appliance.model.callers import Caller
from appliance.model.errors import ApplianceError, InvalidRequest, UpstreamTimeout
from appliance.protocols.responses.items import new_id
from appliance.protocols.responses.writer import ResponseWriter
from appliance.services.model_calls import ModelCalls, OpenCall
from appliance.services.responses.answering import AgentAnswer, ModelAnswer, turn_of
from appliance.services.responses.book import LiveResponse
from appliance.services.responses.contexts import Continued, continued, no_response
from appliance.services.responses.keeping import Keeper
from appliance.services.responses.runs import (
    Asked,
    Describe,
    Interrupted,
    ResponseRun,
    ResponseSink,
    ResponsesTenant,
)
from appliance.services.turns.requests import model_of
from appliance.services.turns.turns import Turns
from appliance.storage.response_rows import ItemPage, PageOf, StoredResponse
from appliance.storage.responses import ResponseStore

_LAST = tuple(
    b'{"type":"response.%s"' % status for status in (b"completed", b"incomplete", b"failed")
)


class Responses:
    def __init__(
        self,
        calls: ModelCalls,
        turns: Turns,
        *,
        clock: Callable[[], datetime],
        describe: Describe,
    ) -> None:
        self._calls = calls
        self._turns = turns
        self._clock = clock
        self._describe = describe

    def begin(self, asked: Asked) -> ResponseRun:
        """A response that is not answered yet."""
        events: list[tuple[int, bytes]] = []
        observes = asked.request.background or asked.memory is not None
        response_id = new_id("resp")
        writer = ResponseWriter(
            asked.request,
            id=response_id,
            created_at=int(self._clock().timestamp()),
            clock=lambda: self._clock().timestamp(),
            observe=(lambda number, event: events.append((number, event))) if observes else None,
        )
        return ResponseRun(response_id, asked, writer, events)

    async def answer(
        self, tenant: ResponsesTenant, caller: Caller, run: ResponseRun, sink: ResponseSink
    ) -> None:
        """Answer while somebody waits; what is stored is on disk before ``sink.finish``.

        To be run as work of the tenant: cancelled, it ends the call of the
        model. Raises :exc:`PreviousResponseNotFound`, :exc:`NotFound`,
        :exc:`InvalidRequest`, :exc:`QuotaExceeded`, ``DiskFull`` and what a model
        call or a turn raises; ``run.failure`` says it to a stream that has begun.
        """
        self._require_model(tenant, caller, run.asked)
        store = await tenant.responses()
        keeper = Keeper(tenant, store, run, clock=self._clock)
        try:
            found = await self._prepare(store, run)
            keeper.require_room()
            await self._give(tenant, caller, run, sink, keeper, found)
        except Exception as error:
            self._note_failure(run, error, caller)
            await keeper.failed()
            raise

    async def start(self, tenant: ResponsesTenant, caller: Caller, run: ResponseRun) -> bytes:
        """Answer in the background and return the response as it stands: queued.

        It is on disk then. Raises like :meth:`answer` for what can be told
        before the model is asked, and :exc:`TooManyRuns`.
        """
        self._require_model(tenant, caller, run.asked)
        book = tenant.state.responses
        book.require_room(tenant.config.defaults.responses.max_background)
        store = await tenant.responses()
        keeper = Keeper(tenant, store, run, clock=self._clock)
        found = await self._prepare(store, run)
        keeper.require_room()
        book.require_room(tenant.config.defaults.responses.max_background)
        run.writer.queued()
        body = msgspec.json.encode(run.writer.response())
        live = LiveResponse(run.id)
        book.add(live)
        work = partial(self._go, tenant, caller, run, live, keeper, found)
        try:
            await keeper.begin()
            live.started(tenant.start(work, caller=caller))
        except BaseException as error:
            self._break_off(run, live, keeper, error, caller)
            book.end(live)
            raise
        await store.durable()
        return body

    def _require_model(self, tenant: ResponsesTenant, caller: Caller, asked: Asked) -> None:
        """What nobody could answer is told at once, and nothing is kept of it.

        Raises :exc:`ModelUnknown`, of an agent too, :exc:`ModelForbidden` and
        :exc:`InvalidRequest`.
        """
        model = asked.request.model
        if asked.agent is not None:
            model = model_of(tenant, asked.agent)
            if asked.request.compact_threshold is not None:
                raise InvalidRequest.at(
                    "context_management",
                    "an agent keeps its own session short",
                    "leave it out, or name a model",
                )
        self._calls.require(tenant, caller, model, agent=asked.agent)

    async def _prepare(self, store: ResponseStore, run: ResponseRun) -> Continued:
        """Find what the request continues."""
        asked = run.asked
        found = await continued(store, asked.request, now=self._clock(), memory=asked.memory)
        run.request, run.context = found.request, found.context
        return found

    async def _give(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        run: ResponseRun,
        sink: ResponseSink,
        keeper: Keeper,
        found: Continued,
    ) -> None:
        if run.asked.agent is None:
            answer = ModelAnswer(self._calls, tenant, caller, run, sink, keeper.complete)
            await answer.give()
        else:
            turn = await turn_of(tenant, run, found)
            await AgentAnswer(run, sink, keeper.complete).give(self._turns, tenant, caller, turn)

    async def _go(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        run: ResponseRun,
        live: LiveResponse,
        keeper: Keeper,
        found: Continued,
    ) -> None:
        """A run in the background: the tenant's work, which nobody waits for."""
        sink = _Background(live, keeper)
        patience = tenant.config.defaults.responses.background_timeout
        try:
            with trio.move_on_after(patience) as limit:
                await self._give(tenant, caller, run, sink, keeper, found)
            if limit.cancelled_caught:
                late = UpstreamTimeout(f"it was not complete after {patience:g} seconds")
                self._break_off(run, live, keeper, late, caller)
        except Exception as error:  # noqa: BLE001 - whoever asks for the response is told
            self._note_failure(run, error, caller)
            keeper.broken_off()
        except BaseException as error:
            self._break_off(run, live, keeper, error, caller)
            raise
        finally:
            tenant.state.responses.end(live)

    def _break_off(
        self,
        run: ResponseRun,
        live: LiveResponse,
        keeper: Keeper,
        error: BaseException,
        caller: Caller,
    ) -> None:
        if run.is_kept:
            return  # it was complete before it was cancelled
        if live.is_cancelled:
            run.writer.cancelled()
        else:
            reason = error if isinstance(error, Exception) else Interrupted()
            self._note_failure(run, reason, caller)
        keeper.broken_off()

    def _note_failure(self, run: ResponseRun, error: Exception, caller: Caller) -> None:
        run.told = told = self._describe(error, caller.request_id)
        run.failure = run.unsent + run.writer.failed(
            code=told["code"] or "server_error",
            message=told["message"] or "",
            type=told["type"] or "server_error",
            param=told["param"],
        )

    # What was answered

    async def find(self, tenant: ResponsesTenant, response_id: str) -> StoredResponse:
        """Raises :exc:`NotFound`."""
        store = await tenant.responses()
        found = store.find(response_id, now=self._clock())
        if found is None:
            raise no_response(response_id)
        if response_id in tenant.state.responses:
            if found.status.is_over:
                await store.durable()  # its run is still waiting for that
            return found
        if found.status.is_over:
            return found
        # Its run ended and could not write that down, the disk being full.
        with suppress(ApplianceError):
            store.mark_interrupted(now=self._clock(), response_id=response_id)
        return store.find(response_id, now=self._clock()) or found

    async def input_items(
        self, tenant: ResponsesTenant, response_id: str, page: PageOf
    ) -> ItemPage:
        """Raises :exc:`NotFound` and :exc:`InvalidRequest`."""
        store = await tenant.responses()
        found = store.input_items(response_id, page, now=self._clock())
        if found is None:
            raise no_response(response_id)
        return found

    async def delete(self, tenant: ResponsesTenant, response_id: str) -> None:
        """Remove a response; one that is under way ends. Raises :exc:`NotFound`."""
        store = await tenant.responses()
        live = tenant.state.responses.find(response_id)
        if live is not None:
            live.cancel()
            await live.ended.wait()
        if not await store.delete(response_id, now=self._clock()):
            raise no_response(response_id)
        await store.durable()

    async def cancel(self, tenant: ResponsesTenant, response_id: str) -> StoredResponse:
        """End what runs in the background; one that is over stays as it is.

        Raises :exc:`NotFound`, and :exc:`InvalidRequest` for one that was waited for.
        """
        found = await self.find(tenant, response_id)
        if not found.background:
            raise InvalidRequest("Cannot cancel a synchronous response.")
        live = tenant.state.responses.find(response_id)
        if live is not None:
            live.cancel()
            await live.ended.wait()
            await (await tenant.responses()).durable()
        return await self.find(tenant, response_id)

    async def follow(
        self, tenant: ResponsesTenant, response_id: str, *, after: int = -1
    ) -> AsyncGenerator[bytes, None]:
        """The events of a run in the background, each once: what was, and what comes.

        Several of one time come joined. Raises :exc:`NotFound`, and
        :exc:`InvalidRequest` where they are not kept.
        """
        found = await self.find(tenant, response_id)
        if not found.background:
            raise InvalidRequest.at(
                "stream", "only a response that runs in the background is streamed again"
            )
        if found.status.is_over and not found.has_events:
            raise InvalidRequest.at(
                "stream", "the events are not kept any more", "read it without stream"
            )
        store = await tenant.responses()
        while True:
            live = tenant.state.responses.find(response_id)
            news = None if live is None else live.news
            events = store.events(response_id, after=after, now=self._clock())
            if events:
                after = events[-1][0]
                if live is not None and events[-1][1].startswith(_LAST):
                    await store.durable()
                yield b"".join(framed(event) for _, event in events)
            elif news is None:
                return
            else:
                await news.wait()


def framed(event: bytes) -> bytes:
    """An event as Server-Sent Events have it."""
    kind = msgspec.json.decode(event, type=_Event).type
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), event)


class _Event(msgspec.Struct):
    type: str


class _Background:
    """Keeps the events of a run that nobody waits for, and tells who follows it."""

    def __init__(self, live: LiveResponse, keeper: Keeper) -> None:
        self._live = live
        self._keeper = keeper
        self._is_noted = False  # that it is in progress

    async def begin(self, call: OpenCall) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, events: bytes) -> None:
        if not self._is_noted:
            self._is_noted = True
            self._keeper.in_progress()
        self._keeper.going_on()
        self._live.tell()
        await trio.lowlevel.checkpoint()

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        await trio.lowlevel.checkpoint()
