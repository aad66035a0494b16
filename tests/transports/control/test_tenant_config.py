import pytest

from appliance.model.tokens import Scope
from tests.transports.control.bench import Bench

PATH = "/v1/tenants/acme/config"


async def test_a_change_that_names_the_version_it_read_is_taken(bench: Bench) -> None:
    token = bench.tenants.add("acme")
    async with bench.client(token) as client:
        read = await client.get(PATH)
        headers = {"if-match": read.headers["etag"]}
        written = await client.put(PATH, json={"a": 1}, headers=headers)
        late = await client.put(PATH, json={"b": 1}, headers=headers)

    assert read.headers["etag"] == f'"{read.json()["etag"]}"'
    assert written.status_code == 200
    assert written.headers["etag"] != read.headers["etag"]
    assert late.status_code == 412
    assert late.json()["code"] == "precondition-failed"
    assert bench.tenants.overlays["acme"] == {"a": 1}


@pytest.mark.parametrize("header", [None, "*"])
async def test_a_version_need_not_be_named(bench: Bench, header: str | None) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        headers = {} if header is None else {"if-match": header}
        response = await client.patch(PATH, json={"a": 1}, headers=headers)

    assert response.status_code == 200
    assert response.json()["overlay"] == {"a": 1}


@pytest.mark.parametrize("header", ['W/"x"', '"x", "y"', '""'])
async def test_a_version_that_cannot_match_does_not(bench: Bench, header: str) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.put(PATH, json={}, headers={"if-match": header})

    assert response.status_code == 412


async def test_what_was_read_already_is_not_sent_again(bench: Bench) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        etag = (await client.get(PATH)).headers["etag"]
        response = await client.get(PATH, headers={"if-none-match": f'"other", W/{etag}'})

    assert response.status_code == 304
    assert response.content == b""
    assert response.headers["etag"] == etag


async def test_reading_takes_less_than_writing(bench: Bench) -> None:
    token = bench.tenants.add("acme", Scope.READ)
    async with bench.client(token) as client:
        read = await client.get(PATH)
        written = await client.put(PATH, json={})

    assert (read.status_code, written.status_code) == (200, 403)


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'"text"'])
async def test_a_config_is_an_object(bench: Bench, body: bytes) -> None:
    bench.tenants.add("acme")
    async with bench.admin() as client:
        response = await client.put(PATH, content=body)

    assert response.status_code == 422
