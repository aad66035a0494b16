"""Paths of the model APIs that there is nothing at, as a client sees them."""

import pytest

from tests.gateway.conftest import Gateway, Tenant

VERSION = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize("prefix", ["", "/t/acme"])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/completions", {}),
        ("/v1/images/generations", {}),
        ("/v1/chat/nothing", {}),
        ("/v1/embeddings/nothing", VERSION),
        ("/v1/files", {}),
    ],
)
async def test_openais_clients_are_told_in_their_form(
    gateway: Gateway, acme: Tenant, prefix: str, path: str, headers: dict[str, str]
) -> None:
    for method in ("GET", "POST"):
        answer = await gateway.http.request(method, prefix + path, headers=headers)

        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
        assert answer.json()["error"]["code"] == "not_found"
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/messages/batches", {}), ("/v1/files", VERSION), ("/v1/complete", VERSION)],
)
async def test_anthropics_clients_are_told_in_theirs(
    gateway: Gateway, path: str, headers: dict[str, str]
) -> None:
    answer = await gateway.http.post(path, headers=headers, json={})

    assert answer.status_code == 404
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "not_found_error"
    assert answer.json()["request_id"] == answer.headers["request-id"]


async def test_everybody_else_gets_problem_details(gateway: Gateway) -> None:
    answer = await gateway.http.get("/v1/nothing-of-any-api")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
