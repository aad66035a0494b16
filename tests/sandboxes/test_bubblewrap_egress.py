"""The way out of real sandboxes: programs that know nothing of it but their environment."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.base import SandboxSpec, TerminalSize
from appliance.sandboxes.egress_settings import Verdict
from appliance.sandboxes.forwarding import EGRESS_ENVIRONMENT, forwarding
from tests.sandboxes.egress import (
    CANARY,
    HOST,
    Internet,
    Sandbox,
    Website,
    injecting,
    rule,
    sandbox,
)
from tests.sandboxes.workshop import HAS_BWRAP, NO_BWRAP, Result, Workshop, opened

PROGRAMS = [
    name
    for name, path in (("socat", "/usr/bin/socat"), ("python", "/usr/bin/python3"))
    if os.access(path, os.X_OK)
]
HAS_CURL = os.access("/usr/bin/curl", os.X_OK)

pytestmark = [
    pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP),
    pytest.mark.skipif(not HAS_CURL, reason="needs curl: apt install curl"),
    pytest.mark.skipif(not PROGRAMS, reason="needs socat: apt install socat"),
]

# Whatever a program in there could look at.
LOOK_EVERYWHERE = """
env
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null
find /etc /run /tmp /dev/shm /workspace -type f -size -1000k -exec cat {} + 2>/dev/null
cat /run/* /proc/self/mountinfo /proc/net/unix 2>/dev/null
"""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with opened(tmp_path) as workshop:
        yield workshop


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.fixture(params=PROGRAMS)
def forwarder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_egress(spec: SandboxSpec, inside: Sandbox, forwarder: str = PROGRAMS[0]) -> SandboxSpec:
    return replace(
        spec,
        command=forwarding(spec.command, prefer_socat=forwarder == "socat"),
        environment={**EGRESS_ENVIRONMENT, **spec.environment},
        egress=inside.door,
    )


async def run(shop: Workshop, inside: Sandbox, script: str, forwarder: str = PROGRAMS[0]) -> Result:
    with trio.fail_after(60):
        return await shop.run(with_egress(shop.shell(script), inside, forwarder))


async def test_a_credential_is_used_and_cannot_be_found_inside(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, shop: Workshop, forwarder: str
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        script = f"curl -sSv https://{HOST}:{port}/v1 2>&1; {LOOK_EVERYWHERE}"
        result = await run(shop, inside, script, forwarder)

    assert f"authorization: Bearer {CANARY}".encode() in website.heads[0]
    assert b"ok" in result.output
    assert b"PATH=" in result.output
    assert CANARY.encode() not in result.output + result.errors
    assert b"PRIVATE KEY" not in result.output
    assert inside.records[0].verdict is Verdict.PASSED


async def test_a_program_that_cannot_be_taught_to_trust_us_asks_in_clear_text(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, shop: Workshop
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        result = await run(shop, inside, f"curl -sS -d x=1 http://{HOST}:{port}/v1")

    assert result.output == b"ok"
    assert website.heads[0].startswith(b"POST /v1 HTTP/1.1\r\n")
    assert CANARY.encode() in website.heads[0]


async def test_a_tunnel_is_the_programs_own_tls(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, shop: Workshop, forwarder: str
) -> None:
    website = Website(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000))
    port = await internet.serve(nursery, website.serve)
    shop.write("ca.pem", internet.authority.pem)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        script = f"curl -sS --cacert ca.pem https://{HOST}:{port}/ | wc -c"
        result = await run(shop, inside, script, forwarder)

    assert result.text == "5000000"
    assert inside.records[0].received_bytes > 5_000_000


async def test_nothing_else_is_reached(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, shop: Workshop
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve, tls=False)
    async with sandbox(tmp_path, internet, rule(HOST, port)) as inside:
        script = f"""
        curl -sS --noproxy '*' -m 5 http://127.0.0.1:{port}/ && echo REACHED
        curl -sS --noproxy '*' -m 5 http://169.254.169.254/ && echo REACHED
        curl -sSk -m 5 https://elsewhere.example.org:{port}/ && echo REACHED
        curl -sSk -m 5 https://127.0.0.1.:{port}/ && echo REACHED
        curl -sS --proxytunnel -m 5 http://{HOST}:{port}/ && echo REACHED
        getent hosts {HOST} && echo REACHED
        """
        result = await run(shop, inside, script)

    assert b"REACHED" not in result.output
    assert website.heads == []


@pytest.mark.parametrize(
    "script",
    [
        "git ls-remote https://{at}/repository",
        "python3 -c 'import urllib.request as r; r.urlopen(\"https://{at}/\").read()'",
        "pip download --no-deps --index-url https://{at}/simple nothing",
    ],
)
async def test_programs_find_the_way_by_their_environment(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, shop: Workshop, script: str
) -> None:
    if not os.access(f"/usr/bin/{script.split()[0]}", os.X_OK):
        script = "curl -sS https://{at}/"  # it need not be installed; that one is
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        result = await run(shop, inside, script.format(at=f"{HOST}:{port}"))

    assert website.heads, result.errors
    assert CANARY.encode() in website.heads[0]


async def test_a_shell_at_a_terminal_keeps_its_jobs_and_its_way_out(
    tmp_path: Path, internet: Internet, nursery: trio.Nursery, shop: Workshop, forwarder: str
) -> None:
    website = Website()
    port = await internet.serve(nursery, website.serve)
    async with sandbox(tmp_path, internet, injecting(HOST, port)) as inside:
        spec = shop.spec("/bin/bash", "--norc", "-i", terminal=TerminalSize(200, 50))
        async with shop.backend.open(with_egress(spec, inside, forwarder)) as shell:
            said = bytearray()

            async def until(text: bytes) -> None:
                with trio.fail_after(60):
                    while text not in said:
                        said.extend(await shell.output.receive_some())
                del said[: said.index(text) + len(text)]

            ask = shell.input.send_all
            await ask(b"echo be''gun\n")
            await until(b"begun\r\n")
            await ask(
                b"sh -c \"echo on''e; exec sleep 100\" && echo no''t; echo interr''upted $?\n"
            )
            await until(b"one\r\n")
            await ask(b"\x03")
            await ask(b"sh -c \"echo tw''o; exec sleep 100\"\n")
            await until(b"two\r\n")
            await ask(b"\x1a")
            await until(b"Stopped")
            await ask(b"kill %1; jobs; wait; echo wai''ted\n")
            await until(b"waited\r\n")
            written = "-o /dev/null -w 'status %{http_code}\\n'"
            await ask(f"curl -sS {written} https://{HOST}:{port}/\n".encode())
            await until(b"status 200\r\n")
            await ask(b"exit 5\n")
            with trio.fail_after(60):
                ending = await shell.wait()

    assert ending.exit_code == 5
