"""A tenant's own config: read, replaced, patched, and kept within its bounds."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.errors import AdminOnlyKey, ConfigInvalid, PreconditionFailed
from appliance.model.tokens import Scope
from appliance.services.tenant_config import changed_keys
from tests.services.tenancy import ADMIN, Tenancy

FAST = {"models": {"aliases": {"fast": "stub/mock"}}}


async def test_without_an_overlay_the_gateways_config_holds(tenancy: Tenancy) -> None:
    await tenancy.make()

    document = await tenancy.tenants.config(ADMIN, "acme")

    assert document.overlay == {}
    assert document.effective_public["models"]["default"] == "stub/mock"  # type: ignore[index] # an object


async def test_what_is_put_is_what_is_read_and_what_runs_is_told(tenancy: Tenancy) -> None:
    await tenancy.make()
    caller = await tenancy.caller("acme", Scope.MANAGE)

    put = await tenancy.tenants.put_config(caller, "acme", FAST)

    assert put.overlay == FAST
    assert put.effective_public["models"]["aliases"] == {"fast": "stub/mock"}  # type: ignore[index] # an object
    assert await tenancy.tenants.config(caller, "acme") == put
    assert tenancy.running.calls == [("refresh", "acme")]
    again = tenancy.restarted()
    assert await again.tenants.config(ADMIN, "acme") == put
    again.close()


async def test_a_patch_changes_what_it_names(tenancy: Tenancy) -> None:
    await tenancy.make(config=FAST)

    patched = await tenancy.tenants.patch_config(
        ADMIN, "acme", {"models": {"aliases": {"fast": None, "smart": "stub/b"}}}
    )

    assert patched.overlay == {"models": {"aliases": {"smart": "stub/b"}}}


async def test_the_version_changes_with_the_content_alone(tenancy: Tenancy) -> None:
    await tenancy.make()
    empty = (await tenancy.tenants.config(ADMIN, "acme")).etag
    first = (await tenancy.tenants.put_config(ADMIN, "acme", FAST)).etag
    second = (await tenancy.tenants.put_config(ADMIN, "acme", {})).etag
    third = (await tenancy.tenants.put_config(ADMIN, "acme", FAST)).etag

    assert first == third
    assert len({empty, first, second}) >= 2


async def test_a_change_of_something_else_than_was_read_is_refused(tenancy: Tenancy) -> None:
    await tenancy.make()
    read = await tenancy.tenants.config(ADMIN, "acme")
    written = await tenancy.tenants.put_config(ADMIN, "acme", FAST, if_match=read.etag)

    with pytest.raises(PreconditionFailed):
        await tenancy.tenants.put_config(ADMIN, "acme", {}, if_match=read.etag)
    with pytest.raises(PreconditionFailed):
        await tenancy.tenants.patch_config(ADMIN, "acme", {}, if_match=read.etag)

    assert (await tenancy.tenants.config(ADMIN, "acme")).overlay == FAST
    await tenancy.tenants.patch_config(ADMIN, "acme", {}, if_match=written.etag)


async def test_of_two_who_read_the_same_one_writes(tenancy: Tenancy) -> None:
    await tenancy.make()
    read = await tenancy.tenants.config(ADMIN, "acme")
    written: list[str] = []

    async def write(alias: str) -> None:
        overlay = {"models": {"aliases": {alias: "stub/mock"}}}
        try:
            await tenancy.tenants.put_config(ADMIN, "acme", overlay, if_match=read.etag)
        except PreconditionFailed:
            return
        written.append(alias)

    async with trio.open_nursery() as nursery:
        for alias in ("a", "b", "c"):
            nursery.start_soon(write, alias)

    assert len(written) == 1


async def test_patches_at_the_same_time_are_all_there(tenancy: Tenancy) -> None:
    await tenancy.make()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            patch = {"models": {"aliases": {f"m{number}": "stub/mock"}}}
            nursery.start_soon(tenancy.tenants.patch_config, ADMIN, "acme", patch)

    document = await tenancy.tenants.config(ADMIN, "acme")
    assert len(document.overlay["models"]["aliases"]) == 8  # type: ignore[index] # an object


@pytest.mark.parametrize(
    ("overlay", "failure", "named"),
    [
        ({"modles": {}}, ConfigInvalid, "models"),
        ({"__proto__": {}}, ConfigInvalid, "__proto__"),
        ({"models": {"default": 5}}, ConfigInvalid, "models.default"),
        ([], ConfigInvalid, "."),
        ("text", ConfigInvalid, "."),
        (None, ConfigInvalid, "."),
        ({"server": {"bind": "0.0.0.0:1"}}, AdminOnlyKey, "server"),
        ({"providers": {}}, AdminOnlyKey, "providers"),
        ({"models": {"rate_card": {}}}, AdminOnlyKey, "models.rate_card"),
        ({"quotas": {}}, AdminOnlyKey, "quotas"),
    ],
)
@pytest.mark.parametrize("as_admin", [True, False])
async def test_a_bad_overlay_changes_nothing(
    tenancy: Tenancy,
    overlay: object,
    failure: type[Exception],
    named: str,
    *,
    as_admin: bool,
) -> None:
    await tenancy.make(config=FAST)
    caller = ADMIN if as_admin else await tenancy.caller("acme", Scope.MANAGE)

    with pytest.raises(failure, match=named):
        await tenancy.tenants.put_config(caller, "acme", overlay)
    if isinstance(overlay, dict):
        with pytest.raises(failure, match=named):
            await tenancy.tenants.patch_config(caller, "acme", overlay)

    assert (await tenancy.tenants.config(ADMIN, "acme")).overlay == FAST
    assert "config.write" not in tenancy.audit.names


async def test_a_patch_that_is_no_object_is_refused(tenancy: Tenancy) -> None:
    await tenancy.make()

    with pytest.raises(ConfigInvalid):
        await tenancy.tenants.patch_config(ADMIN, "acme", [1])


async def test_an_overlay_spoilt_by_hand_is_reported_and_can_be_replaced(
    tenancy: Tenancy,
) -> None:
    await tenancy.make(config=FAST)
    for spoilt in (b"models: [", b"\xff\xfe", b"server: {}"):
        tenancy.file("acme", "config.yaml").write_bytes(spoilt)

        with pytest.raises((ConfigInvalid, AdminOnlyKey)):
            await tenancy.tenants.config(ADMIN, "acme")
        with pytest.raises((ConfigInvalid, AdminOnlyKey)):
            await tenancy.tenants.patch_config(ADMIN, "acme", FAST)
        assert tenancy.file("acme", "config.yaml").read_bytes() == spoilt

        assert (await tenancy.tenants.put_config(ADMIN, "acme", FAST)).overlay == FAST


async def test_a_link_in_its_place_is_neither_read_nor_written_through(tenancy: Tenancy) -> None:
    await tenancy.make()
    secret = tenancy.state.path / "config.yaml"
    secret.write_text("server: {}\n")
    tenancy.file("acme", "config.yaml").symlink_to(secret)

    with pytest.raises(Exception, match="link"):
        await tenancy.tenants.config(ADMIN, "acme")
    with pytest.raises(Exception, match="link"):
        await tenancy.tenants.put_config(ADMIN, "acme", FAST)

    assert secret.read_text() == "server: {}\n"


async def test_the_audit_log_names_the_keys_and_not_the_values(tenancy: Tenancy) -> None:
    await tenancy.make(config={"models": {"default": "stub/old", "aliases": {"fast": "stub/a"}}})

    await tenancy.tenants.put_config(
        ADMIN, "acme", {"models": {"aliases": {"fast": "stub/secret-name"}}}
    )

    details = tenancy.audit.actions[-1]["details"]
    assert details == {"keys": ["models.aliases.fast", "models.default"]}


overlays = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda below: st.dictionaries(st.text("abc.", max_size=3), below, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(overlays, overlays)
def test_keys_are_named_exactly_if_something_differs(
    before: dict[str, object], after: dict[str, object]
) -> None:
    assert bool(changed_keys(before, after)) == (before != after)
