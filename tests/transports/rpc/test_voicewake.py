"""The shapes of ``voicewake.*``."""

from types import SimpleNamespace

import pytest

from appliance.model.errors import InvalidRequest
from appliance.services.voicewake import DEFAULT_TRIGGERS, VoiceWake
from appliance.transports.rpc.voicewake import METHODS
from tests.fakes.awake import FakeAwake, FakeClient, someone
from tests.services.tenancy import Tenancy
from tests.transports.rpc.method_calls import Methods


async def test_words_are_shown_and_chosen(tenancy: Tenancy) -> None:
    await tenancy.make()
    tenant = FakeAwake(tenancy.state.tenant_root("acme"))
    client = FakeClient("c1", someone("acme"))
    methods = Methods(METHODS, SimpleNamespace(voicewake=VoiceWake(audit=tenancy.audit)))

    assert await methods.call(tenant, client, "voicewake.get") == {
        "triggers": list(DEFAULT_TRIGGERS)
    }
    words = {"triggers": ["hey"]}
    assert await methods.call(tenant, client, "voicewake.set", words) == words
    assert await methods.call(tenant, client, "voicewake.get") == words
    with pytest.raises(InvalidRequest, match=r"invalid voicewake\.set params"):
        await methods.call(tenant, client, "voicewake.set", {"triggers": ["x"] * 33})
