"""Members that are objects or lists, in the full form that a response shows."""

import pytest

from appliance.protocols.responses import options


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, {"format": {"type": "text"}}),
        ({"format": {"type": "json_object"}}, {"format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}},
            {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "description": None,
                    "schema": {"a": 1},
                    "strict": False,
                }
            },
        ),
        ({"verbosity": "low"}, {"format": {"type": "text"}, "verbosity": "low"}),
    ],
)
def test_the_form_of_the_text_is_whole(raw: object, expected: object) -> None:
    assert options.read_text(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, None),
        ({}, {"effort": None, "summary": None}),
        ({"effort": "none"}, {"effort": "none", "summary": None}),
        ({"generate_summary": "auto"}, {"effort": None, "summary": "auto"}),
        ({"mode": "pro"}, {"effort": None, "summary": None, "mode": "pro"}),
    ],
)
def test_reasoning_has_its_two_keys(raw: object, expected: object) -> None:
    assert options.read_reasoning(raw) == expected


def test_the_rest_is_read_to_plain_values() -> None:
    assert options.read_include(["reasoning.encrypted_content"]) == {"reasoning.encrypted_content"}
    assert options.read_metadata({"a": "b"}) == {"a": "b"}
    assert options.read_stream_options({"include_obfuscation": True, "include_usage": True})
    assert not options.read_stream_options(None)
    assert options.read_conversation({"id": "conv_1"}) == "conv_1"
    assert options.read_conversation("conv_1") == "conv_1"
    assert options.read_compact_threshold([{"type": "compaction", "compact_threshold": 9}]) == 9
    assert options.read_compact_threshold([{"type": "compaction"}]) is None
