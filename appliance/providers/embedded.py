"""The embedded models: a small one that chats, and one for embeddings.

Both run in worker processes beside the gateway and start when they are first
asked. The built-in chat model has 135 million parameters: it proves that the
whole path works, and is no assistant.
"""

import math
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
from appliance.model.errors import (
    InvalidRequest,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from appliance.protocols.answers import MalformedAnswer
from appliance.protocols.embeddings import joined, shortened
from appliance.protocols.json_body import INLINE_BYTES
from appliance.providers import weights
from appliance.providers.base import Reply
from appliance.providers.connections import ConnectionLost, ConnectionPool
from appliance.providers.embedded_requests import worded
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
_LONGEST_TEXT = 2000  # characters of a text to embed: about what the model can read
_TEXTS_AT_ONCE = 32
_SHORTEST_CUT = 64
_SHORTEST_WAIT = 0.001  # seconds; none at all would mean the provider's own
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
        self._wire = OpenAiWire(max_tokens_field="max_tokens")
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
        return self._names()

    async def embed(self, call: EmbeddingCall, *, api_key: str | None = None) -> EmbeddingAnswer:
        """Return vectors of length 1; what is too long for the model is cut.

        As :meth:`~appliance.providers.base.EmbeddingProvider.embed`; raises
        :exc:`UpstreamUnavailable` when the model cannot run here.
        """
        refuse_tokens(call, "the embedded model")
        self._check_embedding_model(call.model)
        answers: list[EmbeddingAnswer] = []
        with self._losses(), self._in_time(call.patience or math.inf):
            async with self._embedding.use() as address:
                link = self._link(address)
                for start in range(0, len(call.texts), _TEXTS_AT_ONCE):
                    texts = [_shortened(t) for t in call.texts[start : start + _TEXTS_AT_ONCE]]
                    answers.append(await _embed(link, texts))
                    self._check_dimensions(answers[-1], call)
        answer = replace(joined(answers), model=self._embedding_alias())
        return answer if call.dimensions is None else shortened(answer, call.dimensions)

    def _names(self) -> Sequence[str]:
        """What the chat model is called. By another name it would have another price, or none."""
        return tuple(self._config.models) or (self._alias(),)

    def _check_model(self, model: str) -> None:
        names = self._names()
        if model == self._embedding_alias() != self._alias():
            raise InvalidRequest.at(
                "model", f"{model} makes embeddings only", f"name {self.name}/{names[0]}"
            )
        if model not in names:
            raise self._unknown(model, names[0])

    def _unknown(self, model: str, other: str) -> UpstreamRefused:
        return UpstreamRefused(
            f"{self.name} has no model {model[:80]!r}; name {self.name}/{other}",
            status=404,
            upstream_code="model_not_found",
            param="model",
        )

    async def _worded(self, call: ModelCall) -> ModelCall:
        say = partial(worded, call, context_tokens=self._config.embedded_context)
        if sum(map(len, call.body.values())) <= INLINE_BYTES:
            return say()
        return await trio.to_thread.run_sync(say)

    def _check_embedding_model(self, model: str) -> None:
        alias = self._embedding_alias()
        if model not in (alias, *self._names()):
            raise self._unknown(model, alias)
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
        self._check_model(call.model)
        # Before anybody waits for anything: what cannot be answered is refused at once.
        call = await self._worded(call)
        began = trio.current_time()
        patience = (call.timeouts and call.timeouts.request) or self._config.request_timeout
        with self._losses():
            async with AsyncExitStack() as stack:
                # What a caller has to wait for counts, be it other calls or the process.
                with self._in_time(_until_begun(call)):
                    await stack.enter_async_context(self._line.turn(patience=patience))
                    address = await stack.enter_async_context(self._chat.use())
                call = _waited(call, trio.current_time() - began)
                try:
                    reply = await stack.enter_async_context(self._link(address).open(call))
                except (UpstreamFailed, UpstreamUnavailable) as failure:
                    # Between a worker's death and our notice of it a call can still
                    # reach its socket. That call deserves the next worker.
                    lost = isinstance(failure.__cause__, _LOSSES)
                    if not lost or not await self._chat.wait_ended(address, patience=_NOTICE):
                        raise
                    with self._in_time(_until_begun(call)):
                        address = await stack.enter_async_context(self._chat.use())
                    reply = await stack.enter_async_context(self._link(address).open(call))
                yield reply

    @contextmanager
    def _in_time(self, patience: float) -> Iterator[None]:
        """Raise :exc:`UpstreamTimeout` for what takes longer than ``patience`` seconds."""
        with trio.move_on_after(patience) as scope:
            yield
        if scope.cancelled_caught:
            raise UpstreamTimeout(f"{self.name} did not answer within {patience:g} s")

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


def _until_begun(call: ModelCall) -> float:
    """Seconds that ``models.timeouts`` leave an answer to begin, or for all of one in one piece."""
    timeouts = call.timeouts
    if timeouts is None:
        return math.inf
    first_token = timeouts.first_token if call.stream else None
    return min(timeouts.request or math.inf, first_token or math.inf)


def _waited(call: ModelCall, seconds: float) -> ModelCall:
    """``call`` with the patience that is left after ``seconds``."""
    timeouts = call.timeouts
    if timeouts is None:
        return call

    def left(given: float | None) -> float | None:
        return None if given is None else max(_SHORTEST_WAIT, given - seconds)

    request, first_token = left(timeouts.request), left(timeouts.first_token)
    return replace(call, timeouts=replace(timeouts, request=request, first_token=first_token))


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
