"""Values of the wrong kind, and where they stand."""

from typing import Any

import pytest

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses import fields
from appliance.protocols.responses.fields import Members
from tests.protocols.prompting import field_of


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda value: fields.text(value, "at", longest=3), "abc"),
        (lambda value: fields.name(value, "at"), "get_weather-2"),
        (lambda value: fields.word(value, "at", ("a", "b")), "b"),
        (lambda value: fields.flag(value, "at"), False),
        (lambda value: fields.integer(value, "at", least=0, most=3), 3),
        (lambda value: fields.number(value, "at", least=0, most=2), 1.5),
        (lambda value: fields.mapping(value, "at"), {"a": 1}),
        (lambda value: fields.listed(value, "at", most=2), [1, 2]),
    ],
)
def test_what_is_right_is_returned_and_anything_else_refused(read: Any, value: object) -> None:
    assert read(value) == value
    wrong: list[object] = [None, "no such", 7.5, 77, True, [1, 2, 3], ["x"] * 9]
    for other in wrong:
        if type(other) is type(value) and type(value) is bool:
            continue
        with pytest.raises(InvalidRequest) as caught:
            read(other)
        assert field_of(caught.value) == "at"


def test_what_is_missing_is_none_and_what_is_no_json_refused() -> None:
    members = Members({"a": b"null", "b": b"7", "c": b"{"})

    assert (members.text("a"), members.text("z"), members.mapping("a")) == (None, None, None)
    assert members.flag("a", default=True)
    for name in ("b", "c"):
        with pytest.raises(InvalidRequest) as caught:
            members.text(name)
        assert field_of(caught.value) == name
