"""Writing responses down: before anybody hears that one is complete."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.errors import ApplianceError
from appliance.protocols.responses.items import Item
from appliance.services.responses.contexts import IN_LOOP, since_compaction
from appliance.services.responses.runs import ResponseRun, ResponsesTenant, stored
from appliance.storage.response_rows import Item as StoredItem
from appliance.storage.response_rows import NewResponse, ResponseState, ResponseStatus
from appliance.storage.response_threads import Limits
from appliance.storage.responses import ResponseStore

_AT_ONCE = 500  # items; so many are encoded in half a millisecond


def expiry(config: GatewayConfig, now: datetime) -> datetime:
    return now + timedelta(days=config.defaults.responses.ttl_days)


def limits(config: GatewayConfig) -> Limits:
    found = config.defaults.responses
    return Limits(responses=found.max_stored, bytes=found.max_bytes)


class Keeper:
    """Keeps one run's response in the tenant's store, or in its connection's memory."""

    def __init__(
        self,
        tenant: ResponsesTenant,
        store: ResponseStore,
        run: ResponseRun,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._tenant = tenant
        self._store = store
        self._run = run
        self._clock = clock

    def require_room(self) -> None:
        """Raise what keeping the response would raise, before anything is spent on it."""
        request = self._run.asked.request
        if request.store:
            self._store.require_room(request.prompt_bytes)
            self._store.require_place(
                previous=request.previous_response_id,
                conversation=request.conversation,
                now=self._clock(),
                limits=limits(self._tenant.config),
            )

    async def begin(self) -> None:
        """Keep a response that will run in the background, with its first events."""
        await self._add()
        self._store.add_events(self._run.id, self._run.take_events())

    def going_on(self) -> None:
        """Keep the events so far of a run in the background, and how it stands."""
        run = self._run
        self._store.add_events(run.id, run.take_events())

    def in_progress(self) -> None:
        writer = self._run.writer
        body = msgspec.json.encode(writer.response())
        state = ResponseState(status=ResponseStatus(writer.status), body=body)
        self._store.update(self._run.id, state, now=self._clock())

    async def complete(self) -> None:
        """Keep the whole response; afterwards it is on disk. Raises ``DiskFull`` and the like."""
        run = self._run
        asked = run.asked
        if asked.request.background:
            await self._store.end(run.id, self._state(), now=self._clock())
            if run.session:
                self._store.note_session(run.id, run.session)
        elif asked.request.store:
            await self._add()
        if asked.memory is not None and (not asked.request.store or self._continues_unstored):
            items = since_compaction([*run.context, *run.resolved.input, *run.writer.context])
            asked.memory.keep(run.id, items, await self._size(items))
        run.is_kept = True
        if asked.request.store:
            if run.session and asked.request.conversation is not None:
                self._store.conversations.note_session(asked.request.conversation, run.session)
            await self._store.durable()
        await self._tenant.meter.durable()

    @property
    def _continues_unstored(self) -> bool:
        """Whether only its connection knows what the response builds on, stored or not."""
        asked = self._run.asked
        previous = asked.request.previous_response_id
        return (
            asked.memory is not None
            and previous is not None
            and asked.memory.find(previous) is not None
        )

    def broken_off(self) -> None:
        """Keep what there is of a run in the background that ended early, as far as that goes."""
        if self._run.is_kept or not self._run.asked.request.background:
            return
        # Why it ended is what counts; a failure of the disk changes nothing about it.
        with suppress(ApplianceError):
            self._store.update(self._run.id, self._state(), now=self._clock())

    async def failed(self) -> None:
        """Keep what there is of a response that somebody waited for, as far as that goes."""
        run = self._run
        if run.is_kept:
            return
        previous = run.asked.request.previous_response_id
        if run.asked.memory is not None and previous is not None:
            run.asked.memory.forget(previous)
        if run.asked.request.store and run.has_begun:
            with suppress(ApplianceError):
                await self._add()

    async def _size(self, items: Sequence[Item]) -> int:
        """Bytes of JSON; what may be megabytes is measured beside the loop."""
        run = self._run
        if not run.context and run.resolved.prompt_bytes <= IN_LOOP:
            return len(msgspec.json.encode(items))
        return len(await trio.to_thread.run_sync(msgspec.json.encode, items))

    def _state(self) -> ResponseState:
        """How the run stands, with the events that nobody has kept."""
        run = self._run
        return ResponseState(
            status=ResponseStatus(run.writer.status),
            body=msgspec.json.encode(run.writer.response()),
            outputs=[stored(item) for item in run.writer.context],
            events=run.take_events(),
        )

    async def _add(self) -> None:
        run = self._run
        request = run.resolved
        inputs = await _stored(request.input)
        now = self._clock()
        config = self._tenant.config
        await self._store.keep(
            NewResponse(
                id=run.id,
                status=ResponseStatus(run.writer.status),
                model=request.model,
                body=msgspec.json.encode(run.writer.response()),
                inputs=inputs,
                outputs=[stored(item) for item in run.writer.context],
                background=request.background,
                previous=request.previous_response_id,
                conversation=request.conversation,
                session=run.session,
            ),
            now=now,
            expires=expiry(config, now),
            limits=limits(config),
        )


async def _stored(items: Sequence[Item]) -> list[StoredItem]:
    """All of them ready for the database; between some and the next, others have their turn."""
    found: list[StoredItem] = []
    for start in range(0, len(items), _AT_ONCE):
        if start:
            await trio.lowlevel.checkpoint()
        found += map(stored, items[start : start + _AT_ONCE])
    return found
