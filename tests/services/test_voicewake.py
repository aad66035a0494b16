"""The words that wake devices: durable, told to all of one tenant."""

import pytest

from appliance.model.errors import AuditUnavailable, InvalidRequest
from appliance.services.events import Audience
from appliance.services.voicewake import DEFAULT_TRIGGERS, VoiceWake
from tests.fakes.awake import FakeAwake, someone
from tests.services.tenancy import Tenancy

OWNER = someone("acme")


@pytest.fixture
def voicewake(tenancy: Tenancy) -> VoiceWake:
    return VoiceWake(audit=tenancy.audit)


async def _tenant(tenancy: Tenancy, name: str = "acme") -> FakeAwake:
    await tenancy.make(name)
    return FakeAwake(tenancy.state.tenant_root(name))


async def test_words_are_kept_and_told_to_their_tenant(
    voicewake: VoiceWake, tenancy: Tenancy
) -> None:
    tenant, other = await _tenant(tenancy), await _tenant(tenancy, "other")

    assert await voicewake.set(tenant, OWNER, [" hey ", "hey", "", "ho"]) == ("hey", "ho")

    assert await voicewake.triggers(tenant.asleep_and_awake()) == ("hey", "ho")
    assert tenant.heard("voicewake.changed") == [{"triggers": ["hey", "ho"]}]
    assert tenant.told[0].audience is Audience.EVERYONE
    assert await voicewake.triggers(other) == DEFAULT_TRIGGERS
    assert other.told == []


async def test_no_words_are_the_usual_ones(voicewake: VoiceWake, tenancy: Tenancy) -> None:
    tenant = await _tenant(tenancy)
    await voicewake.set(tenant, OWNER, ["hey"])

    assert await voicewake.set(tenant, OWNER, [" "]) == DEFAULT_TRIGGERS
    assert await voicewake.triggers(tenant.asleep_and_awake()) == DEFAULT_TRIGGERS


@pytest.mark.parametrize("words", [["x" * 65], [f"w{n}" for n in range(33)], ["a\nb"]])
async def test_too_many_or_too_long_words_are_refused(
    voicewake: VoiceWake, tenancy: Tenancy, words: list[str]
) -> None:
    with pytest.raises(InvalidRequest, match="triggers"):
        await voicewake.set(await _tenant(tenancy), OWNER, words)


async def test_words_that_cannot_be_audited_are_not_changed(
    voicewake: VoiceWake, tenancy: Tenancy
) -> None:
    tenant = await _tenant(tenancy)
    tenancy.audit.broken = True

    with pytest.raises(AuditUnavailable):
        await voicewake.set(tenant, OWNER, ["hey"])

    assert await voicewake.triggers(tenant) == DEFAULT_TRIGGERS
    assert tenant.told == []
