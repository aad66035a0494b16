"""The real embedded models: the same promises, kept by llama.cpp."""

import json
import math
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from appliance.config.schema import ProviderConfig
from appliance.model.calls import ModelCall
from appliance.model.embeddings import EmbeddingCall
from appliance.model.errors import ContextTooLong
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.embeddings import numbers_of
from appliance.providers import weights
from appliance.providers.embedded import EmbeddedProvider
from appliance.providers.embedded_schemas import MOST_PLACES
from appliance.providers.embedded_worker import KEY_VARIABLE
from appliance.providers.errors import UpstreamUnavailable
from appliance.providers.model_worker import worker_command, worker_environment
from tests.fakes.writers import chat_writer
from tests.protocols.calls import call as call_of
from tests.protocols.calls import end_of
from tests.providers.conftest import clock

MODELS = Path(__file__).resolve().parents[2] / "models"

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not all((MODELS / name).is_file() for name in (weights.CHAT, weights.EMBEDDING)),
        reason="the weights are missing: make models",
    ),
]

call = partial(call_of, model=weights.CHAT_MODEL)
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]


@pytest.fixture
async def provider() -> AsyncIterator[EmbeddedProvider]:
    config = ProviderConfig(dialect="embedded", context_tokens=512)
    environ = {**os.environ, "OPENCLAW_MODELS_DIR": str(MODELS)}
    provider = EmbeddedProvider("embedded", config, clock=clock, environ=environ)
    async with trio.open_nursery() as nursery:
        await nursery.start(provider.run)
        yield provider
        nursery.cancel_scope.cancel()


async def test_it_answers_in_one_piece_and_streamed_with_honest_usage(
    provider: EmbeddedProvider,
) -> None:
    with trio.fail_after(120):
        async with provider.open(call(stream=False, messages=HELLO, max_tokens=20)) as whole:
            completion = json.loads(await whole.whole(chat_writer()))
        async with provider.open(call(messages=HELLO, max_tokens=20)) as streamed:
            events = [each async for each in streamed.events(chat_writer())]
        async with provider.open(call(messages=HELLO, max_tokens=3)) as short:
            deltas = [delta async for several in short.deltas() for delta in several]

    text = completion["choices"][0]["message"]["content"]
    said = (json.loads(payload) for each in events for payload in sse.payloads(each))
    assert "hello" in text.lower()
    assert completion["model"] == weights.CHAT_MODEL  # not the path of the file
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in said) == text
    assert whole.usage is not None
    assert whole.usage.cache_read == 0
    assert streamed.usage == whole.usage
    assert end_of(deltas).reason == "length"
    assert end_of(deltas).usage == TokenUsage(input=whole.usage.input, output=3)
    assert provider.chat_worker.starts == 1


async def _choice(provider: EmbeddedProvider, **members: Any) -> dict[str, Any]:
    asked = call(stream=False, messages=HELLO, **{"max_tokens": 12, **members})
    async with provider.open(asked) as reply:
        choice: dict[str, Any] = json.loads(await reply.whole(chat_writer()))["choices"][0]
        return choice


async def _words(provider: EmbeddedProvider, **members: Any) -> str:
    said: str = (await _choice(provider, **members))["message"]["content"]
    return said


async def test_each_way_to_choose_tokens_does_something(provider: EmbeddedProvider) -> None:
    wild = {"temperature": 2, "seed": 1}
    with trio.fail_after(120):
        usual, at_random = await _words(provider), await _words(provider, **wild)

        assert at_random != usual
        assert await _words(provider, **wild) == at_random
        assert await _words(provider, **wild | {"seed": 2}) != at_random
        for narrow in ({"top_k": 1}, {"min_p": 1}, {"top_p": 0}):
            assert await _words(provider, **wild | narrow) == usual
        first = await _choice(provider, logprobs=True, max_tokens=1)
        for other in (
            {"repeat_penalty": 2},
            {"repetition_penalty": 2},
            {"frequency_penalty": 2},
            {"presence_penalty": 2},
            {"logit_bias": {str(_token(first)["id"]): -100}},
        ):
            assert await _words(provider, **other) != usual
        assert await _words(provider, stop=usual.split()[1]) == usual.split()[0] + " "


def _token(choice: dict[str, Any]) -> dict[str, Any]:
    token: dict[str, Any] = choice["logprobs"]["content"][0]
    return token


async def test_it_tells_how_likely_its_words_were(provider: EmbeddedProvider) -> None:
    with trio.fail_after(120):
        asked = call(messages=HELLO, max_tokens=2, logprobs=True, top_logprobs=3)
        async with provider.open(asked) as reply:
            events = b"".join([each async for each in reply.events(chat_writer())])
        token = _token(await _choice(provider, logprobs=True, top_logprobs=3))

    assert token["logprob"] <= 0
    assert len(token["top_logprobs"]) == 3
    assert events.count(b'"top_logprobs":[{') == 2


async def test_it_keeps_to_a_schema(provider: EmbeddedProvider) -> None:
    schema: dict[str, Any] = {
        "$defs": {"Day": {"type": "string", "format": "date"}},
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "age": {"type": "integer", "minimum": 30, "maximum": 39},
            "role": {"enum": ["cook", "clerk"]},
            "day": {"anyOf": [{"$ref": "#/$defs/Day"}, {"type": "null"}]},
            "at": {"type": "string", "format": "time"},
            "since": {"type": "string", "format": "date-time"},
            "marks": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        },
        "required": ["id", "age", "role", "day", "at", "since", "marks"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    with trio.fail_after(120):
        answer = json.loads(await _words(provider, response_format=form, max_tokens=300))

    assert set(answer) == set(schema["required"])
    assert UUID(answer["id"])
    assert 30 <= answer["age"] <= 39
    assert answer["role"] in {"cook", "clerk"}
    assert len(answer["marks"]) == 2
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+", answer["since"])


async def test_the_widest_schema_that_it_takes_is_answered_soon(provider: EmbeddedProvider) -> None:
    choices = [{"type": "string", "maxLength": 19}] * (MOST_PLACES - 1)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"anyOf": choices}}}
    with trio.fail_after(20):
        assert json.loads(await _words(provider, response_format=form, max_tokens=60))

    assert provider.chat_worker.starts == 1


async def test_the_worker_grows_no_further_than_it_must(provider: EmbeddedProvider) -> None:
    with trio.fail_after(120):
        await _words(provider, max_tokens=1)
    limits = Path(f"/proc/{provider.chat_worker.process_id}/limits").read_text()  # noqa: ASYNC240 - not a disk
    (of_data,) = re.findall(r"Max data size +(\d+) +(\d+)", limits)

    assert 1 << 30 < int(of_data[0]) < 2 << 30
    assert of_data[0] == of_data[1]


async def test_a_conversation_that_is_too_long_is_refused_in_words(
    provider: EmbeddedProvider,
) -> None:
    long = [{"role": "user", "content": "word " * 2000}]
    with trio.fail_after(120), pytest.raises(ContextTooLong, match="context"):
        async with provider.open(call(messages=long)):
            pass


async def test_a_cancelled_answer_frees_the_model_at_once(provider: EmbeddedProvider) -> None:
    story = [{"role": "user", "content": "Tell me a long story about a dragon and a knight."}]
    with trio.fail_after(120):
        async with (
            provider.open(call(messages=story, max_tokens=400)) as reply,
            aclosing(reply.events(chat_writer())) as events,
        ):
            async for _ in events:
                break
        left_at = trio.current_time()
        async with provider.open(call(stream=False, messages=HELLO, max_tokens=1)) as reply:
            await reply.whole(chat_writer())

    # 400 tokens take at least 4 s here; a short prompt and one token well under one.
    assert trio.current_time() - left_at < 3
    assert provider.chat_worker.starts == 1


async def test_after_a_kill_the_next_call_is_answered(provider: EmbeddedProvider) -> None:
    story = call(messages=[{"role": "user", "content": "Tell me a story."}], max_tokens=400)
    with trio.fail_after(120):
        with pytest.raises(UpstreamUnavailable):
            await _answer_and_die(provider, story)
        async with provider.open(call(stream=False, messages=HELLO, max_tokens=2)) as reply:
            assert await reply.whole(chat_writer())

    assert provider.chat_worker.starts == 2


async def _answer_and_die(provider: EmbeddedProvider, story: ModelCall) -> None:
    async with (
        provider.open(story) as reply,
        aclosing(reply.events(chat_writer())) as events,
    ):
        async for _ in events:
            if provider.chat_worker.process_id is not None:
                os.kill(provider.chat_worker.process_id, signal.SIGKILL)


def of_texts(*texts: str) -> EmbeddingCall:
    return EmbeddingCall(model=weights.EMBEDDING_MODEL, texts=texts)


async def test_texts_of_any_length_become_unit_vectors_that_know_their_meaning(
    provider: EmbeddedProvider,
) -> None:
    texts = [
        "Alice is allergic to peanuts.",
        "The car's oil was changed in May.",
        "漢字" * 1500,
        "word " * 900,
        "",
    ]
    with trio.fail_after(120):
        found = await provider.embed(of_texts(*texts))
        question = await provider.embed(of_texts("What food must Alice avoid?"))

    vectors = [numbers_of(vector) for vector in found.vectors]
    assert found.dimensions == 384
    assert {len(vector) for vector in vectors} == {384}
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-3) for vector in vectors)
    asked = numbers_of(question.vectors[0])
    scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in vectors]
    assert max(scores) == scores[0]
    assert found.model == weights.EMBEDDING_MODEL


async def test_the_worker_listens_on_no_port_and_leaves_with_its_parent(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    socket = str(folder / "model.sock")
    arguments = ["--model", str(MODELS / weights.CHAT), "--alias", "x"]
    size = ["--context", "256", "--threads", "1"]
    with trio.fail_after(120):
        process = await trio.lowlevel.open_process(
            [*worker_command(), "--socket", socket, *arguments, *size],
            stdin=-1,
            stdout=-1,
            env=worker_environment(os.environ, key="k" * 64),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.receive_some(100) == b"READY\n"

        inodes = {
            os.stat(link).st_ino  # noqa: PTH116 - of what the descriptor leads to
            for link in Path(f"/proc/{process.pid}/fd").iterdir()  # noqa: ASYNC240 - not a disk
        }
        for table in ("tcp", "tcp6", "udp", "udp6"):
            rows = Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]  # noqa: ASYNC240 - not a disk
            assert not inodes & {int(row.split()[9]) for row in rows}
        environ = Path(f"/proc/{process.pid}/environ").read_bytes()  # noqa: ASYNC240 - not a disk
        assert KEY_VARIABLE.encode() in environ
        async with await trio.open_unix_socket(socket) as stream:
            await stream.send_all(b"GET /slots HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 401 " in await stream.receive_some(1000)

        await process.stdin.aclose()
        assert await process.wait() == 0
        await process.stdout.aclose()
    assert not folder.exists()


async def test_a_file_that_is_no_model_is_told_of(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")
    config = ProviderConfig(dialect="embedded", model_path=str(broken))
    provider = EmbeddedProvider("embedded", config, clock=clock)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await nursery.start(provider.run)
            with pytest.raises(UpstreamUnavailable, match="cannot be loaded"):
                async with provider.open(call(model="broken", messages=HELLO)):
                    pass
            nursery.cancel_scope.cancel()
