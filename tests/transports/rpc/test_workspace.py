"""``workspace.*`` and ``agents.workspace.*`` as a tenant's client calls them."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    ScopeMissing,
    TooLarge,
)
from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.services.workspace_contents import WorkspaceContents
from appliance.storage.paths import PathRefused
from appliance.transports.rpc import workspace, workspace_shapes
from tests.transports.rpc.settings_bench import Bench, open_bench

PNG = b"\x89PNG\r\n\x1a\n\0"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path, workspace.METHODS) as bench:
        bench.services.workspaces = WorkspaceContents(
            agents=bench.services.agents, audit=bench.tenancy.audit
        )
        place = place_of(bench)
        for name, data in {
            "README.md": b"# Hi\n",
            "src/a.py": b"x = 1\n",
            "picture": PNG,
            "latin": b"caf\xe9",
        }.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
            os.utime(place / name, (1_000, 1_000))
        yield bench


def place_of(bench: Bench) -> Path:
    return bench.tenancy.state.path / "tenants" / "acme" / "workspace"


# -- as the original's clients have it ---------------------------------------


async def test_a_directory_is_listed_as_the_originals_clients_read_it(bench: Bench) -> None:
    (place_of(bench) / "link").symlink_to("README.md")

    listed = await bench.call("agents.workspace.list", agentId="main", offset=1, limit=2)
    below = await bench.call("agents.workspace.list", agentId="main", path="src")

    assert [entry["name"] for entry in listed["entries"]] == ["latin", "picture"]
    assert (listed["totalEntries"], listed["offset"], listed["path"]) == (4, 1, "")
    assert "parentPath" not in listed
    assert below == {
        "agentId": "main",
        "path": "src",
        "parentPath": "",
        "entries": [
            {
                "path": "src/a.py",
                "name": "a.py",
                "kind": "file",
                "size": 6,
                "updatedAtMs": 1_000_000,
            }
        ],
        "totalEntries": 1,
        "offset": 0,
    }


@pytest.mark.parametrize(
    ("path", "mime", "encoding", "content"),
    [
        ("README.md", "text/markdown", "utf8", "# Hi\n"),
        ("src/a.py", "text/plain", "utf8", "x = 1\n"),
        ("picture", "image/png", "base64", base64.b64encode(PNG).decode()),
        ("latin", "application/octet-stream", "base64", "Y2Fm6Q=="),
    ],
)
async def test_a_file_is_shown_as_text_or_base64(
    bench: Bench, path: str, mime: str, encoding: str, content: str
) -> None:
    answer = await bench.call("agents.workspace.get", agentId="main", path=path)

    file = answer["file"]
    assert set(file) == {"path", "name", "size", "updatedAtMs", "mimeType", "encoding", "content"}
    assert (file["mimeType"], file["encoding"], file["content"]) == (mime, encoding, content)
    assert (file["path"], file["updatedAtMs"]) == (path, 1_000_000)


async def test_what_is_too_large_to_show_says_how_to_read_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "LARGEST_READ", 4)

    with pytest.raises(TooLarge, match=r"has 5 bytes; at most 4.*workspace.get"):
        await bench.call("agents.workspace.get", agentId="main", path="README.md")


# -- ours --------------------------------------------------------------------


async def test_everything_is_listed_page_by_page(bench: Bench) -> None:
    os.mkfifo(place_of(bench) / "pipe")
    os.close(os.open(os.fsencode(place_of(bench)) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    names, cursor = [], None
    while True:
        page = await bench.call("workspace.list", limit=2, cursor=cursor)
        names += [(entry["name"], entry["kind"]) for entry in page["entries"]]
        cursor = page.get("nextCursor")
        if cursor is None:
            break

    assert names == [
        ("README.md", "file"),
        ("latin", "file"),
        ("picture", "file"),
        ("pipe", "other"),
        ("src", "directory"),
        ("\\xff", "file"),
    ]
    assert page["entries"][-1]["unnameable"]
    with pytest.raises(InvalidRequest, match="cursor"):
        await bench.call("workspace.list", cursor="?")


async def test_a_file_is_read_in_parts(bench: Bench) -> None:
    part = await bench.call("workspace.get", path="README.md", offset=2, limit=2)
    rest = await bench.call("workspace.get", path="README.md", offset=4, encoding="base64")
    past = await bench.call("workspace.get", path="README.md", offset=9)

    assert (part["content"], part["offset"], part["length"], part["hasMore"]) == ("Hi", 2, 2, True)
    assert (rest["content"], rest["hasMore"]) == ("Cg==", False)
    assert (past["content"], past["length"]) == ("", 0)
    assert part["etag"] == rest["etag"]


async def test_a_file_is_written_only_over_what_was_read(bench: Bench) -> None:
    content = base64.b64encode(b"\0new").decode()
    made = await bench.call("workspace.put", path="new/f", content=content, create=True)
    text = await bench.call("workspace.put", path="new/f", content="text", encoding="utf8")

    assert (made["created"], made["entry"]["size"], made["entry"]["path"]) == (True, 4, "new/f")
    assert (text["created"], text["entry"]["size"]) == (False, 4)
    with pytest.raises(PreconditionFailed):
        await bench.call("workspace.put", path="new/f", content="", ifMatch=made["entry"]["etag"])
    with pytest.raises(PreconditionFailed):
        await bench.call("workspace.put", path="new/f", content="", create=True)
    await bench.call("workspace.put", path="new/f", content="", ifMatch=text["entry"]["etag"])
    assert (place_of(bench) / "new" / "f").read_bytes() == b""


@pytest.mark.parametrize(
    ("params", "failure"),
    [
        ({"content": "not base64!"}, InvalidRequest),
        ({"content": "YQ==", "create": True, "ifMatch": "x"}, InvalidRequest),
        ({"content": "", "path": "../x"}, InvalidRequest),
        ({"content": "", "path": "agents/blue/x"}, PathRefused),
        ({"content": "", "agentId": "ghost"}, NotFound),
    ],
)
async def test_what_cannot_be_written_is_refused(
    bench: Bench, params: dict[str, object], failure: type[Exception]
) -> None:
    with pytest.raises(failure):
        await bench.call("workspace.put", **{"path": "x", **params})
    assert not (place_of(bench) / "x").exists()


async def test_more_than_goes_with_a_request_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "LARGEST_PUT", 3)

    with pytest.raises(TooLarge, match="over HTTP"):
        await bench.call("workspace.put", path="x", content="abcd", encoding="utf8")


async def test_files_and_directories_are_made_moved_and_deleted(bench: Bench) -> None:
    made = await bench.call("workspace.mkdir", path="a/b")
    moved = await bench.call("workspace.move", **{"from": "README.md", "to": "a/b/r.md"})
    with pytest.raises(AlreadyExists):
        await bench.call("workspace.move", **{"from": "latin", "to": "a/b/r.md"})
    await bench.call("workspace.move", **{"from": "latin", "to": "a/b/r.md", "overwrite": True})
    with pytest.raises(AlreadyExists):
        await bench.call("workspace.delete", path="a")
    with pytest.raises(PreconditionFailed):
        await bench.call("workspace.delete", path="a/b/r.md", ifMatch=moved["entry"]["etag"])
    gone = await bench.call("workspace.delete", path="a", recursive=True)

    assert (made["entry"]["kind"], made["entry"]["path"]) == ("directory", "a/b")
    assert moved["entry"]["path"] == "a/b/r.md"
    assert gone == {"ok": True, "agentId": "main", "path": "a"}
    assert not (place_of(bench) / "a").exists()
    assert [
        each["action"] for each in bench.tenancy.audit.actions if "workspace" in each["action"]
    ] == [
        "workspace.mkdir",
        "workspace.move",
        "workspace.move",
        "workspace.move",
        "workspace.delete",
        "workspace.delete",
        "workspace.delete",
    ]


async def test_whoever_may_only_read_changes_nothing(bench: Bench) -> None:
    bench.caller = Caller(ActorKind.TENANT, "tok_2", "acme", frozenset({Scope.READ}))
    for name, params in {
        "workspace.put": {"path": "x", "content": ""},
        "workspace.delete": {"path": "latin"},
        "workspace.mkdir": {"path": "x"},
        "workspace.move": {"from": "latin", "to": "x"},
    }.items():
        with pytest.raises(ScopeMissing):
            await bench.call(name, **params)
    for method in workspace.METHODS:
        changes = bool(method.audited)
        assert method.needs is (Scope.MANAGE if changes else Scope.READ)
        assert method.scope is (OperatorScope.ADMIN if changes else OperatorScope.READ)


def test_what_is_sent_fits_into_a_frame() -> None:
    assert workspace_shapes.LARGEST_PUT * 4 / 3 < 25 * 1024 * 1024
    assert workspace_shapes.LARGEST_READ * 4 / 3 < 8 * 1024 * 1024
