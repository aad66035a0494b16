"""Transcripts: written, read back, and read from files that others wrote or broke."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.protocols import transcripts
from appliance.protocols.transcripts import (
    LONGEST_LINE,
    Entry,
    Header,
    Transcript,
    decode_transcript,
    encode,
    text_of,
)

HEADER = (
    b'{"type":"session","version":3,"id":"s-1","timestamp":"2026-11-22T10:00:00.000Z","cwd":"/w"}'
)
WHEN = "2026-11-22T10:00:01.000Z"


def line(kind: str, entry_id: str | None, parent: str | None = "", **more: Any) -> bytes:
    members: dict[str, Any] = {"type": kind, "timestamp": WHEN}
    if entry_id is not None:
        members["id"] = entry_id
    if parent != "":
        members["parentId"] = parent
    if kind == "message" and "message" not in more:
        more["message"] = {"role": "user", "content": entry_id or "?"}
    return json.dumps(members | more).encode()


def read(*lines: bytes) -> Transcript:
    return decode_transcript([HEADER, *lines])


def branch(*lines: bytes) -> list[str]:
    return [entry.id for entry in read(*lines).branch()]


def refusal(*lines: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_transcript(lines)
    return caught.value.detail


@pytest.mark.parametrize(
    "content",
    [
        "hello",
        [],
        None,
        [{"type": "text", "text": "hello"}],
        [
            {"type": "thinking", "thinking": "hm", "thinkingSignature": "x"},
            {"type": "text", "text": "a"},
            {"type": "toolCall", "id": "c1", "name": "read", "arguments": {"path": "x"}},
            {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            {"type": "of-next-year", "anything": [1]},
        ],
    ],
)
def test_messages_of_every_form_are_read(content: object) -> None:
    message = {"role": "assistant", "content": content, "timestamp": 1_764_000_000_000}
    entry = read(line("message", "a", None, message=message)).entries[0]

    assert entry.message == message
    assert (entry.type, entry.id, entry.parent_id, entry.timestamp) == ("message", "a", None, WHEN)


def test_the_header_is_read_with_whatever_else_it_says() -> None:
    first = HEADER[:-1] + b',"parentSession":"s-0"}'

    assert decode_transcript([first]) == Transcript(
        Header("s-1", "2026-11-22T10:00:00.000Z", "/w", 3, {"parentSession": "s-0"}), ()
    )
    assert decode_transcript([b'{"type":"session","id":"s"}']).header == Header("s", version=None)


def test_kinds_that_we_do_not_know_keep_their_content() -> None:
    entry = read(line("of-next-year", "a", None, deep={"x": [1, {"y": None}]})).entries[0]

    assert entry.type == "of-next-year"
    assert entry.content == {"deep": {"x": [1, {"y": None}]}}
    assert entry.message is None


def test_line_ends_and_empty_lines_are_no_matter() -> None:
    lines = [HEADER + b"\r\n", b"\n", line("message", "a") + b"\n", b"   "]

    assert [entry.id for entry in decode_transcript(lines).entries] == ["a"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "thinking", "text": "no"}, {"type": "text", "text": 7}, 3], ""),
        (None, ""),
    ],
)
def test_what_a_message_says_is_its_texts(content: object, text: str) -> None:
    assert text_of({"role": "user", "content": content}) == text


# The tree


def test_entries_one_after_the_other_are_one_branch() -> None:
    assert branch(line("message", "a", None), line("message", "b", "a")) == ["a", "b"]


def test_the_branch_of_the_last_entry_is_followed() -> None:
    lines = [
        line("message", "a", None),
        line("message", "b", "a"),
        line("message", "c", "b"),
        line("branch_summary", "d", "a", summary="b and c", fromId="c"),
        line("message", "e", "d"),
    ]
    assert branch(*lines) == ["a", "d", "e"]


def test_a_file_without_ids_is_read_line_after_line() -> None:
    assert branch(line("message", None), line("message", None)) == ["line-2", "line-3"]
    assert [
        entry.parent_id for entry in read(line("message", "a"), line("message", "b")).entries
    ] == [
        None,
        "a",
    ]


def test_an_unknown_kind_does_not_end_the_conversation() -> None:
    assert branch(line("message", "a", None), line("of-next-year", "b", "a")) == ["a"]


def test_an_unknown_kind_in_between_stays_in_between() -> None:
    lines = [
        line("message", "a", None),
        line("of-next-year", "b", "a"),
        line("message", "c", "b"),
    ]
    assert branch(*lines) == ["a", "b", "c"]


def test_what_was_put_aside_is_not_the_end() -> None:
    assert branch(line("message", "a", None), line("message", "b", "a", appendMode="side")) == ["a"]


def test_a_leaf_entry_moves_the_end_and_what_follows_it_goes_on_from_there() -> None:
    lines = [
        line("message", "a", None),
        line("message", "b", "a"),
        line("leaf", "l", "b", targetId="a"),
    ]
    assert branch(*lines) == ["a"]
    assert branch(*lines, line("message", "c", "l")) == ["a", "c"]
    assert branch(*lines[:2], line("leaf", "l", "b", targetId=None)) == []
    assert branch(*lines[:2], line("leaf", "l", "b", targetId="nowhere")) == ["a", "b"]
    assert branch(*lines[:2], line("leaf", "l", "b", targetId=[1])) == ["a", "b"]


def test_a_parent_that_is_not_there_is_the_end_so_far() -> None:
    assert branch(line("message", "a", None), line("message", "b", "gone")) == ["a", "b"]


def test_parents_in_a_circle_end() -> None:
    assert branch(line("message", "a", "b"), line("message", "b", "a")) == ["a", "b"]
    assert branch(line("message", "a", "a")) == ["a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["message", "leaf", "compaction", "odd"]),
            st.none() | st.integers(0, 9).map(str),
            st.none() | st.integers(0, 9).map(str),
        ),
        max_size=10,
    )
)
def test_whatever_the_parents_are_the_branch_is_a_path_of_the_file(
    kinds: list[tuple[str, str | None, str | None]],
) -> None:
    lines = [
        line(kind, str(place), parent, targetId=target)
        for place, (kind, parent, target) in enumerate(kinds)
    ]
    found = branch(*lines)

    assert found == sorted(set(found))


# Broken files


@pytest.mark.parametrize("cut", [1, 2, 10, -1])
def test_a_last_line_that_broke_off_is_left_out_and_told(cut: int) -> None:
    whole = line("message", "b", "a")
    found = read(line("message", "a", None), whole[:cut])

    assert found.truncated
    assert [entry.id for entry in found.entries] == ["a"]


def test_a_file_cut_anywhere_is_read_as_far_as_it_goes() -> None:
    data = b"\n".join([HEADER, line("message", "a", None), line("message", "ä", "a")])
    for place in range(len(HEADER), len(data)):
        found = decode_transcript(data[:place].split(b"\n"))
        assert [entry.id for entry in found.entries] == ["a", "ä"][: len(found.entries)]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "line 1: there is no session header"),
        ([b""], "line 1: there is no session header"),
        ([b'{"type":"sess'], "line 1: not JSON"),
        ([b"[]"], "line 1: no session header"),
        ([line("message", "a")], "line 1: no session header"),
        ([b'{"type":"session"}'], "line 1: id must have"),
        ([b'{"type":"session","id":7}'], "line 1: id must have"),
        ([b'{"type":"session","id":"s","cwd":7}'], "line 1: cwd must be a string"),
        ([b'{"type":"session","id":"s","version":"3"}'], "line 1: version must be an integer"),
        ([HEADER, b"{", line("message", "a")], "line 2: not JSON"),
        ([HEADER, b'"\xff"', b"", line("message", "a")], "line 2: byte 1 is not UTF-8"),
        ([HEADER, b'{"a":1,"a":2}', line("message", "a")], "line 2: a: the key appears twice"),
        ([HEADER, HEADER], "line 2: type must name"),
        ([HEADER, b"7"], "line 2: not a JSON object"),
        ([HEADER, b'{"id":"a"}'], "line 2: type must name"),
        ([HEADER, line("custom", "")], "line 2: id must have"),
        ([HEADER, line("custom", "x" * 257)], "line 2: id must have"),
        ([HEADER, line("custom", "a", 7)], "line 2: parentId must be"),  # type: ignore[arg-type]  # the point
        ([HEADER, line("custom", "a", timestamp=7)], "line 2: timestamp must be a string"),
        ([HEADER, line("custom", "a"), line("custom", "a")], "line 3: the id 'a' appears twice"),
        ([HEADER, line("message", "a", message=None)], "line 2: message must be an object"),
        ([HEADER, line("message", "a", message={"content": ""})], "line 2: message must be"),
        (
            [HEADER, line("message", "a", message={"role": "user", "content": 7})],
            "line 2: content must be",
        ),
        (
            [HEADER, line("message", "a", message={"role": "user", "content": [{"text": "x"}]})],
            "line 2: content must be",
        ),
        ([HEADER, b" " * (LONGEST_LINE + 1)], "line 2: longer than 4194304 bytes"),
        ([HEADER, b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", HEADER], "line 2: nested deeper"),
    ],
)
def test_any_other_line_that_cannot_be_used_is_named(lines: list[bytes], reason: str) -> None:
    assert refusal(*lines).startswith(reason)


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MOST_ENTRIES", 2)

    assert len(read(line("custom", "a"), line("custom", "b")).entries) == 2
    assert refusal(HEADER, *(line("custom", x) for x in "abc")).startswith("line 4: more than 2")


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\ude00 cut", "\ufffd cut"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\N{GRINNING FACE}"),
        (rb"\uD83Dx", "\ufffdx"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\u00e9\ud83d", "é\ufffd"),
    ],
)
def test_half_of_a_pair_as_javascript_leaves_it_is_replaced(escaped: bytes, text: str) -> None:
    data = b'{"type":"message","id":"a","message":{"role":"user","content":"' + escaped + b'"}}'

    message = read(data).entries[0].message
    assert message is not None
    assert message["content"] == text


# Round trip


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
content = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
others = st.dictionaries(
    st.text().filter(
        lambda key: key not in {"type", "version", "id", "timestamp", "cwd", "parentId"}
    ),
    content,
    max_size=3,
)
headers = st.builds(Header, ids, st.text(), st.text(), st.none() | st.integers(1, 9), others)
parts = st.fixed_dictionaries({"type": st.text()}, optional={"text": st.text()})
messages = st.fixed_dictionaries(
    {"role": st.text(), "content": st.text() | st.lists(parts, max_size=3)}
).map(lambda message: {"message": message})
entries = st.one_of(
    st.builds(Entry, st.just("message"), ids, st.none() | ids, st.text(), messages),
    st.builds(
        Entry,
        st.sampled_from(["compaction", "custom", "leaf", "of-next-year"]),
        ids,
        st.none() | ids,
        st.text(),
        others,
    ),
)


@given(headers, st.lists(entries, max_size=6, unique_by=lambda entry: entry.id))
def test_what_is_written_is_read_back(header: Header, written: list[Entry]) -> None:
    lines = list(encode(header, written))

    assert all(each.count(b"\n") == 1 and each.endswith(b"\n") for each in lines)
    assert decode_transcript(lines) == Transcript(header, tuple(written))
    assert decode_transcript(b"".join(lines).split(b"\n")) == Transcript(header, tuple(written))


@given(st.lists(st.binary() | content.map(lambda value: json.dumps(value).encode()), max_size=4))
def test_whatever_comes_it_is_read_or_refused(lines: list[bytes]) -> None:
    for found in ([*lines], [HEADER, *lines]):
        try:
            decode_transcript(found).branch()
        except InvalidRequest as exc:
            detail = exc.detail
            assert detail.startswith("line ")


def test_a_written_transcript_reads_as_the_original_writes_it() -> None:
    header = Header("s-1", "2026-11-22T10:00:00.000Z", "/w")
    entry = Entry("message", "a", None, WHEN, {"message": {"role": "user", "content": "hi"}})

    assert list(encode(header, [entry])) == [
        HEADER + b"\n",
        b'{"type":"message","id":"a","parentId":null,"timestamp":"2026-11-22T10:00:01.000Z",'
        b'"message":{"role":"user","content":"hi"}}\n',
    ]


def test_content_cannot_pass_for_the_entry_itself() -> None:
    entry = Entry("custom", "a", None, WHEN, {"id": "b", "type": "message", "x": 1})

    written = json.loads(list(encode(Header("s"), [entry]))[1])
    assert (written["id"], written["type"], written["x"]) == ("a", "custom", 1)
