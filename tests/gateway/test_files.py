"""Files of a workspace over a real connection to a running gateway."""

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from tests.gateway.conftest import ADMIN_KEY, Gateway, Tenant
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP

PIECE = bytes(range(256)) * 4096  # a megabyte
PIECES = 40


@pytest.fixture
async def acme(gateway: Gateway) -> Tenant:
    return await gateway.create("acme")


def url(tenant: str = "acme", *, path: str = "big.bin") -> str:
    return f"/v1/tenants/{tenant}/agents/main/files/content?path={path}"


async def pieces(count: int = PIECES) -> AsyncIterator[bytes]:
    for _ in range(count):
        await trio.lowlevel.checkpoint()
        yield PIECE


async def test_a_large_file_goes_in_and_out_in_pieces(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    made = await gateway.http.put(url(), content=pieces(), headers=headers)
    digest, size = hashlib.sha256(), 0
    async with gateway.http.stream("GET", url(), headers=headers) as answer:
        async for piece in answer.aiter_bytes():
            digest.update(piece)
            size += len(piece)

    assert made.status_code == 201, made.text
    assert (size, made.json()["size"]) == (PIECES * len(PIECE), PIECES * len(PIECE))
    assert digest.digest() == hashlib.sha256(PIECE * PIECES).digest()


async def test_one_connection_serves_many_requests(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    await gateway.http.put(url(path="f"), content=b"0123456789", headers=headers)
    for number in range(5):
        part = await gateway.http.get(
            url(path="f"), headers={**headers, "range": f"bytes={number}-{number}"}
        )
        assert (part.status_code, part.content) == (206, b"%d" % number)
    listed = await gateway.http.get("/t/acme/v1/tenants/acme/agents/main/files", headers=headers)
    assert [entry["name"] for entry in listed.json()["entries"]] == ["f"]
    for method, status in (("HEAD", 200), ("OPTIONS", 204), ("POST", 405)):
        answer = await gateway.http.request(method, url(path="f"), headers=headers)
        assert answer.status_code == status


async def test_disabling_the_tenant_breaks_a_download_off(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    await gateway.http.put(url(), content=pieces(), headers=headers)
    got = 0

    async def read_all() -> None:
        nonlocal got
        async for piece in answer.aiter_bytes(1024):
            if not got:
                await gateway.http.patch(
                    "/v1/tenants/acme",
                    json={"disabled": True},
                    headers=gateway.headers(ADMIN_KEY),
                )
            got += len(piece)

    async with gateway.http.stream("GET", url(), headers=headers) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            with trio.fail_after(60):
                await read_all()
    assert got < PIECES * len(PIECE)


@pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)
async def test_what_was_uploaded_is_found_in_a_sandbox(gateway: Gateway, acme: Tenant) -> None:
    headers = gateway.headers(acme.token)
    for path, text in {"src/a.py": b"x = 1\n# needle\n", "b.txt": b"needles\n"}.items():
        await gateway.http.put(url(path=path), content=text, headers=headers)

    async def invoke(tool: str, **args: str) -> str:
        answer = await gateway.http.post(
            "/tools/invoke", json={"tool": tool, "args": args}, headers=headers, timeout=60
        )
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["result"]["content"][0]["text"]
        _, *lines, _ = text.split("\n")  # without the marks around what a file says
        return "\n".join(lines)

    assert await invoke("find", pattern="*") == "b.txt\nsrc/\nsrc/a.py"
    assert await invoke("grep", pattern="ne+dle", path="src") == "src/a.py:2: # needle"
    assert await invoke("read", path="b.txt") == "needles\n"


async def test_no_other_tenant_reaches_it(gateway: Gateway, acme: Tenant) -> None:
    await gateway.http.put(url(), content=b"secret", headers=gateway.headers(acme.token))
    mallory = await gateway.create("mallory")
    headers = gateway.headers(mallory.token)

    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = await gateway.http.request(method, url(), headers=headers, content=b"")
        assert answer.status_code in {403, 405}
    mine = await gateway.http.get(url("mallory"), headers=headers)
    assert mine.status_code == 404
