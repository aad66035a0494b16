"""The embedded models' processes, with a worker that needs no weights.

Processes take their time, so these tests run on the real clock; nothing in
them waits for longer than a process takes to start or to end.
"""

import json
import math
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from appliance.config.schema import ProviderConfig
from appliance.model.calls import ModelCall, Timeouts
from appliance.model.embeddings import EmbeddingCall
from appliance.model.errors import InvalidRequest, UpstreamTimeout
from appliance.model.usage import TokenUsage
from appliance.protocols.embeddings import numbers_of
from appliance.providers import embedded, model_worker
from appliance.providers.base import Reply
from appliance.providers.embedded import EmbeddedProvider, missing_cpu_features
from appliance.providers.errors import EmbeddingRefused, UpstreamRefused, UpstreamUnavailable
from appliance.providers.model_worker import worker_command, worker_environment
from tests.fakes.writers import chat_writer
from tests.protocols.calls import call
from tests.providers.conftest import clock

ROOT = str(Path(__file__).resolve().parents[2])
Start = Callable[..., Any]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that is there; the fake worker does not open it."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return path


@asynccontextmanager
async def running(
    tmp_path: Path, weights: Path, behaviour: str = "good", **settings: Any
) -> AsyncIterator[EmbeddedProvider]:
    config = ProviderConfig(
        dialect="embedded",
        model_path=str(weights),
        embedding_model_path=str(weights),
        models=["tiny", "provider-model", "fault-hang", "fault-slow"],
        **settings,
    )
    command = [sys.executable, "-m", "tests.providers.fake_worker", behaviour]
    environ = {**os.environ, "TMPDIR": str(tmp_path), "OPENAI_API_KEY": "sk-secret"}
    provider = EmbeddedProvider("embedded", config, clock=clock, command=command, environ=environ)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(provider.run)
            yield provider
            nursery.cancel_scope.cancel()


async def answer(provider: EmbeddedProvider, **members: Any) -> str:
    async with provider.open(call(stream=False, **members)) as reply:
        said: str = json.loads(await reply.whole(chat_writer()))["choices"][0]["message"]["content"]
        return said


def report(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return found


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_process_starts_with_the_first_call_and_serves_the_next(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights) as provider:
        assert provider.chat_worker.starts == 0

        assert await answer(provider) == await answer(provider) != ""
        async with provider.open(call()) as reply:
            assert [events async for events in reply.events(chat_writer())]

        assert provider.chat_worker.starts == 1
        assert provider.embedding_worker.starts == 0


async def test_many_first_calls_start_one_process(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights) as provider:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(answer, provider)

        assert provider.chat_worker.starts == 1


async def test_the_process_knows_its_key_and_no_secret_of_ours(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights, threads=3) as provider:
        await answer(provider)
        told = report(tmp_path)
        socket = Path(told["argv"][told["argv"].index("--socket") + 1])

        assert told["environ"]["OMP_WAIT_POLICY"] == "passive"
        key = told["environ"]["OPENCLAW_WORKER_KEY"]
        assert len(key) == 64
        assert key not in " ".join(told["argv"])
        assert "sk-secret" not in json.dumps(told)
        assert told["argv"][told["argv"].index("--threads") + 1] == "3"
        assert told["argv"][told["argv"].index("--alias") + 1] == "tiny"
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700

    assert not socket.parent.exists()


async def test_a_killed_process_is_replaced_with_the_next_call(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights) as provider:
        with pytest.raises(UpstreamUnavailable, match="started again"):
            await _answer_and_die(provider)

        assert await answer(provider)
        assert provider.chat_worker.starts == 2


async def _answer_and_die(provider: EmbeddedProvider) -> None:
    async with provider.open(_hanging()) as reply:
        os.kill(provider.chat_worker.process_id or 0, signal.SIGKILL)
        await _exhaust(reply)


async def _exhaust(reply: Reply) -> None:
    async with aclosing(reply.events(chat_writer())) as events:
        async for _ in events:
            pass


def _hanging() -> ModelCall:
    return call(model="fault-hang", stream=True)


async def test_a_process_nobody_uses_leaves_and_comes_back(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights, idle_unload=0.2) as provider:
        await answer(provider)
        pidfd = os.pidfd_open(provider.chat_worker.process_id or 0)
        try:
            await trio.lowlevel.wait_readable(pidfd)  # it has ended
        finally:
            os.close(pidfd)
        await trio.testing.wait_all_tasks_blocked()

        assert provider.chat_worker.process_id is None
        assert await answer(provider)
        assert provider.chat_worker.starts == 2


async def test_a_call_under_way_keeps_the_process(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights, idle_unload=0.1) as provider:
        async with provider.open(call(model="fault-slow")) as reply:
            events = [each async for each in reply.events(chat_writer())]

        assert len(events) > 10
        assert provider.chat_worker.starts == 1


async def test_calls_wait_for_each_other_and_not_too_many_wait(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "MOST_WAITING", 2)
    async with (
        running(tmp_path, weights) as provider,
        trio.open_nursery() as nursery,
        provider.open(_hanging()),
    ):
        for _ in range(2):
            nursery.start_soon(answer, provider)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UpstreamUnavailable, match="2 calls wait already"):
            await answer(provider)


async def test_nobody_waits_for_ever(tmp_path: Path, weights: Path) -> None:
    async with (
        running(tmp_path, weights, request_timeout=1) as provider,
        provider.open(_hanging()),
    ):
        with pytest.raises(UpstreamUnavailable, match="busy for 1 s"):
            await answer(provider)


@pytest.mark.parametrize(
    ("timeouts", "stream"),
    [(Timeouts(idle=0.2), True), (Timeouts(request=0.2), False)],
    ids=["silence in the answer", "an answer that does not come"],
)
async def test_a_model_may_be_given_another_time(
    tmp_path: Path, weights: Path, timeouts: Timeouts, *, stream: bool
) -> None:
    async with running(tmp_path, weights) as provider:
        await answer(provider)
        asked = replace(call(model="fault-hang", stream=stream), timeouts=timeouts)
        with pytest.raises(UpstreamTimeout) as failed:
            async with provider.open(asked) as reply:
                await _exhaust(reply)

        assert failed.value.retryable
        assert await answer(provider)


IMPATIENT = replace(call(stream=True), timeouts=Timeouts(first_token=0.2))


async def test_waiting_for_others_counts_as_waiting_for_the_first_token(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights) as provider:
        async with provider.open(_hanging()):
            with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s"):
                async with provider.open(IMPATIENT):
                    pass

        assert await answer(provider)


async def test_waiting_for_the_process_counts_and_the_process_comes_up_for_the_next(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights) as provider:
        hurried = replace(IMPATIENT, timeouts=Timeouts(first_token=0.001))
        with pytest.raises(UpstreamTimeout):
            async with provider.open(hurried):
                pass

        assert await answer(provider)
        assert provider.chat_worker.starts == 1


async def test_vectors_that_do_not_come_in_time_are_not_waited_for(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights, "never-ready") as provider:
        with pytest.raises(UpstreamTimeout, match=r"within 0\.2 s"):
            await provider.embed(texts("a", patience=0.2))


async def test_an_answer_that_began_in_time_may_take_longer(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights) as provider:
        await answer(provider)
        timeouts = Timeouts(request=0.3, first_token=0.3)
        slow = replace(call(model="fault-slow", stream=True), timeouts=timeouts)
        began = trio.current_time()
        async with provider.open(slow) as reply:
            await _exhaust(reply)

        assert reply.finished
        assert trio.current_time() - began > 0.3


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [("refuse", "weights cannot be loaded"), ("die", "ended while loading")],
)
async def test_a_process_that_does_not_come_up_is_told_of_without_paths(
    tmp_path: Path, weights: Path, behaviour: str, said: str
) -> None:
    async with running(tmp_path, weights, behaviour) as provider:
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable, match=said) as caught:
                await answer(provider)
            assert "/secret" not in caught.value.detail

        # It is not started anew for each call.
        assert provider.chat_worker.starts == 1


async def test_a_process_that_never_says_it_is_ready_is_given_up(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_worker, "LOAD_TIMEOUT", 0.5)
    async with running(tmp_path, weights, "never-ready") as provider:
        with pytest.raises(UpstreamUnavailable, match="did not load within"):
            await answer(provider)


async def test_missing_weights_and_a_missing_cpu_feature_are_told_at_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none.gguf"
    async with running(tmp_path, missing) as provider:
        with pytest.raises(UpstreamUnavailable, match="weights are missing"):
            await answer(provider)
        assert provider.chat_worker.starts == 0

    monkeypatch.setattr(embedded, "missing_cpu_features", lambda: frozenset({"avx2"}))
    async with running(tmp_path, weights) as provider:
        with pytest.raises(UpstreamUnavailable, match="this CPU lacks avx2"):
            await answer(provider)


async def test_shutting_down_ends_the_process(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights) as provider:
        await answer(provider)
        process_id = provider.chat_worker.process_id
        assert process_id is not None

    assert not is_alive(process_id)


async def test_a_call_that_is_cancelled_frees_the_model(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights) as provider:
        await answer(provider)
        with trio.move_on_after(0.2):
            async with provider.open(_hanging()) as reply:
                await _exhaust(reply)

        assert await answer(provider)
        assert provider.chat_worker.starts == 1


def texts(*given: str, **fields: Any) -> EmbeddingCall:
    return EmbeddingCall(**{"model": "tiny", "texts": given, **fields})


async def test_texts_are_embedded_by_a_process_of_their_own(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights) as provider:
        found = await provider.embed(texts(*["one", "two words", ""] * 20))

        assert len(found.vectors) == 60
        assert found.vectors[:3] == found.vectors[3:6]
        assert found.usage == TokenUsage(input=60)
        assert (found.model, found.dimensions) == ("tiny", 8)
        assert (provider.chat_worker.starts, provider.embedding_worker.starts) == (0, 1)
        assert "--embedding" in report(tmp_path)["argv"]


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"texts": (), "tokens": ((1, 2),)}, "input", "check_embedding_ctx_length=False"),
        ({"model": "provider-model"}, "model", "makes no embeddings; name embedded/tiny"),
        ({"dimensions": 4}, "dimensions", "vectors of 8 numbers only"),
        ({"dimensions": 9}, "dimensions", "vectors of 8 numbers only"),
    ],
    ids=str,
)
async def test_what_it_cannot_embed_is_refused_by_name(
    tmp_path: Path, weights: Path, fields: dict[str, Any], field: str, reason: str
) -> None:
    async with running(tmp_path, weights) as provider:
        with pytest.raises(EmbeddingRefused, match=reason) as refused:
            await provider.embed(texts("a", **fields))

    assert refused.value.fields[0].field == field


async def test_vectors_are_cut_where_the_model_learned_it(tmp_path: Path) -> None:
    path = tmp_path / "nomic-embed-text-v1.5.Q8_0.gguf"
    path.write_bytes(b"GGUF")
    async with running(tmp_path, path) as provider:
        found = await provider.embed(texts("a", "b", model=path.stem, dimensions=3))

        assert found.dimensions == 3
        for vector in found.vectors:
            assert len(numbers_of(vector)) == 3
            assert math.isclose(math.hypot(*numbers_of(vector)), 1, abs_tol=1e-6)
        with pytest.raises(EmbeddingRefused, match="at most 8"):
            await provider.embed(texts("a", model=path.stem, dimensions=9))


async def test_the_embedding_model_does_not_chat(tmp_path: Path, weights: Path) -> None:
    async with running(tmp_path, weights) as provider:
        with pytest.raises(InvalidRequest, match="embeddings only"):
            await answer(
                EmbeddedProvider("e", ProviderConfig(dialect="embedded"), clock=clock),
                model="all-minilm-l6-v2",
            )

        assert await answer(provider, model="tiny")


@pytest.mark.parametrize("name", ["foo", "TINY", "tiny ", ""])
async def test_a_name_of_nobody_is_answered_by_nobody(
    tmp_path: Path, weights: Path, name: str
) -> None:
    async with running(tmp_path, weights) as provider:
        with pytest.raises(UpstreamRefused, match="name embedded/tiny") as chat:
            await answer(provider, model=name)
        with pytest.raises(UpstreamRefused, match="name embedded/tiny") as vectors:
            await provider.embed(texts("a", model=name))

        assert provider.chat_worker.starts == provider.embedding_worker.starts == 0
    for refused in (chat.value, vectors.value):
        assert (refused.status, refused.upstream_code) == (404, "model_not_found")
        assert refused.param == "model"
        assert refused.retryable  # by the next of a chain


async def test_what_it_cannot_answer_is_refused_before_anybody_waits(
    tmp_path: Path, weights: Path
) -> None:
    async with running(tmp_path, weights) as provider:
        with pytest.raises(InvalidRequest, match="temperature: must lie between 0 and 2"):
            await answer(provider, temperature=3)
        long = [{"role": "user", "content": "word " * 20_000}]
        with pytest.raises(InvalidRequest, match="top_p"):
            await answer(provider, messages=long, top_p=2)

        assert provider.chat_worker.starts == 0


async def test_it_says_which_model_it_is(weights: Path) -> None:
    def models(**settings: Any) -> EmbeddedProvider:
        return EmbeddedProvider("e", ProviderConfig(dialect="embedded", **settings), clock=clock)

    assert list(await models().models()) == ["smollm2-135m"]
    assert list(await models(model_path=str(weights)).models()) == ["tiny"]
    assert list(await models(models=["a", "b"]).models()) == ["a", "b"]


def test_the_worker_is_this_program_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_command() == [sys.executable, "-m", "appliance", "model-worker"]
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert worker_command() == [sys.executable, "model-worker"]
    assert "PYTHONPATH" not in worker_environment({}, key="k")


def test_the_workers_environment_is_a_short_list() -> None:
    told = worker_environment({"PATH": "/bin", "HOME": "/root", "AWS_SECRET": "x"}, key="k")

    assert told == {
        "PATH": "/bin",
        "PYTHONPATH": ROOT,
        "OMP_WAIT_POLICY": "passive",
        "OPENCLAW_WORKER_KEY": "k",
    }


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("flags\t\t: fpu avx2 fma f16c bmi2 sse\n", set()),
        ("flags\t\t: fpu sse4_2\n", {"avx2", "fma", "f16c", "bmi2"}),
        ("nothing of the kind\n", set()),
    ],
)
def test_the_cpu_is_asked_before_the_library_would_crash(
    tmp_path: Path, text: str, missing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(text)

    assert missing_cpu_features(tmp_path / "cpuinfo") == missing
    assert missing_cpu_features(tmp_path / "none") == frozenset()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert missing_cpu_features(tmp_path / "cpuinfo") == frozenset()
