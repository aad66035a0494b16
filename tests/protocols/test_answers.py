"""What all dialects share in reading an answer."""

import pytest

from appliance.model.usage import TokenUsage
from appliance.protocols.answers import MalformedAnswer, believed, count, decode_object

TOLD = TokenUsage(input=3, output=2, cache_read=1, reasoning=4)


@pytest.mark.parametrize(
    ("told", "prompt_bytes", "text_bytes", "expected"),
    [
        (TOLD, 100, 100, TOLD),
        (TOLD, None, 100, TOLD),
        (None, 9, 5, TokenUsage(input=3, output=2, estimated=True)),
        (None, 9, 0, TokenUsage(input=3, estimated=True)),
        (None, None, 5, None),
        (TokenUsage(), 9, 5, TokenUsage(input=3, output=2, estimated=True)),
        (TokenUsage(), None, 5, None),
        (TokenUsage(input=3), 9, 0, TokenUsage(input=3)),
        (TokenUsage(input=3), 9, 5, TokenUsage(input=3, output=2, estimated=True)),
        (TokenUsage(cache_read=3), 9, 5, TokenUsage(cache_read=3, output=2, estimated=True)),
        (TokenUsage(reasoning=4), 9, 5, TokenUsage(input=3, reasoning=4, estimated=True)),
        (TokenUsage(output=4), 0, 5, TokenUsage(output=4)),
        # Sound is of the figure that is replaced; searches were counted by themselves.
        (
            TokenUsage(input=3, input_audio=3),
            9,
            5,
            TokenUsage(input=3, input_audio=3, output=2, estimated=True),
        ),
        (
            TokenUsage(output=4, output_audio=4, web_searches=2),
            9,
            5,
            TokenUsage(input=20_003, output=4, output_audio=4, web_searches=2, estimated=True),
        ),
        (TokenUsage(web_searches=2), None, 5, TokenUsage(web_searches=2)),
    ],
)
def test_figures_that_cannot_be_are_estimated(
    told: TokenUsage | None, prompt_bytes: int | None, text_bytes: int, expected: TokenUsage | None
) -> None:
    assert believed(told, prompt_bytes=prompt_bytes, text_bytes=text_bytes) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (3.0, 3), (3.5, None), (-1, None), (True, None), ("3", None), (10**9 + 1, None)],
)
def test_what_is_no_count_counts_nothing(value: object, expected: int | None) -> None:
    assert count(value) == expected


def test_half_an_emoji_is_read_as_something() -> None:
    assert decode_object(b'{"a":"x\\ud83d","b":"\\ud83d\\ude00"}') == {"a": "x?", "b": "\U0001f600"}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'"\\u', b'{"a":"\\u12"}', b'{"a":NaN,"b":"\\ud83d"}', b"\xff\\u"]
)
def test_what_is_no_json_object_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        decode_object(text)
