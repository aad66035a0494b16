"""Responses: kept before they are told, continued, run in the background, broken off cleanly."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from appliance.config.loading import parse_config
from appliance.model.calls import Delta
from appliance.model.errors import (
    ContextTooLong,
    DiskFull,
    InvalidRequest,
    ModelForbidden,
    ModelUnknown,
    NotFound,
    QuotaExceeded,
    UpstreamFailed,
)
from appliance.protocols.responses import seals
from appliance.protocols.responses.asides import HostedCall
from appliance.providers.errors import ContextExceeded
from appliance.services.responses.book import TooManyRuns
from appliance.services.responses.chains import ChainMemory
from appliance.services.responses.conversations import ConversationService
from appliance.services.responses.runs import PreviousResponseNotFound
from appliance.storage.response_rows import PageOf, ResponseStatus
from appliance.storage.responses import ResponseStore
from tests.fakes.cancelling import each_cancellation
from tests.fakes.providers import FakeReply
from tests.fakes.tenants import CALLER, CONFIG
from tests.services.responding import (
    ClientLeft,
    Endless,
    FakeSink,
    House,
    allow_tools,
    open_house,
    request,
)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


async def test_it_is_kept_and_settled_before_the_end_is_told(house: House) -> None:
    sink = FakeSink(fails_at="finish")
    run = house.run(stream=True)

    with pytest.raises(ClientLeft):
        await house.service.answer(house.tenant, CALLER, run, sink)

    shown = house.shown(run.id)
    assert shown is not None
    assert shown["status"] == "completed"
    house.tenant.assert_settled()


async def test_what_is_not_stored_leaves_nothing_behind(house: House) -> None:
    made = await house.answer(store=False)

    assert made["status"] == "completed"
    assert house.shown(made["id"]) is None
    with pytest.raises(PreviousResponseNotFound):
        await house.answer(previous_response_id=made["id"])
    house.tenant.assert_settled()


async def test_the_conversation_so_far_goes_to_the_model(house: House) -> None:
    first = await house.answer("one")
    second = await house.answer("two", previous_response_id=first["id"])
    await house.answer("three", previous_response_id=second["id"])

    said = [item["content"][0]["text"] for item in house.asked()]
    assert said == ["one", "Hello there", "two", "Hello there", "three"]


async def test_it_cannot_be_continued_after_its_time(house: House) -> None:
    first = await house.answer("one")
    house.clock.advance(timedelta(days=30).total_seconds())

    with pytest.raises(PreviousResponseNotFound):
        await house.answer("two", previous_response_id=first["id"])
    with pytest.raises(NotFound):
        await house.service.find(house.tenant, first["id"])


async def test_what_a_connection_remembers_can_be_continued(house: House) -> None:
    memory = ChainMemory()
    run = house.run("one", store=False, memory=memory)
    await house.service.answer(house.tenant, CALLER, run, FakeSink())
    after = house.run("two", store=False, memory=memory, previous_response_id=run.id)
    await house.service.answer(house.tenant, CALLER, after, FakeSink())

    assert [item["content"][0]["text"] for item in house.asked()] == ["one", "Hello there", "two"]


async def test_a_branch_of_a_conversation_reads_what_was_before_it(house: House) -> None:
    service = ConversationService(clock=house.clock)
    begun = request([{"role": "user", "content": "zero"}]).input
    talk = (await service.create(house.tenant, begun, {})).id
    await house.answer("one", conversation=talk)
    second = await house.answer("two", conversation=talk)
    await house.answer("three", conversation=talk)

    branch = await house.answer("apart", previous_response_id=second["id"])
    await house.answer("further", previous_response_id=branch["id"])

    said = [item["content"][0]["text"] for item in house.asked() if item["role"] == "user"]
    assert said == ["zero", "one", "two", "apart", "further"]
    await service.delete(house.tenant, talk)
    for each in (second, branch):
        with pytest.raises(PreviousResponseNotFound):
            await house.answer("gone", previous_response_id=each["id"])


async def test_what_is_stored_and_builds_on_what_is_not_goes_on_where_that_is_known(
    house: House,
) -> None:
    memory = ChainMemory()
    previous = None
    for said, stores in (("one", False), ("two", True), ("three", True)):
        run = house.run(said, store=stores, memory=memory, previous_response_id=previous)
        await house.service.answer(house.tenant, CALLER, run, FakeSink())
        previous = run.id

    read = [item["content"][0]["text"] for item in house.asked()]
    assert read == ["one", "Hello there", "two", "Hello there", "three"]
    with pytest.raises(PreviousResponseNotFound):
        await house.answer("four", previous_response_id=previous)


async def test_a_failure_on_the_way_is_told_kept_and_settled(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeReply(failure=UpstreamFailed("it broke"))) as house:
        sink = FakeSink()
        run = house.run(stream=True)

        with pytest.raises(UpstreamFailed):
            await house.service.answer(house.tenant, CALLER, run, sink)

        assert b"response.failed" in run.failure
        assert b"it broke" in run.failure
        shown = house.shown(run.id)
        assert shown is not None
        assert shown["status"] == "failed"
        house.tenant.assert_settled()


async def test_a_failure_at_once_leaves_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, UpstreamFailed("it broke")) as house:
        run = house.run(stream=True)

        with pytest.raises(UpstreamFailed):
            await house.service.answer(house.tenant, CALLER, run, FakeSink())

        assert house.shown(run.id) is None


async def test_a_disk_that_is_full_in_the_end_is_a_failure(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DiskFull("there is no room")

    monkeypatch.setattr(house.tenant.found, "add", refuse)
    run = house.run(stream=True)
    sink = FakeSink()

    with pytest.raises(DiskFull):
        await house.service.answer(house.tenant, CALLER, run, sink)

    assert "finish" not in sink.told
    sink.body += run.failure
    kinds = [event["type"] for event in sink.events]
    assert kinds[-3:] == ["response.output_item.done", "error", "response.failed"]
    assert "response.completed" not in kinds, "nothing is complete that was not kept"
    assert [event["sequence_number"] for event in sink.events] == list(range(len(kinds)))
    assert sink.events[-1]["response"]["completed_at"] is None
    house.tenant.assert_settled()


async def test_what_could_not_be_kept_is_not_asked_for(house: House) -> None:
    text = CONFIG.replace("defaults:", "defaults:\n  responses: {max_stored: 2}")
    house.tenant.config = parse_config(text, name="config")
    first = await house.answer("one")
    second = await house.answer("two", previous_response_id=first["id"])

    with pytest.raises(QuotaExceeded):
        await house.answer("three", previous_response_id=second["id"])
    with pytest.raises(QuotaExceeded):
        await house.start("three", previous_response_id=second["id"])

    assert len(house.stub.calls) == 2
    assert (await house.answer("another"))["status"] == "completed", "the oldest went for it"


async def test_without_room_nobody_is_asked(house: House) -> None:
    house.tenant.root.room.told(left=0, refusal=None)

    with pytest.raises(QuotaExceeded):
        await house.answer()
    assert house.stub.calls == []
    assert (await house.answer(store=False))["status"] == "completed"


@pytest.mark.parametrize("streams", [False, True])
async def test_cancelled_anywhere_it_holds_nothing(tmp_path: Path, *, streams: bool) -> None:
    async with open_house(tmp_path) as house:

        async def work() -> None:
            sink = FakeSink()
            with suppress(ClientLeft):
                run = house.run(stream=streams)
                await house.service.answer(house.tenant, CALLER, run, sink)

        async for _ in each_cancellation(work):
            house.tenant.assert_settled()
            assert house.stub.entered == house.stub.exited


async def test_starting_cancelled_anywhere_leaves_no_run_that_nobody_ends(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:

        async def work() -> None:
            await house.start()

        async for _ in each_cancellation(work):
            await wait_all_tasks_blocked()
            with trio.fail_after(5):
                while len(house.tenant.state.responses):  # noqa: ASYNC110 - each ends by itself
                    await trio.sleep(0.01)
            store = house.tenant.found
            assert store.mark_interrupted(now=house.clock()) == 0
            house.tenant.assert_settled()


# Too long


async def test_with_truncation_the_oldest_are_left_out(tmp_path: Path) -> None:
    too_long = ContextExceeded("too long")
    async with open_house(tmp_path, too_long, too_long, FakeReply()) as house:
        said = [{"role": "developer", "content": "rules"}]
        said += [{"role": "user", "content": f"line {n}"} for n in range(8)]

        made = await house.answer(said, truncation="auto")

        sent = [[item["content"][0]["text"] for item in house.asked(n)] for n in range(3)]
        assert len(sent[0]) == 9
        assert len(sent[0]) > len(sent[1]) > len(sent[2])
        assert all(each[0] == "rules" and each[-1] == "line 7" for each in sent)
        page = house.tenant.found.input_items(made["id"], PageOf(limit=100), now=house.clock())
        assert page is not None
        assert len(page.items) == 9, "what was asked is kept whole"


async def test_without_truncation_it_fails(tmp_path: Path) -> None:
    async with open_house(tmp_path, ContextExceeded("too long")) as house:
        with pytest.raises(ContextTooLong):
            await house.answer([{"role": "user", "content": str(n)} for n in range(8)])
        assert len(house.stub.calls) == 1


async def test_truncation_has_an_end(tmp_path: Path) -> None:
    async with open_house(tmp_path, ContextExceeded("too long")) as house:
        with pytest.raises(ContextTooLong):
            await house.answer(
                [{"role": "user", "content": str(n)} for n in range(500)], truncation="auto"
            )
        assert len(house.stub.calls) <= 9


# Compacted on the way

ABOVE_1000 = [{"type": "compaction", "compact_threshold": 1000}]


async def test_what_is_too_long_is_compacted_and_goes_on_so(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeReply(), FakeReply(pieces=["all of it"])) as house:
        system = {"role": "developer", "content": "Be brief."}
        first = await house.answer([system, {"role": "user", "content": "x" * 5_000}])
        before = house.tenant.entries("cost_nano")

        second = await house.answer(
            "and now?", previous_response_id=first["id"], context_management=ABOVE_1000
        )

        assert [item["type"] for item in second["output"]] == ["compaction", "message"]
        sealed = second["output"][0]["encrypted_content"]
        assert seals.summary_of(sealed) == "all of it"
        assert len(house.stub.calls) == 3
        summed_up = house.stub.calls[1].body["input"]
        assert b"xxx" in summed_up
        assert b"and now?" in summed_up
        kinds = [item["type"] for item in house.asked()]
        assert kinds == ["message", "compaction", "message"]
        assert b"xxx" not in house.stub.calls[2].body["input"]
        assert house.asked()[0]["content"][0]["text"] == "Be brief."
        assert house.asked()[2]["content"][0]["text"] == "and now?"
        assert second["usage"]["input_tokens"] == 20
        assert len(house.tenant.entries()) == len(before) + 2

        third = await house.answer("more", previous_response_id=second["id"])
        kinds = [item["type"] for item in house.asked()]
        assert kinds == ["message", "compaction", "message", "message"]
        assert third["status"] == "completed"
        listed = await house.service.input_items(house.tenant, second["id"], PageOf())
        assert len(listed.items) == 1
        house.tenant.assert_settled()


async def test_a_stream_tells_the_compaction_first(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeReply(pieces=["sum"])) as house:
        said = [
            {"role": "user", "content": "x" * 5_000},
            {"role": "assistant", "content": "well"},
            {"role": "user", "content": "go on"},
        ]
        sink = FakeSink()
        run = house.run(said, stream=True, store=False, context_management=ABOVE_1000)
        await house.service.answer(house.tenant, CALLER, run, sink)

        told = [
            (event["type"], event["output_index"], event["item"]["type"])
            for event in sink.events
            if event["type"].startswith("response.output_item")
        ]
        assert told[:2] == [
            ("response.output_item.added", 0, "compaction"),
            ("response.output_item.done", 0, "compaction"),
        ]
        assert told[2] == ("response.output_item.added", 1, "message")
        assert sink.events[0]["type"] == "response.created"
        numbers = [event["sequence_number"] for event in sink.events]
        assert numbers == list(range(len(numbers)))
        house.tenant.assert_settled()


async def test_a_tool_is_answered_from_what_was_compacted(tmp_path: Path) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "7"}
    async with open_house(tmp_path) as house:
        said = [{"role": "user", "content": "x" * 5_000}, call, result]

        made = await house.answer(said, context_management=ABOVE_1000)

        kinds = [item["type"] for item in house.asked()]
        assert kinds == ["compaction", "function_call", "function_call_output"]
        await house.answer("more", previous_response_id=made["id"])
        kinds = [item["type"] for item in house.asked()]
        assert kinds == ["compaction", "message", "message"]


async def test_a_conversation_goes_on_from_its_compaction(house: House) -> None:
    service = ConversationService(clock=house.clock)
    begun = await service.create(house.tenant, (), {})
    await house.answer("x" * 5_000, conversation=begun.id)
    await house.answer("and now?", conversation=begun.id, context_management=ABOVE_1000)

    await house.answer("more", conversation=begun.id)

    assert [item["type"] for item in house.asked()] == ["compaction", "message", "message"]
    listed = await service.items(house.tenant, begun.id, PageOf(newest_first=False))
    assert [item.id[:3] for item in listed.items] == [
        "msg",
        "msg",
        "msg",
        "cmp",
        "msg",
        "msg",
        "msg",
    ]


async def test_what_a_connection_remembers_is_compacted_too(house: House) -> None:
    memory = ChainMemory()
    first = house.run("x" * 5_000, store=False, memory=memory)
    await house.service.answer(house.tenant, CALLER, first, FakeSink())
    second = house.run(
        "go on",
        store=False,
        memory=memory,
        previous_response_id=first.id,
        context_management=ABOVE_1000,
    )
    await house.service.answer(house.tenant, CALLER, second, FakeSink())

    kinds = [item["type"] for item in memory.find(second.id) or ()]
    assert kinds == ["compaction", "message"]


@pytest.mark.parametrize("length", [2_000, 5_000])
async def test_what_is_short_or_has_nothing_before_it_stays(house: House, length: int) -> None:
    made = await house.answer("x" * length, context_management=ABOVE_1000)

    assert [item["type"] for item in made["output"]] == ["message"]
    assert len(house.stub.calls) == 1


async def test_without_a_summary_it_fails_clearly(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeReply(), FakeReply(pieces=[" "])) as house:
        first = await house.answer("x" * 5_000)
        more = {"previous_response_id": first["id"], "context_management": ABOVE_1000}

        with pytest.raises(UpstreamFailed, match="summary"):
            await house.answer("go on", **more)
        made = await house.start("go on", **more)
        await house.service.cancel(house.tenant, made)

        shown = house.shown(made)
        assert shown is not None
        assert shown["status"] in {"failed", "cancelled"}
        house.tenant.assert_settled()


async def test_compacting_cancelled_anywhere_holds_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await house.answer("x" * 5_000)

        async def work() -> None:
            await house.answer(
                "go on", previous_response_id=first["id"], context_management=ABOVE_1000
            )

        async for _ in each_cancellation(work):
            house.tenant.assert_settled()


# Nobody to answer


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"model": "nosuch/model"}, ModelUnknown),
        ({"agent": "nosuch"}, ModelUnknown),
        ({"model": "spare/x"}, ModelForbidden),
        ({"agent": "main", "context_management": ABOVE_1000}, InvalidRequest),
    ],
)
@pytest.mark.parametrize("background", [False, True])
async def test_where_nobody_can_answer_nothing_is_queued(
    house: House, more: dict[str, Any], error: type[Exception], *, background: bool
) -> None:
    caller = replace(CALLER, models=("stub/*",))
    run = house.run(background=background, **more)
    answer = partial(house.service.answer, sink=FakeSink())
    give: Any = house.service.start if background else answer

    with pytest.raises(error):
        await give(house.tenant, caller, run)

    assert house.shown(run.id) is None
    assert len(house.tenant.state.responses) == 0
    assert house.stub.calls == []


# In the background


async def events_of(house: House, response_id: str, *, after: int = -1) -> bytes:
    return b"".join(
        [each async for each in house.service.follow(house.tenant, response_id, after=after)]
    )


async def test_a_run_is_followed_while_it_goes_on(house: House) -> None:
    response_id = await house.start()

    live = await events_of(house, response_id)
    again = await events_of(house, response_id)

    assert live == again
    assert live.count(b"event: response.completed") == 1
    assert len(house.tenant.state.responses) == 0
    assert await events_of(house, response_id, after=3) in live


async def test_who_cancels_twice_gets_the_same(tmp_path: Path) -> None:
    async with open_house(tmp_path, Endless()) as house:
        response_id = await house.start()
        await wait_all_tasks_blocked()

        first = await house.service.cancel(house.tenant, response_id)
        second = await house.service.cancel(house.tenant, response_id)

        assert first.status is ResponseStatus.CANCELLED
        assert first == second
        house.tenant.assert_settled()
        assert house.stub.entered == house.stub.exited == 1


async def test_what_is_complete_is_not_cancelled_any_more(house: House) -> None:
    response_id = await house.start()
    await events_of(house, response_id)

    found = await house.service.cancel(house.tenant, response_id)

    assert found.status is ResponseStatus.COMPLETED


async def test_what_was_waited_for_is_not_cancelled(house: House) -> None:
    made = await house.answer()

    with pytest.raises(InvalidRequest):
        await house.service.cancel(house.tenant, made["id"])
    with pytest.raises(InvalidRequest):
        await events_of(house, made["id"])


async def test_a_run_that_fails_is_kept_as_failed(tmp_path: Path) -> None:
    async with open_house(tmp_path, UpstreamFailed("it broke")) as house:
        response_id = await house.start()

        told = await events_of(house, response_id)

        assert b"event: response.failed" in told
        shown = house.shown(response_id)
        assert shown is not None
        assert shown["status"] == "failed"
        assert shown["error"]["message"] == "it broke"


async def test_a_run_that_the_gateway_ends_has_failed(tmp_path: Path) -> None:
    async with open_house(tmp_path, Endless()) as house:
        response_id = await house.start()
        await wait_all_tasks_blocked()
        house.tenant.jobs.end_all(lambda: NotFound("x"))
        with trio.fail_after(5):
            while len(house.tenant.state.responses):  # noqa: ASYNC110 - it ends by itself
                await trio.sleep(0.01)

        shown = house.shown(response_id)
        assert shown is not None
        assert shown["status"] == "failed"
        house.tenant.assert_settled()


async def test_a_deleted_run_ends(tmp_path: Path) -> None:
    async with open_house(tmp_path, Endless()) as house:
        response_id = await house.start()
        await wait_all_tasks_blocked()

        await house.service.delete(house.tenant, response_id)

        assert house.shown(response_id) is None
        house.tenant.assert_settled()
        with pytest.raises(NotFound):
            await house.service.delete(house.tenant, response_id)


async def test_only_so_many_run_at_once(tmp_path: Path) -> None:
    async with open_house(tmp_path, Endless()) as house:
        limit = house.tenant.config.defaults.responses.max_background
        for _ in range(limit):
            await house.start()

        with pytest.raises(TooManyRuns):
            await house.start()


async def test_a_run_that_could_not_write_its_end_has_failed_for_who_asks(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise DiskFull("there is no room")

    with monkeypatch.context() as patched:
        patched.setattr(house.tenant.found, "update", refuse)
        response_id = await house.start()
        with trio.fail_after(5):
            while len(house.tenant.state.responses):  # noqa: ASYNC110 - it ends by itself
                await trio.sleep(0.01)

    found = await house.service.find(house.tenant, response_id)

    assert found.status is ResponseStatus.FAILED


async def test_a_run_that_takes_too_long_has_failed(tmp_path: Path, mock_clock: MockClock) -> None:
    async with open_house(tmp_path, Endless()) as house:
        patience = house.tenant.config.defaults.responses.background_timeout
        response_id = await house.start()
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(patience - 1)
        await wait_all_tasks_blocked(0.01)
        assert response_id in house.tenant.state.responses

        mock_clock.jump(1)
        told = await events_of(house, response_id)

        assert b"event: response.failed" in told
        shown = house.shown(response_id)
        assert shown is not None
        assert (shown["status"], shown["error"]["code"]) == ("failed", "upstream_timeout")
        assert shown["output"][0]["content"][0]["text"] == "Hello"  # as far as it came
        house.tenant.assert_settled()
        assert house.stub.entered == house.stub.exited


async def test_after_a_restart_what_ran_has_failed(tmp_path: Path) -> None:
    async with open_house(tmp_path, Endless()) as house:
        response_id = await house.start()
        await wait_all_tasks_blocked()
        source = apsw.Connection(str(tmp_path / "tenant/responses/responses.sqlite"))
        copy = apsw.Connection(":memory:")
        with copy.backup("main", source, "main") as backup:
            backup.step()
        status = copy.execute("SELECT status FROM responses").fetchall()
        copy.close()
        source.close()
        assert status == [("in_progress",)]
        assert isinstance(house.tenant.found, ResponseStore)
        house.tenant.found.mark_interrupted(now=house.clock())
        shown = house.shown(response_id)

    assert shown is not None
    assert shown["status"] == "failed"


# Tools that the provider runs

SEARCHED = {"type": "web_search_call", "status": "completed", "action": {"query": "x"}}
WITH_SEARCH: dict[str, Any] = {"tools": [{"type": "web_search"}]}


class Searching(FakeReply):
    async def deltas(self) -> AsyncGenerator[Sequence[Delta], None]:
        yield [HostedCall(key=0, item=SEARCHED, is_done=True)]
        async for deltas in super().deltas():
            yield deltas


async def test_what_such_a_tool_did_is_kept_and_goes_back(tmp_path: Path) -> None:
    async with open_house(tmp_path, Searching()) as house:
        allow_tools(house)
        made = await house.answer("look", **WITH_SEARCH)
        await house.answer("more", previous_response_id=made["id"], **WITH_SEARCH)

        (call, _) = made["output"]
        assert call == {**SEARCHED, "id": call["id"]}
        assert house.asked()[1] == call


async def test_such_tools_are_not_for_the_gateways_key(house: House) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await house.answer("look", **WITH_SEARCH)

    assert refused.value.fields[0].field == "tools[0].type"
    assert house.stub.calls == []


async def test_what_they_find_is_not_kept_for_the_next_who_asks(tmp_path: Path) -> None:
    async with open_house(tmp_path, Searching()) as house:
        allow_tools(house, "  response_cache: {enabled: true}\n")

        for _ in range(2):
            await house.answer("look", **WITH_SEARCH)
            await house.answer("hi")

        assert len(house.stub.calls) == 3


async def test_a_prompt_that_is_only_read_is_not_kept_as_the_answer_to_it(house: House) -> None:
    allow_tools(house, "  response_cache: {enabled: true}\n")

    for options in ({"prewarm": True}, {"prewarm": True}, {}, {}):
        await house.answer("hi", prompt_cache_options=options)

    assert len(house.stub.calls) == 3


async def test_where_answers_are_looked_through_there_are_none(tmp_path: Path) -> None:
    async with open_house(tmp_path, Searching()) as house:
        allow_tools(house, "guardrails: [{name: no, deny: [swordfish], action: block}]\n")

        with pytest.raises(InvalidRequest) as refused:
            await house.answer("look", **WITH_SEARCH)

        assert refused.value.fields[0].field == "tools"
        assert house.stub.calls == []
        await house.answer("hi")


# Very long input


async def test_very_many_items_are_kept_like_a_few(house: House) -> None:
    said = [{"role": "user", "content": str(number)} for number in range(1_200)]

    made = await house.answer(said)

    found = await house.service.input_items(house.tenant, made["id"], PageOf(limit=1))
    assert found.has_more
    assert msgspec.json.decode(found.items[0].json)["content"][0]["text"] == "1199"


# Agents


async def test_an_agent_goes_on_in_its_session(house: House) -> None:
    first = await house.answer("one", model="openclaw", agent="main")
    stored = house.tenant.found.find(first["id"], now=house.clock())
    assert stored is not None
    assert stored.session.startswith("agent:main:responses:")

    await house.answer("two", model="openclaw", agent="main", previous_response_id=first["id"])

    messages = house.stub.calls[-1].body["messages"]
    assert [text in messages for text in (b"one", b"Hello there", b"two")] == [True] * 3


async def test_another_agent_is_told_the_whole_conversation(house: House) -> None:
    first = await house.answer("one", model="openclaw", agent="main")

    second = await house.answer(
        "two", model="openclaw:pirate", agent="pirate", previous_response_id=first["id"]
    )

    messages = house.stub.calls[-1].body["messages"]
    assert [text in messages for text in (b"one", b"Hello there", b"two")] == [True] * 3
    stored = house.tenant.found.find(second["id"], now=house.clock())
    assert stored is not None
    assert stored.session == ""


async def test_an_agents_turn_cancelled_anywhere_holds_nothing(house: House) -> None:
    async def work() -> None:
        await house.answer("hi", model="openclaw", agent="main")

    async for _ in each_cancellation(work):
        house.tenant.assert_settled()
        assert house.stub.entered == house.stub.exited
