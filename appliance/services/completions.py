"""A straight completion: the caller's request to the model, the model's answer back."""

from contextlib import aclosing
from typing import Protocol

from appliance.model.callers import Caller
from appliance.protocols.chat_request import ChatRequest
from appliance.services.model_calls import AwakeTenant, CallRequest, ModelCalls, OpenCall


class Sink(Protocol):
    """The door's side of an answer. Each method may raise when the client is gone."""

    async def begin(self, call: OpenCall) -> None:
        """The answer starts; from here on it is a stream."""

    async def send(self, events: bytes) -> None:
        """Pass on whole events."""

    async def finish(self, call: OpenCall, body: bytes) -> None:
        """Everything is settled and on disk: send the last of it, or all of it."""


class Completions:
    def __init__(self, calls: ModelCalls) -> None:
        self._calls = calls

    async def complete(
        self, tenant: AwakeTenant, caller: Caller, request: ChatRequest, sink: Sink
    ) -> None:
        """Relay one chat completion.

        Raises what :meth:`ModelCalls.open` raises; after ``sink.begin`` a
        failure means that the answer is incomplete.
        """
        asked = CallRequest(
            model=request.model,
            body=request.body,
            stream=request.stream,
            prompt_bytes=request.prompt_bytes,
            output_limit=request.output_limit,
            choices=request.choices,
        )
        body = b""
        async with self._calls.open(tenant, caller, asked) as call:
            if request.stream:
                await sink.begin(call)
                chunks = call.reply.chunks(include_usage=request.include_usage)
                async with aclosing(chunks):
                    async for events in chunks:
                        await sink.send(events)
            else:
                body = await call.reply.completion()
        # Acknowledged means durable: the last bytes wait for the disk.
        await tenant.meter.durable()
        await sink.finish(call, body)
