"""What search services are asked and what is read of their answers."""

from contextlib import suppress

import pytest

from appliance.protocols.search_answers import DIALECTS, SearchQuery

QUERY = SearchQuery(text="a b", count=3, country="de", freshness="month")


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_key_is_never_part_of_an_address(name: str) -> None:
    request = DIALECTS[name].ask(QUERY, "the-key")

    assert "the-key" not in request.path
    assert b"the-key" not in request.body
    assert any("the-key" in value for value in request.headers.values())
    assert not any("None" in value for value in DIALECTS[name].ask(QUERY, None).headers.values())


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"results": [1]}', b'{"web": {"results": 1}}']
)
def test_nonsense_is_a_value_error_or_nothing(name: str, body: bytes) -> None:
    with suppress(ValueError):
        assert list(DIALECTS[name].read(body)) == []


def test_titles_and_snippets_are_bounded_and_on_one_line() -> None:
    body = b'{"results": [{"url": "https://x.example", "title": "a\\n b", "content": "%s"}]}'
    (result,) = DIALECTS["searxng"].read(body % (b"x" * 5000))

    assert result.title == "a b"
    assert len(result.snippet) == 1000
