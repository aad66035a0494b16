"""A request written as a form."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import InvalidRequest
from appliance.protocols.responses.forms import form_members
from appliance.protocols.responses.request import ResponsesRequest
from tests.protocols.prompting import field_of


def members(form: bytes) -> dict[str, object]:
    found = form_members(form, limit_bytes=10_000)
    return {name: msgspec.json.decode(value) for name, value in found.items()}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (b"model=m&input=hello+there", {"model": "m", "input": "hello there"}),
        (b"model=7&input=%5B7", {"model": "7", "input": "[7"}),
        (
            b"input=%5B%7B%22role%22%3A%22user%22%7D%5D",
            {"input": [{"role": "user"}]},
        ),
        (b"stream=true&temperature=0.5", {"stream": True, "temperature": 0.5}),
        (b"metadata[a]=7&metadata[b]=x", {"metadata": {"a": "7", "b": "x"}}),
        (
            b"include[]=a&include[]=b&reasoning[effort]=low",
            {"include": ["a", "b"], "reasoning": {"effort": "low"}},
        ),
        (b"tool_choice=auto&conversation=c", {"tool_choice": "auto", "conversation": "c"}),
        (b"instructions=", {"instructions": ""}),
    ],
)
def test_each_field_is_a_member(form: bytes, expected: dict[str, object]) -> None:
    assert members(form) == expected


@pytest.mark.parametrize(
    ("form", "field"),
    [
        (b"model=a&model=b", "model"),
        (b"stream=maybe", "stream"),
        (b"metadata[a]=1&metadata[a]=2", "metadata"),
        (b"include[]=1&include[a]=2", "include"),
        (b"include[a]=1&include[]=2", "include"),
        (b"model=%ff", ""),
        (b"model=\xff", ""),
        (b"&".join(b"a=1" for _ in range(1001)), ""),
    ],
)
def test_what_is_ambiguous_is_refused(form: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        form_members(form, limit_bytes=10_000)

    assert field_of(caught.value) == field


def test_a_form_is_read_as_the_same_request() -> None:
    request = ResponsesRequest.parse_form(
        b"model=m&input=hi&stream=true&max_output_tokens=20", limit_bytes=1000
    )

    assert (request.model, request.stream, request.output_limit) == ("m", True, 20)


@given(st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(form: bytes) -> None:
    try:
        ResponsesRequest.of(form_members(form, limit_bytes=1000))
    except InvalidRequest as exc:
        assert exc.fields  # noqa: PT017 - most need not fail
