"""Only what is there is hidden."""

import os
from pathlib import Path

from appliance.sandboxes.base import Access, SandboxSpec
from appliance.sandboxes.bubblewrap_arguments import HiddenName
from appliance.sandboxes.hiding import hidden_names


def names(workspace: Path, access: Access = Access.WRITE) -> list[HiddenName]:
    descriptor = os.open(workspace, os.O_PATH)
    try:
        spec = SandboxSpec(
            group="g",
            workspace=descriptor,
            command=("true",),
            access=access,
            hidden=("file", "folder", "link", "missing"),
        )
        return list(hidden_names(spec))
    finally:
        os.close(descriptor)


def test_files_and_directories_are_told_apart_and_links_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc")

    assert names(tmp_path) == [
        HiddenName("file", is_directory=False),
        HiddenName("folder", is_directory=True),
    ]


def test_without_a_workspace_there_is_nothing_to_hide(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert names(tmp_path, Access.NONE) == []
