import json

import pytest

from appliance.protocols import asciicast
from appliance.protocols.asciicast import Code, Event, Header

HEADER = Header(
    columns=80,
    rows=24,
    timestamp=1_795_262_400,
    title="bash",
    program="/bin/bash",
    own={"agent": "main"},
)


def test_a_recording_is_written_as_players_expect() -> None:
    lines = [
        asciicast.encode_header(HEADER),
        asciicast.encode_event(0.25, Code.OUTPUT, "hé\x1b[1m\r\n"),
        asciicast.encode_size(1, 100, 40),
        asciicast.encode_event(1.5, Code.MARKER, "support: ann joined"),
        asciicast.encode_end(2, "exit"),
    ]

    assert b"".join(lines).decode() == (
        '{"version":2,"width":80,"height":24,"timestamp":1795262400,'
        '"env":{"SHELL":"/bin/bash","TERM":"xterm-256color"},"title":"bash",'
        '"openclawmu":{"agent":"main"}}\n'
        '[0.250000,"o","hé\\u001b[1m\\r\\n"]\n'
        '[1.000000,"r","100x40"]\n'
        '[1.500000,"m","support: ann joined"]\n'
        '[2.000000,"m","end: exit"]\n'
    )
    assert all(json.loads(line) for line in lines)


def test_what_was_written_is_read() -> None:
    assert asciicast.read_header(asciicast.encode_header(HEADER)) == HEADER
    line = asciicast.encode_event(0.25, Code.OUTPUT, 'a"\\\n\x00')
    assert asciicast.read_event(line) == Event(0.25, "o", 'a"\\\n\x00')
    assert asciicast.end_reason(asciicast.read_event(asciicast.encode_end(3, "idle"))) == "idle"


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b'{"version":1,"width":1,"height":1}', b'{"version":2}', b"\xff"]
)
def test_what_is_no_header_is_none(line: bytes) -> None:
    assert asciicast.read_header(line) is None


@pytest.mark.parametrize("line", [b"", b"{}", b'[1,"o"]', b'[1,"o","x', b'["1","o","x"]', b"\xff"])
def test_what_is_no_event_is_none(line: bytes) -> None:
    assert asciicast.read_event(line) is None


@pytest.mark.parametrize(
    "event", [None, Event(1, "o", "end: exit"), Event(1, "m", "support: ann left")]
)
def test_without_its_last_line_a_recording_was_cut_off(event: Event | None) -> None:
    assert asciicast.end_reason(event) is None
