"""Embeddings on behalf of a tenant: asked for, metered and booked as every other call."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.calls import Delta, ModelCall
from appliance.model.embeddings import EmbeddingAnswer
from appliance.model.errors import InvalidRequest
from appliance.model.usage import TokenUsage
from appliance.protocols.answers import AnswerWriter
from appliance.protocols.embeddings import EmbeddingRequest, write_answer
from appliance.providers.base import EmbeddingProvider, Provider, Reply
from appliance.providers.errors import EmbeddingRefused
from appliance.providers.weights import embedding_model
from appliance.services.call_requests import AwakeTenant, CallRequest
from appliance.services.completions import Sink
from appliance.services.model_calls import ModelCalls
from appliance.services.routing import CatalogueEntry

KIND = "embedding"  # in the ledger
_LARGE = 64 * 1024  # numbers; more are written in a thread

_texts = msgspec.json.Decoder(tuple[str, ...])


class Embeddings:
    def __init__(self, calls: ModelCalls) -> None:
        self._calls = calls

    async def embed(
        self, tenant: AwakeTenant, caller: Caller, request: EmbeddingRequest, sink: Sink
    ) -> None:
        """Answer ``request``; raises what :meth:`ModelCalls.open` raises."""
        rules = self._calls.rules.find(tenant.id, tenant.config)
        if request.call.tokens and rules is not None and rules.request:
            raise InvalidRequest.at(
                "input", "holds tokens, which the guardrails in force cannot read", "send texts"
            )
        asking = _Asking(request)
        asked = CallRequest(
            model=request.call.model,
            body=asking.body,
            stream=False,
            prompt_bytes=request.prompt_bytes,
            output_limit=0,
            kind=KIND,
            opens=asking.open,
        )
        async with self._calls.open(tenant, caller, asked) as call:
            answer = asking.answers[-1]
        if call.settlement is None:
            raise RuntimeError("the call is not settled")
        usage = call.settlement.usage
        write = partial(write_answer, answer, encoding=request.call.encoding, usage=usage)
        # Acknowledged means durable: the answer waits for the disk.
        await tenant.meter.durable()
        _require_size(request, answer, call.target.provider)
        small = len(answer.vectors) * answer.dimensions < _LARGE
        body = write() if small else await trio.to_thread.run_sync(write)
        await sink.finish(call, body)


def _require_size(request: EmbeddingRequest, answer: EmbeddingAnswer, provider: str) -> None:
    """Shorter vectors than asked for are another answer, and so are longer ones.

    Whose model has one size only has read all and is paid for that: so this is
    found once the call is in the books.
    """
    if request.call.dimensions not in {None, answer.dimensions}:
        raise EmbeddingRefused.at(
            "dimensions",
            f"{provider} answered with {answer.dimensions} numbers for each input",
            "leave it out: the model has one size only",
        )


class _Asking:
    """Asks a provider for vectors where other calls ask for words."""

    def __init__(self, request: EmbeddingRequest) -> None:
        self._call = request.call
        # Where guardrails look for texts, and change them. Nobody can read tokens.
        self.body = {"input": request.said} if request.said else {}
        self.answers: list[EmbeddingAnswer] = []

    def open(
        self, provider: Provider, call: ModelCall, api_key: str | None
    ) -> AbstractAsyncContextManager[Reply]:
        return self._open(provider, call, api_key)

    @asynccontextmanager
    async def _open(
        self, provider: Provider, call: ModelCall, api_key: str | None
    ) -> AsyncIterator[Reply]:
        if not isinstance(provider, EmbeddingProvider):
            raise EmbeddingRefused.at(
                "model", f"{provider.name} has no embeddings", "name another provider's model"
            )
        asked = replace(
            self._call,
            model=call.model,
            request_id=call.request_id,
            texts=self._guarded(call),
            patience=None if call.timeouts is None else call.timeouts.request,
        )
        answer = await provider.embed(asked, api_key=api_key)
        self.answers.append(answer)
        yield _WordlessReply(answer.usage, answer.provider_request_id)

    def _guarded(self, call: ModelCall) -> Sequence[str]:
        """The texts as they may leave."""
        text = call.body.get("input")
        if text is None or text is self.body["input"] or text == self.body["input"]:
            return self._call.texts
        return _texts.decode(text)


@dataclass(frozen=True, slots=True)
class _WordlessReply:
    """What the books want to know of an answer that says nothing: satisfies ``Reply``."""

    usage: TokenUsage | None
    provider_request_id: str | None
    finished: bool = field(default=True, init=False)
    text_bytes: int = field(default=0, init=False)

    async def events(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        yield b""

    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        yield ()

    async def whole(self, writer: AnswerWriter) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""


def model_for_agents(config: GatewayConfig) -> str:
    """The model that embeds where an agent is named; raise :exc:`InvalidRequest` for none."""
    if config.models.embedding is None:
        raise InvalidRequest.at(
            "model",
            "an agent makes no embeddings",
            "name a model as provider/model, or set models.embedding",
        )
    return config.models.embedding


def embedding_entries(config: GatewayConfig) -> Sequence[CatalogueEntry]:
    """The names for embeddings that the config itself tells of."""
    found = [
        CatalogueEntry(f"{name}/{embedding_model(each.embedding_model_path)}", name)
        for name, each in sorted(config.providers.items())
        if each.dialect == "embedded"
    ]
    named = config.models.embedding
    if named is not None:
        chain = config.models.failover.get(named) or [config.models.aliases.get(named, named)]
        found.insert(0, CatalogueEntry(named, chain[0].partition("/")[0]))
    return found
