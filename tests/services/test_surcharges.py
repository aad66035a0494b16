"""What costs more than its tokens does not go out with the gateway's key."""

import json
from typing import Any

import pytest

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest
from appliance.services.surcharges import require_plain


def check(dialect: Dialect, **members: Any) -> None:
    require_plain(dialect, {name: json.dumps(value).encode() for name, value in members.items()})


@pytest.mark.parametrize(
    ("dialect", "members"),
    [
        (Dialect.OPENAI, {"service_tier": "priority"}),
        (Dialect.OPENAI, {"web_search_options": {}}),
        (Dialect.RESPONSES, {"service_tier": "fast"}),
        (Dialect.RESPONSES, {"prompt": {"id": "pmpt_1"}}),
        (Dialect.ANTHROPIC, {"speed": "fast"}),
        (Dialect.ANTHROPIC, {"tools": [{"name": "a"}, {"type": "web_search_20250305"}]}),
        (Dialect.ANTHROPIC, {"mcp_servers": [{"type": "url", "url": "https://example.com"}]}),
    ],
)
def test_it_is_refused_by_name(dialect: Dialect, members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(dialect, **members)

    assert refused.value.fields[0].field == next(iter(members))


@pytest.mark.parametrize(
    ("dialect", "members"),
    [
        (Dialect.OPENAI, {"service_tier": "auto", "web_search_options": None}),
        (Dialect.OPENAI, {"service_tier": 7}),
        (Dialect.RESPONSES, {"service_tier": "flex", "tools": [{"type": "function"}]}),
        (Dialect.ANTHROPIC, {"tools": [{"name": "a"}, {"type": "custom"}, {"type": "bash_2025"}]}),
        (Dialect.ANTHROPIC, {"tools": "none", "mcp_servers": [], "service_tier": "standard_only"}),
        (Dialect.OLLAMA, {"speed": "fast"}),
    ],
)
def test_the_rest_is_none_of_its_business(dialect: Dialect, members: dict[str, Any]) -> None:
    check(dialect, **members)


def test_an_escaped_name_hides_nothing() -> None:
    tools = rb'[{"type": "web_\u0073earch_20250305", "name": "web_search"}]'

    with pytest.raises(InvalidRequest):
        require_plain(Dialect.ANTHROPIC, {"tools": tools})
