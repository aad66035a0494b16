"""Events that say one more piece of text are read without decoding what stands around it."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.text_frames import TextFrame, utf8_size

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def event(text: str, *, escaped: bool = False, **more: object) -> bytes:
    chunk = {"id": "c1", "choices": [{"index": 0, "delta": {"content": text}}], **more}
    return b"data: " + json.dumps(chunk, ensure_ascii=escaped).encode() + b"\n\n"


def taught(text: str = "Hello") -> TextFrame:
    frame = TextFrame("content")
    frame.learn(event(text), text)
    return frame


def test_nothing_fits_before_something_was_learnt() -> None:
    assert TextFrame("content").text(event("Hello")) is None


@given(first=TEXTS, then=TEXTS, escaped=st.booleans())
def test_what_differs_in_its_text_alone_is_read(first: str, then: str, *, escaped: bool) -> None:
    assert taught(first).text(event(then, escaped=escaped)) == then


@pytest.mark.parametrize(
    "other",
    [
        event("x", id="c2"),
        event("x", usage={"prompt_tokens": 1}),
        b": keep-alive\n\n",
        b"data: [DONE]\n\n",
        event("x")[:-3] + b"\n\n",
        # A second text hides in what looks like the first.
        event("x").replace(b'"x"', b'"x", "content": "y"'),
        event("x").replace(b'"x"', b"null"),
        event("x").replace(b'"x"', b'"\\ud800"'),
        event("x").replace(b'"x"', b'"\xff"'),
    ],
)
def test_what_differs_in_anything_else_is_left_to_be_decoded(other: bytes) -> None:
    assert taught().text(other) is None


@pytest.mark.parametrize(
    ("teacher", "text"),
    [
        (event("x", other={"content": "x"}), "x"),  # two places: which one counts?
        (event("x"), "y"),
        (b"data: {}\n\n", "x"),
    ],
)
def test_what_is_not_clear_teaches_nothing(teacher: bytes, text: str) -> None:
    frame = TextFrame("content")
    frame.learn(teacher, text)

    assert frame.text(teacher) is None


def test_a_stream_that_changes_its_frame_is_followed() -> None:
    frame = taught()
    frame.learn(event("new", id="c2"), "new")

    assert frame.text(event("more", id="c2")) == "more"


@given(TEXTS)
def test_sizes_are_those_of_utf8(text: str) -> None:
    assert utf8_size(text) == len(text.encode())


def padded(text: str, padding: str) -> bytes:
    return event(text, obfuscation=padding)


@given(first=TEXTS, then=TEXTS, padding=st.text("abcXYZ019", max_size=9))
def test_padding_is_no_part_of_the_frame(first: str, then: str, padding: str) -> None:
    frame = TextFrame("content")
    frame.learn(padded(first, "aQ3"), first)

    assert frame.text(padded(then, padding)) == then
    assert frame.texts(padded(then, padding) + padded(first, "z")) == [then, first]


@pytest.mark.parametrize(
    "other",
    [
        padded("x", "ab")[:-4] + b',"usage":{}}\n\n',
        padded("x", 'a"b'),
        event("x"),
        padded("x", "ab").replace(b'"x"', b'"x", "content": "y"'),
    ],
)
def test_what_stands_behind_the_padding_is_left_to_be_decoded(other: bytes) -> None:
    frame = TextFrame("content")
    frame.learn(padded("Hello", "aQ3"), "Hello")

    assert frame.text(other) is None
    assert frame.texts(padded("x", "ab") + other) is None


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_several_events_are_read_at_once(texts: list[str]) -> None:
    assert taught().texts(b"".join(map(event, texts))) == texts


@pytest.mark.parametrize(
    "block",
    [
        b"",
        event("x") + b"data: [DONE]\n\n",
        event("x") + event("y", id="c2"),
        event("x") + event("y")[:-2],
        event("x") + event("y").replace(b'"y"', b'"y", "z"'),
        event("x").replace(b'"x"', b'"x') + event("y").replace(b'"y"', b'y"'),
        event("x").replace(b'"x"', b"null"),
    ],
)
def test_several_events_are_read_apart_if_one_of_them_is_another(block: bytes) -> None:
    assert not taught().texts(block)


EVENTS = st.one_of(
    TEXTS.map(event),
    st.just(b": keep-alive\n\n"),
    TEXTS.map(lambda text: event(text, id="c2")),
    st.sampled_from([event("x").replace(b'"x"', it) for it in (b"null", b'"y", "z"', b"")]),
    TEXTS.map(lambda text: event(text).replace(b"\n", b"\r\n")),
)


@pytest.mark.parametrize("frame", [TextFrame("content"), taught()], ids=["untaught", "taught"])
@given(events=st.lists(EVENTS, max_size=9))
def test_however_many_come_at_once_each_is_read_as_if_it_came_alone(
    frame: TextFrame, events: list[bytes]
) -> None:
    alone = [text if (text := frame.text(each)) is not None else each for each in events]

    assert flat(frame.read(b"".join(events))) == alone


def test_more_than_are_read_at_once_are_read_whole() -> None:
    texts = [f"word {number} " * 9 for number in range(300)]

    assert flat(taught().read(b"".join(map(event, texts)))) == texts


def test_what_one_event_teaches_counts_for_those_behind_it() -> None:
    frame = TextFrame("content")
    read = []
    for found in frame.read(event("one") + event("two") + event("three")):
        read.append(found)
        if isinstance(found, bytes):
            frame.learn(found, "one")

    assert read == [event("one"), ["two", "three"]]


def flat(found: Iterable[list[str] | bytes]) -> list[str | bytes]:
    return [each for some in found for each in (some if isinstance(some, list) else [some])]
