"""An agent's own files, in a place where sandboxes write too."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.config.loading import parse_config
from appliance.config.schema import GatewayConfig
from appliance.model.errors import InvalidRequest, NotFound, PreconditionFailed, TooLarge
from appliance.services import workspace_files as files
from appliance.storage.paths import PathRefused, TenantRoot
from tests.books import tenant_root


@dataclass
class Tenant:
    """Satisfies ``services.workspaces.TenantWithWorkspaces``."""

    root: TenantRoot
    config: GatewayConfig = field(default_factory=lambda: parse_config("{}", name="config"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[TenantRoot]:
    (tmp_path / "secret").write_text("the operator's")
    with tenant_root(tmp_path / "tenant") as root:
        yield root


def write(root: TenantRoot, agent: str, text: str, expected: str | None = None) -> None:
    files.write_file(Tenant(root), agent, "SOUL.md", text, expected=expected)


def test_what_is_written_is_read(root: TenantRoot) -> None:
    write(root, "main", "näh")
    write(root, "pirate", "arr")

    main, pirate = (files.read_file(root, agent, "SOUL.md") for agent in ("main", "pirate"))

    assert (main.content, main.size, main.missing) == ("näh", 4, False)
    assert pirate.content == "arr"
    assert root.read_bytes("workspace/agents/pirate/SOUL.md", limit=9) == b"arr"


def test_a_listing_names_every_file_there_may_be(root: TenantRoot) -> None:
    write(root, "main", "x")

    listed = files.list_files(root, "main")

    assert [file.name for file in listed] == list(files.NAMES)
    assert [file.name for file in listed if not file.missing] == ["SOUL.md"]
    assert listed[1].updated_at is not None
    assert all(file.missing for file in files.list_files(root, "nobody"))


@pytest.mark.parametrize("name", ["", "x.md", "../SOUL.md", "soul.md", "memory/2026.md", "x" * 999])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="unsupported file"):
        files.require_name(name)


def test_a_link_is_neither_read_nor_written_nor_shown(root: TenantRoot, tmp_path: Path) -> None:
    root.mkdir("workspace")
    link = tmp_path / "tenant/workspace/SOUL.md"
    link.symlink_to(tmp_path / "secret")

    with pytest.raises(PathRefused):
        files.read_file(root, "main", "SOUL.md")
    with pytest.raises(PathRefused):
        write(root, "main", "x")
    assert files.read_text(root, "main", "SOUL.md", limit=99) == ""
    assert all(file.missing for file in files.list_files(root, "main"))
    assert (tmp_path / "secret").read_text() == "the operator's"


def test_a_workspace_that_is_a_link_leads_nowhere(root: TenantRoot, tmp_path: Path) -> None:
    (tmp_path / "tenant/workspace").symlink_to(tmp_path)

    with pytest.raises(PathRefused):
        write(root, "main", "x")
    with pytest.raises(PathRefused):
        write(root, "pirate", "x")
    assert all(file.missing for file in files.list_files(root, "main"))


def test_what_is_no_plain_file_is_left_alone(root: TenantRoot, tmp_path: Path) -> None:
    root.mkdir("workspace")
    os.mkfifo(tmp_path / "tenant/workspace/SOUL.md")

    with pytest.raises(PathRefused):
        files.read_file(root, "main", "SOUL.md")
    assert files.list_files(root, "main")[1].missing


def test_a_file_has_an_end(root: TenantRoot) -> None:
    with pytest.raises(TooLarge):
        write(root, "main", "ä" * (files.LARGEST // 2 + 1))

    write(root, "main", "a" * files.LARGEST)


def test_a_write_may_name_what_it_replaces(root: TenantRoot) -> None:
    write(root, "main", "one")
    digest = files.read_file(root, "main", "SOUL.md").digest

    write(root, "main", "two", expected=digest)
    with pytest.raises(PreconditionFailed, match="changed since it was read"):
        write(root, "main", "three", expected=digest)

    assert files.read_file(root, "main", "SOUL.md").content == "two"


def test_an_agents_files_go_with_it_but_the_first_ones(root: TenantRoot) -> None:
    write(root, "main", "x")
    write(root, "pirate", "y")

    files.remove_files(root, "pirate")
    files.remove_files(root, "never-was")
    with pytest.raises(NotFound):
        files.remove_files(root, "main")

    assert not root.exists("workspace/agents/pirate")
    assert root.exists("workspace/SOUL.md")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_whoever_runs_in_the_sandbox_may_change_what_was_written(
    root: TenantRoot, tmp_path: Path
) -> None:
    write(root, "main", "x")

    assert (tmp_path / "tenant/workspace/SOUL.md").stat().st_uid == Tenant(root).config.sandbox.uid


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_was_closed_from_inside_is_refused(root: TenantRoot, tmp_path: Path) -> None:
    write(root, "main", "x")
    (tmp_path / "tenant/workspace/SOUL.md").chmod(0)

    with pytest.raises(PathRefused, match="closed by its mode"):
        files.read_file(root, "main", "SOUL.md")
    assert files.read_text(root, "main", "SOUL.md", limit=9) == ""
