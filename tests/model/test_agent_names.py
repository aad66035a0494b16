"""How requests name agents as models."""

import pytest

from appliance.model.agent_names import agent_of, names_of


@pytest.mark.parametrize("agent", ["main", "helper"])
def test_every_name_of_an_agent_leads_to_it(agent: str) -> None:
    names = names_of(agent)

    assert {agent_of(name) for name in names} == {agent}
    assert len(set(names)) == len(names)


def test_the_default_agent_goes_without_a_name_too() -> None:
    assert names_of("main") == (
        "openclaw", "openclaw:main", "openclaw/main", "openclaw:default", "openclaw/default",
    )  # fmt: skip
    assert names_of("helper") == ("openclaw:helper", "openclaw/helper")
