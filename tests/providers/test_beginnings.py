"""When an answer counts as begun: an error, a comment and silence are none."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols import anthropic_answers, ollama_chat, openai_answers
from appliance.protocols.answers import AnswerFailed, AnswerReader
from appliance.protocols.responses import answers as responses
from appliance.providers.beginnings import Beginning

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
ERROR = b'data: {"error":{"message":"overloaded","type":"overloaded_error"}}\n\n'
COMMENT = b": still thinking\n\n"
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":'
    b'{"input_tokens":3,"output_tokens":1}}}\n\n'
)
BAD_EVENT = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'
)
CREATED = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,'
    b'"response":{"id":"resp_1","status":"in_progress","output":[]}}\n\n'
)
SAID = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":4,"item_id":"msg_1","output_index":0,"content_index":0,"delta":"hi"}\n\n'
)

Reader = Callable[[], AnswerReader]
CHAT: Reader = openai_answers.StreamReader
MESSAGES: Reader = anthropic_answers.StreamReader
OLLAMA: Reader = ollama_chat.StreamReader
RESPONSES: Reader = responses.StreamReader


@pytest.mark.parametrize(
    ("reader", "pieces", "needs_token"),
    [
        (CHAT, (ROLE,), False),
        (CHAT, (COMMENT, TEXT), False),
        (CHAT, (ROLE.replace(b"\n\n", b"\r\n\r\n"),), False),
        (CHAT, (ROLE, COMMENT, TEXT), True),
        (CHAT, (b"data: [DONE]\n\n",), True),
        (MESSAGES, (START,), False),
        (RESPONSES, (CREATED, SAID), True),
        (OLLAMA, (b'{"message":{"content":"hi"},"done":false}\n',), True),
    ],
)
def test_it_has_begun_with_the_last_of_these_pieces_and_not_before(
    reader: Reader, pieces: tuple[bytes, ...], *, needs_token: bool
) -> None:
    beginning = Beginning(reader, needs_token=needs_token)

    assert [beginning.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert beginning.data == b"".join(pieces)


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        (CHAT, ERROR),
        (CHAT, COMMENT + ERROR),
        (MESSAGES, BAD_EVENT),
        (RESPONSES, CREATED + BAD_EVENT),
        (OLLAMA, b'{"error":"the server is overloaded"}\n'),
    ],
)
@pytest.mark.parametrize("needs_token", [False, True])
def test_an_answer_that_begins_with_an_error_has_not_begun(
    reader: Reader, data: bytes, *, needs_token: bool
) -> None:
    with pytest.raises(AnswerFailed):
        Beginning(reader, needs_token=needs_token).feed(data)


@given(cuts=st.sets(st.integers(1, len(COMMENT + ERROR) - 1)))
def test_an_error_is_seen_however_it_is_cut(cuts: set[int]) -> None:
    data = COMMENT + ERROR
    beginning = Beginning(CHAT, needs_token=False)
    *first, last = [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data)])]

    assert not any(map(beginning.feed, first))
    with pytest.raises(AnswerFailed):
        beginning.feed(last)


def test_what_says_nothing_for_a_megabyte_is_kept_no_longer() -> None:
    beginning = Beginning(CHAT, needs_token=True)

    assert not beginning.feed(COMMENT)
    assert beginning.feed(COMMENT * 70_000)
