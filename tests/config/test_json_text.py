"""Settings as people type them: JSON, or JSON5 where it is not JSON."""

import pytest

from appliance.config.json_text import LARGEST, parse_json_text
from appliance.model.errors import ConfigInvalid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ("{a: 'x', /* why */ b: [1,],} // done", {"a": "x", "b": [1]}),
        ("{a: 0x10, b: +1, c: .5}", {"a": 16, "b": 1, "c": 0.5}),
        ('{"__proto__": {"server": {}}}', {"__proto__": {"server": {}}}),
        ("7", 7),
    ],
)
def test_json_and_json5_are_read(text: str, value: object) -> None:
    assert parse_json_text(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{a: 1",
        "{a: 1} {b: 2}",
        "yes: [",
        "{a: NaN}",
        "{a: -Infinity}",
        '{"a": 1, "a": 2}',
        '{"a": "\\ud800"}',
        "{a: '\\ud800'}",
        "[" * 40 + "]" * 40,
        "[" * 40 + "1," + "]" * 40,
        "[" * 100_000,
        "{a: 0x" + "f" * 5_000 + "}",
        "{a: " + "9" * 5_000 + ",}",
        "[" + "1," * 60_000 + "]",
        '{"a": "' + "x" * LARGEST + '"}',
    ],
)
def test_what_no_config_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_json_text(text)

    assert len(str(caught.value)) < 400


def test_a_refusal_does_not_repeat_what_was_read() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse_json_text("{key: 'sk-live-very-secret', other: }")

    assert "very-secret" not in str(caught.value)
