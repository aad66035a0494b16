"""``GET /v1/models/{model}`` of a running gateway, as its clients write it."""

import pytest
import trio

from tests.gateway.conftest import Gateway, Tenant, said

ANTHROPIC = {"anthropic-version": "2023-06-01"}


@pytest.fixture
async def equipped(gateway: Gateway, acme: Tenant) -> Gateway:
    """With the provider ``embedded``, whose model is never loaded here."""
    provider = "providers:\n  embedded: {dialect: embedded}\n"
    gateway.config.write_text(gateway.config.read_text().replace("providers:\n", provider, 1))
    with trio.fail_after(60):
        while True:
            answer = await gateway.http.get("/v1/models", headers=gateway.headers(acme.token))
            if "embedded/smollm2-135m" in {each["id"] for each in answer.json()["data"]}:
                return gateway  # the config has been read again
            await trio.sleep(0.05)


async def test_the_built_in_model_is_found_by_its_names_only(
    equipped: Gateway, acme: Tenant
) -> None:
    headers = equipped.headers(acme.token)

    asked = await equipped.chat(acme, said("x", model="embedded/nobody"))

    assert asked.status_code == 404
    for prefix in ("", f"/t/{acme.id}"):
        for slash in ("/", "%2F"):
            path = f"{prefix}/v1/models/embedded{slash}"
            for name, status in (("smollm2-135m", 200), ("nobody", 404)):
                plain = await equipped.http.get(path + name, headers=headers)
                anthropic = await equipped.http.get(path + name, headers=headers | ANTHROPIC)

                assert (plain.status_code, anthropic.status_code) == (status, status), path + name
            assert plain.json()["error"]["code"] == asked.json()["error"]["code"]
            assert plain.json()["error"]["code"] == "model_not_found"
            assert anthropic.json()["error"]["type"] == "not_found_error"
