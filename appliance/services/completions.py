"""A straight completion: the caller's request to the model, the model's answer back."""

from contextlib import aclosing
from typing import Protocol

from appliance.model.callers import Caller
from appliance.protocols.answers import AnswerWriter
from appliance.services.model_calls import AwakeTenant, CallRequest, ModelCalls, OpenCall


class Sink(Protocol):
    """The door's side of an answer. Each method may raise when the client is gone."""

    async def begin(self, call: OpenCall) -> None:
        """The answer starts; from here on it is a stream."""

    async def send(self, events: bytes) -> None:
        """Pass on whole events."""

    async def finish(self, call: OpenCall, rest: bytes) -> None:
        """Everything is settled and on disk: send the last of it, or all of it."""


class Completions:
    def __init__(self, calls: ModelCalls) -> None:
        self._calls = calls

    async def complete(
        self,
        tenant: AwakeTenant,
        caller: Caller,
        request: CallRequest,
        writer: AnswerWriter,
        sink: Sink,
    ) -> None:
        """Relay one answer in the dialect of ``writer``.

        Raises what :meth:`ModelCalls.open` raises; after ``sink.begin`` a
        failure means that the answer is incomplete.
        """
        rest = b""
        async with self._calls.open(tenant, caller, request) as call:
            if request.stream:
                await sink.begin(call)
                async with aclosing(call.reply.events(writer)) as answer:
                    async for events in answer:
                        await sink.send(events)
                rest = writer.tail()
            else:
                rest = await call.reply.whole(writer)
        # Acknowledged means durable: the last bytes wait for the disk.
        await tenant.meter.durable()
        await sink.finish(call, rest)
