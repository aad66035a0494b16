"""The embedded models: a small one that chats, and one for embeddings.

Both run in worker processes beside the gateway and start when they are first
asked. The built-in chat model has 135 million parameters: it proves that the
whole path works, and is no assistant.
"""

import os
import platform
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import trio

from appliance import dialling
from appliance.config.schema import ProviderConfig
from appliance.dialling import DialFailed
from appliance.model.calls import Dialect, ModelCall
from appliance.model.embeddings import EmbeddingAnswer, EmbeddingCall
from appliance.model.errors import InvalidRequest, UpstreamFailed, UpstreamUnavailable
from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.embeddings import joined, shortened
from appliance.protocols.openai_prompts import HARMLESS, HINTS
from appliance.protocols.request_members import read_member, refuse_unknown
from appliance.protocols.translation import translated
from appliance.providers import weights
from appliance.providers.base import Reply
from appliance.providers.connections import ConnectionLost, ConnectionPool
from appliance.providers.errors import (
    ContextExceeded,
    EmbeddingRefused,
    UpstreamRefused,
    refuse_tokens,
)
from appliance.providers.http_provider import HttpProvider
from appliance.providers.model_worker import Address, ModelWorker, StartFailed
from appliance.providers.openai import OpenAiWire

MOST_WAITING = 16  # calls; the last would wait for minutes already
USUAL_ANSWER = 512  # tokens, where the caller sets no limit
_LONGEST_TEXT = 2000  # characters of a text to embed: about what the model can read
_TEXTS_AT_ONCE = 32
_SHORTEST_CUT = 64
_NOTICE = 1.0  # seconds until a dead process is known to be dead
_LOSSES = (ConnectionLost, DialFailed, MalformedAnswer)
_CPU_FLAGS = frozenset({"avx2", "fma", "f16c", "bmi2"})

# Models that were trained to say the most in their first numbers ("Matryoshka"),
# by what their files are called. A vector of any other means nothing if it is cut.
_CUTTABLE = re.compile(
    r"matryoshka|nomic-embed-text-v(?:1\.5|2)|qwen3-embedding|embedding-?gemma|mxbai-embed-large"
    r"|arctic-embed-(?:m-v1\.5|[ml]-v2)|jina-embeddings-v[345]",
    re.IGNORECASE,
)

# What the worker may be asked. Its server knows much more, some of it dear or
# dangerous (grammars without bounds, answers without end, other slots' caches).
_KNOWN = frozenset(
    {
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    }
)
_HINTS = HINTS | {"parallel_tool_calls", "reasoning_effort", "user", "verbosity"}


class EmbeddedWire(OpenAiWire):
    """OpenAI's dialect as the worker speaks it."""

    def __init__(self, *, context_tokens: int) -> None:
        super().__init__(max_tokens_field="max_tokens")
        self._context_tokens = context_tokens

    def encode(self, call: ModelCall) -> bytes:
        call = translated(call, Dialect.OPENAI)
        refuse_unknown(call.body, known=_KNOWN | _HINTS, harmless=HARMLESS)
        body = {name: value for name, value in call.body.items() if name in _KNOWN}
        # Small models wander at any other temperature.
        body.setdefault("temperature", b"0")
        # A cached prefix would tell one tenant, by the time it takes, what another asked.
        body["cache_prompt"] = b"false"
        return super().encode(replace(call, body=body, output_limit=self._limit(call)))

    def _limit(self, call: ModelCall) -> int:
        given = (
            call.output_limit,
            read_member(call.body, "max_completion_tokens"),
            read_member(call.body, "max_tokens"),
        )
        limit = next((each for each in given if isinstance(each, int)), USUAL_ANSWER)
        return min(limit, self._context_tokens)


class EmbeddedProvider:
    """Chat and embeddings from processes beside us; ``run`` looks after these."""

    dialect = Dialect.EMBEDDED

    def __init__(
        self,
        name: str,
        config: ProviderConfig,
        *,
        clock: Callable[[], datetime],
        command: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """``command`` replaces the program that is run as the worker."""
        self.name = name
        self._config = config
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._wire = EmbeddedWire(context_tokens=config.embedded_context)
        self._line = _Line()
        self._chat = ModelWorker(
            "chat",
            self._chat_arguments,
            idle_unload=config.idle_unload,
            ended=partial(self._unlink, "chat"),
            command=command,
            environ=self._environ,
        )
        self._embedding = ModelWorker(
            "embedding",
            self._embedding_arguments,
            idle_unload=config.idle_unload,
            ended=partial(self._unlink, "embedding"),
            command=command,
            environ=self._environ,
        )
        self._links: dict[str, HttpProvider] = {}

    @property
    def chat_worker(self) -> ModelWorker:
        return self._chat

    @property
    def embedding_worker(self) -> ModelWorker:
        return self._embedding

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the worker processes until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._chat.run)
            nursery.start_soon(self._embedding.run)
            task_status.started()

    def open(
        self, call: ModelCall, *, api_key: str | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        """As ``Provider.open``; calls wait for each other, at most :data:`MOST_WAITING` of them."""
        return self._open(call)

    async def models(self) -> Sequence[str]:
        return tuple(self._config.models) or (self._alias(),)

    async def embed(self, call: EmbeddingCall, *, api_key: str | None = None) -> EmbeddingAnswer:
        """Return vectors of length 1; what is too long for the model is cut.

        As :meth:`~appliance.providers.base.EmbeddingProvider.embed`; raises
        :exc:`UpstreamUnavailable` when the model cannot run here.
        """
        refuse_tokens(call, "the embedded model")
        self._check_embedding_model(call.model)
        answers: list[EmbeddingAnswer] = []
        with self._losses():
            async with self._embedding.use() as address:
                link = self._link(address)
                for start in range(0, len(call.texts), _TEXTS_AT_ONCE):
                    texts = [_shortened(t) for t in call.texts[start : start + _TEXTS_AT_ONCE]]
                    answers.append(await _embed(link, texts))
                    self._check_dimensions(answers[-1], call)
        answer = replace(joined(answers), model=self._embedding_alias())
        return answer if call.dimensions is None else shortened(answer, call.dimensions)

    def _check_embedding_model(self, model: str) -> None:
        alias = self._embedding_alias()
        if model != alias:
            raise EmbeddingRefused.at(
                "model", f"{model[:80]!r} makes no embeddings", f"name {self.name}/{alias}"
            )

    def _check_dimensions(self, answer: EmbeddingAnswer, call: EmbeddingCall) -> None:
        wanted, most = call.dimensions, answer.dimensions
        if wanted is None or wanted == most:
            return
        alias = self._embedding_alias()
        if not _CUTTABLE.search(alias):
            raise EmbeddingRefused.at(
                "dimensions", f"{alias} makes vectors of {most} numbers only", "leave it out"
            )
        if wanted > most:
            raise EmbeddingRefused.at("dimensions", f"{alias} makes at most {most} numbers")

    async def aclose(self) -> None:
        for kind in list(self._links):
            self._unlink(kind)

    @asynccontextmanager
    async def _open(self, call: ModelCall) -> AsyncIterator[Reply]:
        if call.model == self._embedding_alias() != self._alias():
            raise InvalidRequest.at(
                "model", f"{call.model} makes embeddings only", f"name {self.name}/{self._alias()}"
            )
        with self._losses():
            async with (
                self._line.turn(patience=self._config.request_timeout),
                AsyncExitStack() as stack,
            ):
                address = await stack.enter_async_context(self._chat.use())
                try:
                    reply = await stack.enter_async_context(self._link(address).open(call))
                except (UpstreamFailed, UpstreamUnavailable) as failure:
                    # Between a worker's death and our notice of it a call can still
                    # reach its socket. That call deserves the next worker.
                    lost = isinstance(failure.__cause__, _LOSSES)
                    if not lost or not await self._chat.wait_ended(address, patience=_NOTICE):
                        raise
                    address = await stack.enter_async_context(self._chat.use())
                    reply = await stack.enter_async_context(self._link(address).open(call))
                yield reply

    @contextmanager
    def _losses(self) -> Iterator[None]:
        """A worker that hangs up has died: not a bad answer, but nobody to give one."""
        try:
            yield
        except UpstreamFailed as failure:
            if not isinstance(failure.__cause__, _LOSSES):
                raise
            raise UpstreamUnavailable(
                "the embedded model's process ended; it is started again with the next call",
                retry_after=1,
            ) from failure

    def _unlink(self, kind: str) -> None:
        if link := self._links.pop(kind, None):
            link.close()

    def _link(self, address: Address) -> HttpProvider:
        """The way to the worker at ``address``, which lasts as long as the worker."""
        known = self._links.get(address.kind)
        if known is not None:
            return known
        pool = ConnectionPool(dialling.unix(address.socket), limit=MOST_WAITING)
        link = HttpProvider(
            self.name,
            self._wire,
            pool,
            base_url="http://worker/v1",
            clock=self._clock,
            api_key=address.key,
            request_timeout=self._config.request_timeout,
            stream_idle_timeout=self._config.stream_idle_timeout,
        )
        self._links[address.kind] = link
        return link

    def _chat_arguments(self) -> Sequence[str]:
        return (
            *self._weights(weights.CHAT, self._config.model_path),
            *("--alias", self._alias()),
            *("--context", str(self._config.embedded_context)),
            *("--threads", str(self._threads())),
        )

    def _embedding_arguments(self) -> Sequence[str]:
        return (
            *self._weights(weights.EMBEDDING, self._config.embedding_model_path),
            *("--alias", self._embedding_alias()),
            *("--context", str(self._config.embedded_context)),
            *("--threads", str(self._threads())),
            "--embedding",
        )

    def _weights(self, file_name: str, configured: str | None) -> Sequence[str]:
        if missing := missing_cpu_features():
            raise StartFailed(f"this CPU lacks {', '.join(sorted(missing))}")
        found = weights.find_weights(file_name, configured=configured, environ=self._environ)
        if found is None:
            what = "the file model_path names" if configured else f"{file_name} (make models)"
            raise StartFailed(f"its weights are missing: {what}")
        return found.arguments

    def _alias(self) -> str:
        path = self._config.model_path
        return weights.CHAT_MODEL if path is None else Path(path).stem

    def _embedding_alias(self) -> str:
        return weights.embedding_model(self._config.embedding_model_path)

    def _threads(self) -> int:
        # llama.cpp's threads wait for each other busily: one core stays free.
        return self._config.threads or max(1, (os.cpu_count() or 2) - 1)


class _Line:
    """Calls of the one model, which answers one at a time."""

    def __init__(self) -> None:
        self._turn = trio.Semaphore(1, max_value=1)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self, *, patience: float) -> AsyncIterator[None]:
        if self._waiting >= MOST_WAITING:
            raise UpstreamUnavailable(
                f"the embedded model is busy: {MOST_WAITING} calls wait already", retry_after=10
            )
        self._waiting += 1
        try:
            with trio.fail_after(patience):
                await self._turn.acquire()
        except trio.TooSlowError:
            raise UpstreamUnavailable(
                f"the embedded model was busy for {patience:g} s", retry_after=10
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turn.release()


async def _embed(link: HttpProvider, texts: Sequence[str]) -> EmbeddingAnswer:
    """Embed ``texts``; one that is too long fails all, so it is looked for and cut."""
    call = EmbeddingCall(model="", texts=texts)
    try:
        return await link.embed(call)
    except (UpstreamFailed, UpstreamRefused, ContextExceeded) as failure:
        if isinstance(failure.__cause__, _LOSSES):
            raise
        if len(texts) > 1:
            return joined([await _embed(link, [text]) for text in texts])
        if len(texts[0]) <= _SHORTEST_CUT:
            raise
        return await _embed(link, [texts[0][: len(texts[0]) * 3 // 4]])


def _shortened(text: str) -> str:
    return text[:_LONGEST_TEXT] or " "


def missing_cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What this machine's CPU lacks of what llama.cpp's build needs."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return frozenset()
    try:
        lines = cpuinfo.read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()  # unknown: let it try
    flags = next((line for line in lines if line.startswith("flags")), None)
    return frozenset() if flags is None else _CPU_FLAGS - set(flags.split())
