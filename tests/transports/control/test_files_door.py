"""The routes of a workspace's files, with a tenant that is awake and a real directory."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import trio

from appliance.model.errors import Unavailable
from appliance.model.tokens import Scope
from appliance.services.agents import AgentService
from appliance.services.workspace_contents import WorkspaceContents
from appliance.tenants.jobs import Jobs
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.control.file_answers import attachment
from appliance.transports.control.files_door import FilesDoor
from tests.services.tenancy import Tenancy
from tests.transports.control.bench import Bench
from tests.transports.rpc.settings_bench import Bench as Settings
from tests.transports.rpc.settings_bench import FakeTenant

FILES = "/v1/tenants/acme/agents/main/files"
CONTENT = f"{FILES}/content"


class Awake:
    """Satisfies what the door asks of a runtime."""

    def __init__(self, tenant: FakeTenant, jobs: Jobs) -> None:
        self.id, self.root, self.state = tenant.id, tenant.root, tenant.state
        self.tenant = tenant
        self.jobs = jobs

    @property
    def config(self) -> Any:
        return self.tenant.config

    async def perform(
        self,
        work: Callable[[], Awaitable[Any]],
        *,
        caller: Any,
        left: Callable[[], Awaitable[object]] | None = None,
    ) -> Any:
        return await self.jobs.perform(work, caller=caller, left=left)


class House:
    """The door in front of the control plane's own bench."""

    def __init__(self, tenancy: Tenancy, tenant: FakeTenant, jobs: Jobs) -> None:
        self.bench = Bench(body_timeout=0.5)
        self.tenancy = tenancy
        self.awake = Awake(tenant, jobs)
        self.owner = self.bench.tenants.add("acme")
        agents = AgentService(tenancy.tenants, gateway=lambda: tenancy.gateway, audit=tenancy.audit)
        self.place = tenancy.state.path / "tenants" / "acme" / "workspace"
        self.place.mkdir(mode=0o700, exist_ok=True)
        self.door = FilesDoor(
            self.bench.services,
            tenants=self,
            contents=WorkspaceContents(agents=agents, audit=tenancy.audit),
            framework=self.bench.app(),
        )

    async def runtime(self, tenant: str, /) -> TenantRuntime:
        await trio.lowlevel.checkpoint()
        if tenant != "acme":
            raise Unavailable("it sleeps")
        return cast("TenantRuntime", self.awake)

    def client(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(cast("Any", self.door), client=("192.0.2.1", 4000)),
            base_url="http://gateway.test",
            headers={"authorization": f"Bearer {token or self.owner}", **named},
        )

    async def ask(
        self, method: str, url: str, token: str | None = None, **more: Any
    ) -> httpx.Response:
        with trio.fail_after(60):
            async with self.client(token) as client:
                return await client.request(method, url, **more)

    def scope(self, method: str, query: str, **headers: str) -> dict[str, Any]:
        named = {"authorization": f"Bearer {self.owner}", **headers}
        return {
            "type": "http",
            "method": method,
            "path": CONTENT,
            "raw_path": CONTENT.encode(),
            "query_string": query.encode(),
            "headers": [(key.encode(), value.encode()) for key, value in named.items()],
            "client": ("192.0.2.1", 4000),
            "scheme": "http",
        }


@pytest.fixture
async def house(tenancy: Tenancy, nursery: trio.Nursery) -> AsyncIterator[House]:
    tenant = await Settings(tenancy, ()).open()
    live: list[bool] = []
    jobs = Jobs("acme", is_live=lambda _: not live)
    await nursery.start(jobs.run)
    yield House(tenancy, tenant, jobs)
    nursery.cancel_scope.cancel()
    tenant.root.close()


@pytest.fixture
def tenancy(tmp_path: Path) -> Any:
    made = Tenancy(tmp_path / "state")
    yield made
    made.close()


# -- there and back ----------------------------------------------------------


async def test_a_file_goes_in_and_comes_back_as_it_was(house: House) -> None:
    data = os.urandom(3_000_000)

    made = await house.ask("PUT", f"{CONTENT}?path=a/b.bin", content=data)
    again = await house.ask("PUT", f"{CONTENT}?path=/workspace/a/b.bin", content=data)
    back = await house.ask("GET", f"{CONTENT}?path=a/b.bin")

    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json()["path"] == "a/b.bin"
    assert made.json()["size"] == 3_000_000
    assert again.headers["etag"] == f'"{again.json()["etag"]}"' == back.headers["etag"]
    assert back.content == data
    assert (house.place / "a" / "b.bin").read_bytes() == data
    assert [each["action"] for each in house.tenancy.audit.actions[-2:]] == ["workspace.write"] * 2


async def test_what_is_downloaded_cannot_run_in_a_browser(house: House) -> None:
    (house.place / "x.html").write_text("<script>alert(1)</script>")

    answer = await house.ask("GET", f"{CONTENT}?path=x.html")

    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="x.html"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ('a"b;c\\d', "attachment; filename=\"a_b_c_d\"; filename*=UTF-8''a%22b%3Bc%5Cd"),
        ("ü\r\nx: y", "attachment; filename=\"____x: y\"; filename*=UTF-8''%C3%BC%0D%0Ax%3A%20y"),
        ("\udcff", "attachment; filename=\"_\"; filename*=UTF-8''%FF"),
    ],
)
def test_no_name_breaks_out_of_its_header(name: str, header: str) -> None:
    assert attachment(name) == header


async def test_an_empty_file_goes_both_ways(house: House) -> None:
    assert (await house.ask("PUT", f"{CONTENT}?path=empty", content=b"")).json()["size"] == 0
    assert (await house.ask("GET", f"{CONTENT}?path=empty")).headers["content-length"] == "0"


@pytest.mark.parametrize(
    ("wanted", "status", "content", "told"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
    ],
)
async def test_a_part_of_a_file_is_sent_on_request(
    house: House, wanted: str, status: int, content: bytes | None, told: str | None
) -> None:
    (house.place / "f").write_bytes(b"0123456789")

    answer = await house.ask("GET", f"{CONTENT}?path=f", headers={"range": wanted})

    assert answer.status_code == status
    assert answer.headers.get("content-range") == told
    assert content is None or answer.content == content


async def test_conditions_hold_for_what_is_read_and_written(house: House) -> None:
    url = f"{CONTENT}?path=f"
    first = (await house.ask("PUT", url, content=b"one")).headers["etag"]
    second = (await house.ask("PUT", url, content=b"two", headers={"if-match": first})).headers[
        "etag"
    ]

    async def status(method: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = b"new" if method == "PUT" else None
        return (await house.ask(method, url, headers=named, content=content)).status_code

    assert await status("PUT", if_match=first) == 412
    assert await status("PUT", if_none_match="*") == 412
    assert await status("PUT", if_none_match='"x"') == 422
    assert await status("PUT", if_match='"a", "b"') == 412
    assert await status("GET", if_none_match=second) == 304
    assert await status("GET", if_match=first) == 412
    assert await status("GET", range="bytes=0-0", if_range=second) == 206
    assert await status("GET", range="bytes=0-0", if_range=first) == 200
    assert await status("DELETE", if_match=first) == 405
    assert (house.place / "f").read_bytes() == b"two"
    gone = f"{CONTENT}?path=ghost"
    assert (await house.ask("PUT", gone, content=b"", headers={"if-match": "*"})).status_code == 412
    assert (
        await house.ask("PUT", gone, content=b"", headers={"if-none-match": "*"})
    ).status_code == 201


async def test_a_head_is_a_get_without_the_content(house: House) -> None:
    (house.place / "f").write_bytes(b"0123456789")

    answer = await house.ask("HEAD", f"{CONTENT}?path=f")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "10"


# -- listing and deleting ----------------------------------------------------


async def test_a_directory_is_listed_page_by_page(house: House) -> None:
    for name in (b"a", b"b\xff", b"c"):
        os.close(os.open(os.fsencode(house.place) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    (house.place / "agents").mkdir(exist_ok=True)
    os.utime(house.place / "a", ns=(0, 2**62))
    names, cursor = [], ""
    while True:
        answer = await house.ask("GET", f"{FILES}?limit=1{cursor}")
        page = answer.json()
        names += [(entry["name"], entry["kind"], entry["unnameable"]) for entry in page["entries"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert names == [("a", "file", False), ("b\\xff", "file", True), ("c", "file", False)]


async def test_a_file_is_deleted(house: House) -> None:
    (house.place / "d").mkdir()
    (house.place / "d" / "f").touch()
    etag = (await house.ask("GET", f"{FILES}?path=d")).json()["entries"][0]["etag"]

    changed = await house.ask("DELETE", f"{FILES}?path=d/f", headers={"if-match": '"other"'})
    full = await house.ask("DELETE", f"{FILES}?path=d")
    gone = await house.ask("DELETE", f"{FILES}?path=d/f", headers={"if-match": f'"{etag}"'})
    rest = await house.ask("DELETE", f"{FILES}?path=d&recursive=true")

    assert [each.status_code for each in (changed, full, gone, rest)] == [412, 409, 204, 204]
    assert gone.content == b""
    assert not (house.place / "d").exists()


# -- who may, and what is refused --------------------------------------------


async def test_reading_takes_read_and_writing_manage(house: House) -> None:
    (house.place / "f").write_bytes(b"x")
    asked = [
        ("GET", FILES, Scope.READ),
        ("GET", f"{CONTENT}?path=f", Scope.READ),
        ("PUT", f"{CONTENT}?path=f", Scope.MANAGE),
        ("DELETE", f"{FILES}?path=f", Scope.MANAGE),
    ]
    for scope in (Scope.CHAT, Scope.TERMINAL, Scope.READ, Scope.MANAGE):
        token = house.bench.tenants.add("acme", scope)
        for method, url, needed in asked:
            allowed = scope is needed or (scope, needed) == (Scope.MANAGE, Scope.READ)
            status = (await house.ask(method, url, token, content=b"")).status_code
            assert (status < 300) is allowed, (scope, method, status)
    assert (await house.ask("GET", FILES, "tenant:acme:guessed")).status_code == 401
    assert (await house.ask("GET", FILES, house.bench.tenants.add("mallory"))).status_code == 403


async def test_a_refusal_is_a_problem_with_its_reason(house: House) -> None:
    asked = {
        "path=ghost": (404, "not-found"),
        "path=/etc/passwd": (422, "invalid-request"),
        "path=agents/x": (422, "path-refused"),
        "path=": (422, "invalid-request"),
        "": (422, "invalid-request"),
        "path=a&other=b": (422, "invalid-request"),
    }
    for query, (status, code) in asked.items():
        answer = await house.ask("GET", f"{CONTENT}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code), query
        assert answer.headers["content-type"] == "application/problem+json"
    unknown = await house.ask("GET", "/v1/tenants/acme/agents/ghost/files")
    assert (unknown.status_code, unknown.json()["detail"]) == (404, 'agent "ghost" not found')


async def test_other_methods_are_told_what_there_is(house: House) -> None:
    wrong = await house.ask("POST", FILES, content=b"{}")
    options = await house.ask("OPTIONS", CONTENT)

    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, DELETE, HEAD, OPTIONS")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, PUT")


async def test_everything_else_is_the_frameworks(house: House) -> None:
    assert (await house.ask("GET", "/healthz")).status_code == 200
    assert (await house.ask("GET", f"{FILES}/other")).status_code == 404


async def test_a_request_is_counted_by_its_route_and_noted(house: House) -> None:
    await house.ask("GET", f"{CONTENT}?path=ghost")
    await house.ask("GET", "/v1/tenants/made-up/agents/main/files", "tenant:made-up:x")

    known, stranger = house.bench.lines.written[-2:]
    assert (known["tenant"], known["status"]) == ("acme", 404)
    assert (stranger["tenant"], stranger["status"]) == (None, 401)
    text = house.bench.metrics.render("text/plain")[0].decode()
    assert 'route="/v1/tenants/{id}/agents/{agent}/files/content"' in text
    assert "made-up" not in text


# -- clients that are slow, or leave -----------------------------------------


class Talk:
    """A client that says and hears what a test wants."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.heard: list[dict[str, Any]] = []
        self.reads = True
        self.began = trio.Event()

    async def receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if not self.messages:
            await trio.sleep_forever()
        return self.messages.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.reads and message["type"] == "http.response.body":
            await trio.sleep_forever()
        self.heard.append(message)
        self.began.set()

    @property
    def status(self) -> int:
        return int(self.heard[0]["status"])


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_a_client_that_leaves_half_way_changes_nothing(house: House) -> None:
    (house.place / "f").write_bytes(b"old")
    talk = Talk(body(b"half of", more=True), {"type": "http.disconnect"})

    await house.door(house.scope("PUT", "path=f"), talk.receive, talk.send)

    assert talk.heard == []
    assert (house.place / "f").read_bytes() == b"old"
    assert {each.name for each in house.place.iterdir()} == {"f", "agents"}


async def test_a_client_that_stops_sending_is_refused(house: House) -> None:
    talk = Talk(body(b"half of", more=True))

    with trio.fail_after(60):
        await house.door(house.scope("PUT", "path=f"), talk.receive, talk.send)

    assert talk.status == 408
    assert not (house.place / "f").exists()


async def test_a_client_that_stops_reading_is_left(house: House) -> None:
    (house.place / "f").write_bytes(b"x" * 5_000_000)
    talk = Talk(body(b""))
    talk.reads = False

    with trio.fail_after(60):
        await house.door(house.scope("GET", "path=f"), talk.receive, talk.send)

    assert talk.status == 200
    assert house.awake.state.workspace_transfers == 0


async def test_a_refused_upload_is_heard_out_before_it_is_answered(house: House) -> None:
    talk = Talk(body(b"x", more=True), body(b"y", more=True), body(b"z"))

    await house.door(house.scope("PUT", "path=/etc/passwd"), talk.receive, talk.send)

    assert talk.messages == []
    assert talk.status == 422
    assert json.loads(talk.heard[1]["body"])["code"] == "invalid-request"


async def test_an_announced_upload_that_does_not_fit_is_refused_at_once(house: House) -> None:
    house.awake.root.room.told(left=10, refusal=None)
    talk = Talk(body(b"x"))

    scope = house.scope("PUT", "path=f", **{"content-length": "11"})
    await house.door(scope, talk.receive, talk.send)

    assert talk.status == 429


async def test_a_file_that_becomes_shorter_ends_before_its_length(house: House) -> None:
    (house.place / "f").write_bytes(b"x" * 1_000_000)
    talk = Talk(body(b""))
    send = talk.send

    async def cut(message: dict[str, Any]) -> None:
        os.truncate(house.place / "f", 300_000)
        await send(message)

    await house.door(house.scope("GET", "path=f"), talk.receive, cut)

    sent = sum(len(message.get("body", b"")) for message in talk.heard)
    assert dict(talk.heard[0]["headers"])[b"content-length"] == b"1000000"
    assert sent < 1_000_000


async def test_a_revoked_token_ends_a_download_at_once(house: House) -> None:
    (house.place / "f").write_bytes(b"x" * 2_000_000)
    talk = Talk(body(b""))
    async with trio.open_nursery() as nursery:
        talk.reads = False
        door = partial(house.door, house.scope("GET", "path=f"), talk.receive, talk.send)
        nursery.start_soon(door)
        await talk.began.wait()
        credential = house.bench.tenants.records["acme"].tokens[0].id
        with trio.fail_after(60):
            await house.awake.jobs.revoke(credential)
    assert len(talk.heard) == 1, "the answer is not completed"
