"""Working in a workspace from the gateway."""

import os
from pathlib import Path

import pytest

from appliance.model.errors import AlreadyExists, NotFound, Unavailable
from appliance.services.workspace_access import failures_told, in_workspace, replace
from tests.services.tools.calling import open_bench


async def test_work_is_done_in_the_agents_own_workspace(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        entry = await in_workspace(
            bench.tenant, "pirate", lambda workspace: replace(workspace, "a/b", b"hi")
        )

        assert (bench.place_of("pirate") / "a" / "b").read_bytes() == b"hi"
        assert entry.size == 2
        assert bench.tenant.state.workspace_threads.borrowed_tokens == 0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (FileNotFoundError(2, "x"), (NotFound, "a\\x0ab does not exist")),
        (FileExistsError(17, "x"), (AlreadyExists, "exists already")),
        (FileExistsError(17, "is not empty"), (AlreadyExists, "is not empty")),
        (OSError(5, os.strerror(5)), (Unavailable, "cannot be used: Input/output error")),
    ],
)
def test_what_the_operating_system_says_becomes_what_its_owner_can_act_on(
    said: OSError, told: tuple[type[Exception], str]
) -> None:
    with pytest.raises(told[0]) as caught, failures_told("a\nb"):
        raise said
    assert told[1] in str(caught.value)
