"""Thoughts of other providers in requests that go on as they came."""

import json
from typing import Any

import pytest

from appliance.model.calls import Dialect, ModelCall
from appliance.protocols.earlier_thoughts import without_foreign_thoughts
from appliance.protocols.responses import seals
from appliance.protocols.translation import translated
from tests.protocols.calls import call
from tests.protocols.prompting import body

HELLO = {"role": "user", "content": "Hi"}
SAID = {"type": "text", "text": "So."}
SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
UNSIGNED = {"type": "thinking", "thinking": "Hm.", "signature": ""}
HIDDEN = {"type": "redacted_thinking", "data": "EmwK"}
OURS = {"type": "redacted_thinking", "data": seals.seal_hidden("gAAA", Dialect.RESPONSES)}
RETURNED = {"type": "redacted_thinking", "data": seals.seal_hidden("EmwK", Dialect.ANTHROPIC)}


def of_anthropic(*messages: Any) -> ModelCall:
    asked = body(messages=[HELLO, *messages], max_tokens=5)
    return ModelCall(model="claude", body=asked, stream=True, dialect=Dialect.ANTHROPIC)


def sent(asked: ModelCall) -> list[Any]:
    others: list[Any]
    _hello, *others = json.loads(translated(asked, asked.dialect).body["messages"])
    return others


def answer(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks), **more}


@pytest.mark.parametrize(
    ("blocks", "left"),
    [
        ([UNSIGNED, SAID], [SAID]),
        ([OURS, SAID], [SAID]),
        ([RETURNED, SAID], [HIDDEN, SAID]),
        ([SIGNED, UNSIGNED, HIDDEN, SAID], [SIGNED, HIDDEN, SAID]),
        (
            [{"type": "tool_use", "id": "c", "name": "f", "input": UNSIGNED}],
            [{"type": "tool_use", "id": "c", "name": "f", "input": UNSIGNED}],
        ),
    ],
)
def test_anthropic_gets_only_what_anthropic_sealed(blocks: list[Any], left: list[Any]) -> None:
    assert sent(of_anthropic(answer(*blocks))) == [answer(*left)]


def test_a_message_that_was_only_thought_is_left_out() -> None:
    assert sent(of_anthropic(answer(UNSIGNED), HELLO)) == [HELLO]


@pytest.mark.parametrize(
    "messages",
    [
        [answer(SIGNED, SAID)],
        [answer(SAID)],
        [{"role": "assistant", "content": json.dumps(UNSIGNED)}],
    ],
)
def test_a_request_without_them_is_not_touched(messages: list[Any]) -> None:
    asked = of_anthropic(*messages)

    assert without_foreign_thoughts(asked) is asked


@pytest.mark.parametrize(
    "messages",
    [
        b'{"type":"thinking","signature":""}',
        b'[5,{"type":"thinking","signature":""}]',
        b'[{"signature":""},[{"type":"thinking","signature":""}]]',
        b'[{"content":{"type":"thinking","signature":""}}]',
        b'[{"content":[5,{"signature":""},{"type":"thinking","x":{"signature":""}}]}]',
    ],
)
def test_what_is_no_list_of_messages_is_left_to_the_provider(messages: bytes) -> None:
    asked = ModelCall(
        model="claude", body={"messages": messages}, stream=True, dialect=Dialect.ANTHROPIC
    )

    assert translated(asked, Dialect.ANTHROPIC).body["messages"] == messages


def thinking(*blocks: Any, model: str = "gpt-5") -> Any:
    messages = [
        HELLO,
        {
            "role": "assistant",
            "content": "So.",
            "reasoning_content": "Hm.",
            "thinking_blocks": list(blocks),
        },
    ]
    (message,) = sent(call(model=model, messages=messages))
    assert (message["content"], message["reasoning_content"]) == ("So.", "Hm.")
    return message.get("thinking_blocks")


def test_openai_gets_no_seals_of_others() -> None:
    assert thinking(SIGNED, HIDDEN, OURS) is None
    assert thinking() is None


def test_who_relays_claude_gets_back_what_anthropic_signed() -> None:
    given = (SIGNED, UNSIGNED, HIDDEN, OURS, 5)

    assert thinking(*given, model="anthropic/Claude-sonnet-4-5") == [SIGNED, HIDDEN]
    assert thinking(OURS, model="claude") is None


def test_text_about_thoughts_is_only_text() -> None:
    asked = call(messages=[{"role": "user", "content": '"thinking_blocks"'}])

    assert translated(asked, Dialect.OPENAI) is asked
