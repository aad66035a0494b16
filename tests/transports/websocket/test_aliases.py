import json

from appliance.services.events import Event, TenantEvents
from appliance.transports.websocket.aliases import SessionAliases


def chat(session: str, name: str = "chat") -> Event:
    return TenantEvents().publish(name, {"sessionKey": session, "seq": 1}, session=session)


def told(aliases: SessionAliases, event: Event) -> str:
    key: str = json.loads(aliases.spelled(event).payload)["sessionKey"]
    return key


def test_a_session_is_called_what_the_client_called_it() -> None:
    aliases = SessionAliases()
    aliases.note("acme", {"sessionKey": "acp:1"})

    assert told(aliases, chat("agent:main:acp:1")) == "acp:1"
    assert told(aliases, chat("agent:main:main")) == "agent:main:main"
    assert told(aliases, chat("agent:main:acp:1", "agent")) == "agent:main:acp:1"


def test_the_last_name_counts() -> None:
    aliases = SessionAliases()
    aliases.note("acme", {"sessionKey": "acp:1"})
    aliases.note("acme", {"sessionKey": "agent:main:acp:1"})

    assert told(aliases, chat("agent:main:acp:1")) == "agent:main:acp:1"


def test_what_will_be_refused_has_no_name() -> None:
    aliases = SessionAliases()
    refused: list[object] = [None, [], {}, {"sessionKey": 1}]
    for params in [*refused, {"sessionKey": "tenant:other:agent:main:x"}]:
        aliases.note("acme", params)

    assert aliases._names == {}


def test_a_client_cannot_fill_the_memory_with_names() -> None:
    aliases = SessionAliases()
    for number in range(1_000):
        aliases.note("acme", {"sessionKey": f"acp:{number}"})

    assert len(aliases._names) == 64
    assert told(aliases, chat("agent:main:acp:999")) == "acp:999"
