"""What every client's tests know: where the gateway is, and what to ask it."""

import base64
import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import pytest

MODELS = tuple(filter(None, os.environ.get("GATEWAY_MODELS", "").split(",")))

# One red pixel.
PNG = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
    )
).decode()

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city's name"}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture
def url() -> str:
    return os.environ["GATEWAY_URL"]


@pytest.fixture
def token() -> str:
    return os.environ["GATEWAY_TOKEN"]


@pytest.fixture
def busy_token(url: str) -> str:
    """Of a tenant whose minute's one request is used up."""
    token = os.environ["GATEWAY_BUSY_TOKEN"]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    said = [{"role": "user", "content": "hello"}]
    body = json.dumps({"model": "chat/assistant", "messages": said}).encode()
    asked = urllib.request.Request(f"{url}/v1/chat/completions", body, headers)  # noqa: S310 - ours
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(asked, timeout=60).close()  # noqa: S310 - ours
    return token


@pytest.fixture
def poor_token() -> str:
    """Of a tenant whose month's tokens are used up."""
    return os.environ["GATEWAY_POOR_TOKEN"]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    """The stub's assistant, in each dialect that a provider may speak."""
    return str(request.param)


@pytest.fixture
def image() -> str:
    """A PNG in base64."""
    return PNG


@pytest.fixture
def weather() -> dict[str, Any]:
    """The JSON Schema of what get_weather takes."""
    return WEATHER
