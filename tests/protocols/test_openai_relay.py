"""Chat completions that are passed on: what their readers stumble over is put right on the way."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type_unchecked
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk, ParsedChatCompletion

from appliance.model.calls import FinishReason
from appliance.model.usage import TokenUsage
from appliance.protocols import sse
from appliance.protocols.answers import ErrorReported, MalformedAnswer
from appliance.protocols.openai_answers import DONE, Completion, StreamReader
from tests.protocols.calls import calls_of, end_of
from tests.protocols.cuts import one_by_one

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ESTIMATE = TokenUsage(input=7, output=4, estimated=True)
ENVELOPE = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def event(choices: object, **fields: Any) -> bytes:
    return b"data: " + json.dumps({**ENVELOPE, "choices": choices, **fields}).encode() + b"\n\n"


def delta(said: object = None, finish: object = None, *, index: int = 0, **fields: Any) -> bytes:
    return event([{"index": index, "delta": said or {}, "finish_reason": finish}], **fields)


def call_delta(*pieces: Mapping[str, Any]) -> bytes:
    return delta({"tool_calls": list(pieces)})


ROLE = delta({"role": "assistant", "content": ""})
WORD = delta({"content": "Hi"})
END = delta({}, "stop")
LAST = event([], usage=USAGE)


def read(events: Sequence[bytes], *, include_usage: bool = True) -> tuple[StreamReader, bytes]:
    """What is passed on of an answer that comes event by event."""
    reader = StreamReader()
    passed = b"".join(reader.relay(each, include_usage=include_usage) for each in events)
    if reader.finished:
        passed += reader.ending(reader.usage, include_usage=include_usage)
    return reader, passed


def chunks(passed: bytes) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in sse.payloads(passed)]


def choices(passed: bytes) -> list[dict[str, Any]]:
    return [choice for chunk in chunks(passed) for choice in chunk["choices"]]


def calls(passed: bytes) -> list[dict[str, Any]]:
    return [call for each in choices(passed) for call in each["delta"].get("tool_calls") or []]


def joined(passed: bytes) -> list[tuple[Any, ...]]:
    """The calls as the official clients join their pieces: by index, texts one after the other."""
    found: dict[int, dict[str, Any]] = {}
    for call in calls(passed):
        known = found.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
        known["id"] += call.get("id") or ""
        known["name"] += call["function"].get("name") or ""
        known["arguments"] += call["function"].get("arguments") or ""
    return [(i, each["id"], each["name"], each["arguments"]) for i, each in sorted(found.items())]


# -- An answer as it should be ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [ROLE, WORD, delta({"content": 'say "x"\n'}), WORD, END, LAST],
        [ROLE, delta({"reasoning_content": "Hm"}), delta({"reasoning_content": "."}), WORD, END],
        [
            delta({"role": "assistant", "content": None}),
            call_delta({"index": 0, "id": "a", "type": "function",
                        "function": {"name": "f", "arguments": ""}}),
            *(call_delta({"index": 0, "function": {"arguments": part}}) for part in '{"x":1}'),
            call_delta({"index": 1, "id": "b", "type": "custom", "custom": {"name": "g"}}),
            delta({}, "tool_calls"),
            LAST,
        ],
        [
            ROLE,
            delta({"role": "assistant", "content": ""}, index=1),
            WORD,
            delta({"content": "Ho"}, index=1),
            delta({}, "length"),
            delta({}, "content_filter", index=1),
        ],
        [delta({"role": "assistant", "content": None}), delta({"function_call": {"name": "f"}}),
         delta({}, "function_call")],
    ],
    ids=["text", "thoughts", "calls", "choices", "functions"],
)  # fmt: skip
def test_what_is_right_passes_byte_for_byte(events: list[bytes]) -> None:
    whole = b"".join(events)

    assert read([*events, DONE])[1] == whole
    assert read([whole + DONE])[1] == whole
    assert read(one_by_one(whole + DONE))[1] == whole


def test_padding_that_hides_the_length_of_a_text_is_no_text() -> None:
    events = [delta({"content": "x" * n}, obfuscation="y" * (9 - n)) for n in (1, 2, 3, 4)]

    reader, passed = read([ROLE, *events, END, DONE])

    assert passed == b"".join([ROLE, *events, END])
    assert reader.text_bytes == 10


# -- The end ---------------------------------------------------------------------------------------


def test_why_an_answer_ended_waits_until_it_is_complete_and_its_words_do_not() -> None:
    reader = StreamReader()
    passed = [reader.relay(each, include_usage=True) for each in (ROLE, WORD, END, LAST, WORD)]

    assert passed == [ROLE, WORD, b"", b"", WORD]
    assert reader.relay(DONE, include_usage=True) == b""
    assert reader.ending(reader.usage, include_usage=True) == END + LAST


def test_an_error_after_the_end_leaves_no_sign_of_a_whole_answer() -> None:
    error = b'data: {"error":{"message":"no"}}\n\n'

    reader, passed = read([ROLE, WORD, END + LAST + error])

    assert isinstance(reader.failure, ErrorReported)
    assert passed == ROLE + WORD


def test_the_last_words_are_not_held_back_with_the_end_beside_them() -> None:
    both = delta({"content": "Ho"}, "length", usage=USAGE)
    reader, passed = read([ROLE, WORD, both])

    assert [each["delta"].get("content") for each in choices(passed)] == ["", "Hi", "Ho"]
    assert not any(each["finish_reason"] for each in choices(passed))
    rest = chunks(read([ROLE, WORD, both, DONE])[1])[3:]
    assert [each["choices"][0]["finish_reason"] for each in rest] == ["length"]
    assert (rest[0]["usage"], rest[0]["choices"][0]["delta"]) == (USAGE, {})
    assert reader.usage == TokenUsage(input=3, output=2)


def test_a_body_that_ends_after_the_reason_is_complete_and_any_other_is_not() -> None:
    for events, is_complete in (
        ([ROLE, WORD, END], True),
        ([ROLE, WORD, END, LAST, b"\n"], True),
        ([ROLE, WORD], False),
        ([ROLE, WORD, END, b"data: {"], False),
        ([ROLE, delta({"content": "Ho"}, index=1), END], False),
        ([], False),
    ):
        assert read(events)[0].last_word == (DONE if is_complete else b""), events

    reader = StreamReader()
    reader.deltas(ROLE + WORD + END)
    assert end_of(list(reader.deltas(reader.last_word))).reason is FinishReason.STOP


def test_an_end_without_a_reason_is_given_one_for_each_choice_before_the_usage() -> None:
    events = [ROLE, delta({"content": "Ho"}, index=1), delta({}, "length", index=1), LAST, DONE]

    passed = chunks(read(events)[1])

    assert [each["choices"] and each["choices"][0]["finish_reason"] for each in passed] == [
        None, None, "length", "stop", [],
    ]  # fmt: skip
    assert passed[3] == {
        **ENVELOPE,
        "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}],
    }
    assert passed[4]["usage"] == USAGE


def test_a_call_without_a_reason_ends_with_tool_calls() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}

    assert choices(read([ROLE, call_delta(call), DONE])[1])[-1]["finish_reason"] == "tool_calls"


def test_an_answer_of_usage_alone_is_an_empty_one() -> None:
    said = choices(read([LAST, DONE])[1])

    assert [(each["delta"]["role"], each["finish_reason"]) for each in said] == [
        ("assistant", "stop")
    ]


def test_an_end_that_never_ends_is_a_failure() -> None:
    reader, _ = read([ROLE, *[delta({}, "stop", padding="x" * 1_000_000)] * 6])

    assert isinstance(reader.failure, MalformedAnswer)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("tool_use", "tool_calls"),
        ("safety", "content_filter"),
        ("something new", "stop"),
        ("", "stop"),
        (7, "stop"),
        ("function_call", "function_call"),
    ],
)
def test_the_reason_is_told_in_words_of_the_api(theirs: object, ours: str) -> None:
    assert choices(read([ROLE, WORD, delta({}, theirs), DONE])[1])[-1]["finish_reason"] == ours
    assert json.loads(whole(finish_reason=theirs))["choices"][0]["finish_reason"] == ours


@pytest.mark.parametrize("word", ["error", "abort"])
def test_an_answer_that_the_provider_gave_up_is_none(word: str) -> None:
    for reader in (StreamReader(), StreamReader()):
        reader.relay(ROLE + delta({}, word) + DONE, include_usage=False)
        assert isinstance(reader.failure, ErrorReported)
        assert not reader.finished
    reader = StreamReader()
    reader.deltas(ROLE + delta({}, word) + DONE)
    assert isinstance(reader.failure, ErrorReported)
    assert not reader.finished
    with pytest.raises(ErrorReported):
        whole(finish_reason=word)


# -- Usage -----------------------------------------------------------------------------------------


def test_a_provider_that_tells_no_usage_has_it_estimated_for_those_who_asked() -> None:
    reader = StreamReader()
    assert reader.relay(ROLE + WORD + END + DONE, include_usage=True) == ROLE + WORD

    assert reader.ending(ESTIMATE, include_usage=False) == END
    *_, last = chunks(reader.ending(ESTIMATE, include_usage=True))
    assert (last["id"], last["model"], last["choices"]) == ("c", "m", [])
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (7, 4)


@pytest.mark.parametrize(
    "events",
    [[END, event([], usage={**USAGE, "completion_tokens": 0})], [delta({}, "stop", usage=USAGE)]],
    ids=["of its own", "with the end"],
)
def test_an_estimate_is_told_in_place_of_figures_that_cannot_be(events: list[bytes]) -> None:
    reader = StreamReader()
    reader.relay(b"".join([ROLE, WORD, *events, DONE]), include_usage=True)

    end, last = chunks(reader.ending(ESTIMATE, include_usage=True))

    assert end["choices"][0]["finish_reason"] == "stop"
    assert not end.get("usage")
    assert last["usage"]["total_tokens"] == 11


# -- Deltas ----------------------------------------------------------------------------------------


def test_the_role_is_told_once_and_first() -> None:
    for first in (
        {"content": "Hi"},
        {"role": None, "content": "Hi"},
        {"role": "", "content": "Hi"},
    ):
        said = choices(read([delta(first), delta({"role": "assistant", "content": "Ho"}), DONE])[1])

        assert [each["delta"].get("role") for each in said] == ["assistant", None, None]
        assert [each["delta"].get("content") for each in said] == ["Hi", "Ho", None]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([{"delta": {"content": "Hi"}}], "Hi"),
        ([{"index": None, "delta": {"content": "Hi"}}], "Hi"),
        ([{"index": 0.0, "delta": {"content": "Hi"}}], "Hi"),
        ([{"index": 0, "message": {"content": "Hi"}}], "Hi"),
        ([None, {"index": 0, "delta": {"content": "Hi"}}], "Hi"),
        ([{"index": 0, "delta": None}], None),
        ([{"index": 0}], None),
    ],
)
def test_a_choice_has_a_number_and_a_delta(given: list[Any], text: str | None) -> None:
    first = choices(read([event(given), DONE])[1])[0]

    assert type(first["index"]) is int
    assert first["delta"].get("content") == text
    assert first["delta"]["role"] == "assistant"


def test_chunks_without_a_list_of_choices_are_given_an_empty_one() -> None:
    assert chunks(read([event(None)])[1])[0]["choices"] == []
    assert read([event(None)], include_usage=False)[1] == b""


def test_more_choices_than_the_api_makes_are_a_failure() -> None:
    reader, _ = read([event([{"index": i, "delta": {}} for i in range(200)])])

    assert isinstance(reader.failure, MalformedAnswer)


# -- Calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [call_delta({"function": {"name": "f", "arguments": {"x": 1}}},
                        {"function": {"name": "g", "arguments": None}})],
            [(0, "call_c_0", "f", '{"x":1}'), (1, "call_c_1", "g", "")],
        ),
        (
            [call_delta({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
                        {"index": 0, "id": "b", "function": {"name": "g", "arguments": "{"}}),
             call_delta({"index": 0, "function": {"arguments": "}"}})],
            [(0, "a", "f", "{}"), (1, "b", "g", "{}")],
        ),
        (
            [call_delta({"index": 1, "id": "a", "type": "function", "function": {"name": "f"}}),
             call_delta({"index": 1, "id": "a", "type": "function",
                         "function": {"name": "f", "arguments": "{}"}})],
            [(0, "a", "f", "{}")],
        ),
        (
            [call_delta({"index": 0, "id": "a", "type": "function", "function": {}}),
             call_delta({"index": 0, "function": {"name": "f", "arguments": "{}"}})],
            [(0, "a", "f", "{}")],
        ),
        (
            [call_delta({"index": 0, "id": "a", "function": {"name": [], "arguments": "{}"}}),
             call_delta({"index": 0, "function": {"name": "f"}})],
            [(0, "a", "f", "{}")],
        ),
    ],
    ids=["bare", "one number for all", "all said twice", "name later", "no name at first"],
)  # fmt: skip
def test_calls_are_numbered_and_named_once(
    events: list[bytes], expected: list[tuple[Any, ...]]
) -> None:
    passed = read([ROLE, *events, DONE])[1]

    assert joined(passed) == expected
    assert all(call["type"] == "function" for call in calls(passed) if call.get("id"))
    assert choices(passed)[-1]["finish_reason"] == "tool_calls"


def test_the_arguments_of_another_call_under_the_same_number_are_not_the_first_ones() -> None:
    """Pieces that look alike pass unread, until what they mean has changed."""
    more = call_delta({"index": 0, "function": {"arguments": "1"}})
    events = [
        call_delta({"index": 0, "id": name, "type": "function", "function": {"name": name}})
        + more * 3
        for name in "ab"
    ]

    assert joined(read([ROLE, *events, DONE])[1]) == [(0, "a", "a", "111"), (1, "b", "b", "111")]


def test_what_else_a_call_holds_passes() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"x": 1}}

    assert calls(read([ROLE, call_delta(call)])[1])[0]["extra_content"] == {"x": 1}


@pytest.mark.parametrize("nonsense", ["x", [5, None], {}])
def test_calls_that_are_none_are_left_out(nonsense: object) -> None:
    passed = read([ROLE, delta({"content": "Hi", "tool_calls": nonsense}), DONE])[1]

    assert not calls(passed)
    assert choices(passed)[1]["delta"]["content"] == "Hi"


# -- In one piece ----------------------------------------------------------------------------------


def whole(message: object = None, **fields: Any) -> bytes:
    message = {"role": "assistant", "content": "Hi"} if message is None else message
    choice = {"index": 0, "message": message, "finish_reason": "stop", **fields}
    answer = Completion(json.dumps({"id": "c", "choices": [choice], "usage": USAGE}).encode())
    return answer.relayed(answer.usage)


def test_a_whole_answer_is_put_right_in_the_same_way() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}, "extra_content": {"y": 2}}
    message = {"content": None, "tool_calls": [call, {"id": "b", "function": {"name": "g"}}]}

    answer = json.loads(whole(message, index=None, finish_reason=None))["choices"][0]

    assert (answer["index"], answer["finish_reason"]) == (0, "tool_calls")
    assert answer["message"]["role"] == "assistant"
    assert answer["message"]["tool_calls"] == [
        {
            "function": {"name": "f", "arguments": '{"x":1}'},
            "extra_content": {"y": 2},
            "id": "call_c_0",
            "type": "function",
        },
        {"id": "b", "function": {"name": "g", "arguments": ""}, "type": "function"},
    ]


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
PARTS = [THOUGHT, {"type": "text", "text": "a"}, {"type": "reference"}, {"text": "b"}, 5]


def test_an_answer_in_parts_is_one_text_and_what_was_thought() -> None:
    _, passed = read([ROLE, delta({"content": PARTS}), WORD, END, DONE])

    assert [choice["delta"] for choice in choices(passed)] == [
        {"role": "assistant", "content": ""},
        {"content": "ab", "reasoning_content": "Hm."},
        {"content": "Hi"},
        {},
    ]


def test_a_whole_answer_in_parts_is_one_text_too() -> None:
    message = {"role": "assistant", "content": PARTS, "reasoning_content": "Already."}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    told = json.loads(Completion(json.dumps(body).encode()).relayed(None))

    assert told["choices"][0]["message"] == {**message, "content": "ab"}


@pytest.mark.parametrize(
    "said",
    [
        {"function_call": {"name": "find", "arguments": '{"q":1}'}},
        {"tool_calls": [{"index": 0, "id": "c", "custom": {"name": "find", "input": '{"q":1}'}}]},
    ],
)
def test_calls_of_every_kind_count_as_said(said: dict[str, Any]) -> None:
    reader, _ = read([ROLE, delta(said), delta({}, "stop"), DONE])

    assert reader.text_bytes == len("find") + len('{"q":1}')


def test_a_whole_answer_without_usage_tells_the_estimate() -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    answer = Completion(json.dumps({"id": "c", "choices": [choice]}).encode())

    told = json.loads(answer.relayed(ESTIMATE))

    assert told["choices"] == [choice]
    assert told["usage"]["total_tokens"] == 11


def test_a_call_of_the_same_number_is_another_one_for_readers_too() -> None:
    pair = [{"index": 0, "id": n, "function": {"name": n, "arguments": "{}"}} for n in "ab"]
    reader = StreamReader()

    deltas = [
        *reader.deltas(call_delta(*pair)),
        *reader.deltas(call_delta({"index": 0, "id": "a"})),
    ]

    assert calls_of(deltas) == [("a", "a", "{}"), ("b", "b", "{}")]


def test_half_an_emoji_does_not_end_the_answer() -> None:
    half = delta({"content": "\ud83d"})
    assert b"\\ud83d" in half

    reader, passed = read([ROLE, half, WORD, END, DONE])

    assert reader.failure is None
    assert passed == ROLE + half + WORD + END


# -- The official client ---------------------------------------------------------------------------


def as_the_client_reads(passed: bytes) -> ParsedChatCompletion[None]:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks(passed):
        state.handle_chunk(construct_type_unchecked(value=chunk, type_=ChatCompletionChunk))
    return state.get_final_completion()


def test_the_official_client_survives_the_worst() -> None:
    worst = [
        event(None),
        event([{"delta": {"content": "Hi", "role": None}}]),
        delta({"role": "assistant", "content": " there"}),
        call_delta({"function": {"name": "f", "arguments": {"x": 1}}}),
        call_delta({"index": 0, "id": "b", "function": {"name": "g", "arguments": '{"y"'}}),
        call_delta({"index": 0, "id": "b", "function": {"name": "g", "arguments": ":2}"}}),
        delta(None, "tool_use"),
    ]
    reader = StreamReader()
    passed = b"".join(reader.relay(each, include_usage=True) for each in [*worst, DONE])

    answer = as_the_client_reads(passed + reader.ending(ESTIMATE, include_usage=True))

    assert answer.usage is not None
    assert answer.usage.total_tokens == 11
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hi there")
    assert choice.finish_reason == "tool_calls"
    functions = [call.function for call in choice.message.tool_calls or []]
    assert [(each.name, each.arguments) for each in functions] == [
        ("f", '{"x":1}'),
        ("g", '{"y":2}'),
    ]


ANYTHING: st.SearchStrategy[Any] = st.sampled_from(
    [None, 5, -1, 0.5, True, "", "x", [], [None], [5], {}, {"x": {}}]
)


def maybe(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


CALLS = maybe(
    index=ANYTHING | st.integers(0, 2),
    id=ANYTHING | st.sampled_from("ab"),
    type=ANYTHING | st.just("function"),
    function=ANYTHING | maybe(name=ANYTHING | st.sampled_from("fg"), arguments=ANYTHING),
)
DELTAS = maybe(
    role=ANYTHING | st.just("assistant"),
    content=st.none() | st.text(max_size=3),
    tool_calls=ANYTHING | st.lists(CALLS, max_size=3),
)
CHOICES = maybe(
    index=ANYTHING | st.integers(0, 2),
    delta=ANYTHING | DELTAS,
    finish_reason=ANYTHING | st.sampled_from(["stop", "end_turn"]),
)


@given(st.lists(ANYTHING | st.lists(ANYTHING | CHOICES, max_size=1), min_size=1, max_size=6))
def test_whatever_comes_is_a_failure_or_what_the_official_client_reads(given: list[Any]) -> None:
    events = [event(choices) for choices in given]

    reader, passed = read([*events, DONE])

    if reader.failure is not None:
        assert not reader.finished
        assert not any(each["finish_reason"] for each in choices(passed) if "finish_reason" in each)
        return
    for index in {each["index"] for each in choices(passed)}:
        mine = [each for each in choices(passed) if each["index"] == index]
        assert [bool(each["delta"].get("role")) for each in mine] == [True] + [False] * (
            len(mine) - 1
        )
        assert any(each.get("finish_reason") for each in mine)
    for call in calls(passed):
        assert type(call["index"]) is int
        assert isinstance(call["function"].get("arguments"), str | None)
    if {each["index"] for each in choices(passed)} == {0}:  # it asked for one choice
        as_the_client_reads(passed)
