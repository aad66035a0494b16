"""How conversations are kept, as far as a tenant may say."""

from typing import Any

import pytest

from appliance.config.loading import parse_config
from appliance.config.overlay import check_overlay, effective
from appliance.config.schema import GatewayConfig
from appliance.model.errors import AdminOnlyKey, ConfigInvalid


def session(**settings: Any) -> dict[str, Any]:
    return {"defaults": {"session": settings}}


@pytest.mark.parametrize(
    "settings",
    [
        {"timezone": "Europe/Berlin"},
        {"timezone": None},
        {"main_key": "home"},
        {"identity_links": {"anna": ["telegram:123", "discord:9:8"]}},
        {"reset": {"mode": "idle", "idle_minutes": 30}},
        {"reset": {"at_hour": None}},
        {"reset_by_type": {"group": {"mode": "off"}}},
        {"reset_by_channel": {"telegram": {"at_hour": 0}}},
        {"reset_triggers": ["/new", "/fresh"]},
        {"send_policy": {"rules": [{"action": "deny", "match": {"channel": "irc"}}]}},
        {"queue": {"mode": "steer", "by_channel": {"irc": "collect"}}},
        {"compaction": {"enabled": False}},
        {"history_tokens": 9},
        {"agent_timeout": 0},
    ],
)
def test_a_tenant_sets_how_its_conversations_are_kept(settings: dict[str, Any]) -> None:
    overlay = check_overlay(session(**settings), caller_is_admin=False)

    effective(GatewayConfig(), overlay)


@pytest.mark.parametrize(
    "settings",
    [
        {"timezone": "Europe"},
        {"timezone": "../../etc/passwd"},
        {"timezone": "Mars/Olympus"},
        {"timezone": "a" * 5_000},
        {"main_key": "agent"},
        {"main_key": "a:b"},
        {"identity_links": {"anna": ["telegram"]}},
        {"reset": {"mode": "weekly"}},
        {"reset": {"at_hour": 24}},
        {"reset_triggers": ["new"]},
        {"reset_triggers": ["/two words"]},
        {"send_policy": {"rules": [{"match": {}}]}},
        {"queue": {"cap": 0}},
        {"agent_timeout": -1},
        {"dm_scope": "per-planet"},
    ],
)
def test_what_makes_no_sense_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        check_overlay(session(**settings), caller_is_admin=False)

    assert caught.value.fields[0].field.startswith("defaults.session.")


@pytest.mark.parametrize(
    "avatar",
    ["https://example.org/a.png", "avatars/me.png", "data:image/png;base64,iVBORw0KGgo="],
)
def test_an_agent_has_a_picture(avatar: str) -> None:
    check_overlay({"defaults": {"agents": {"x": {"avatar": avatar}}}}, caller_is_admin=False)


@pytest.mark.parametrize(
    "avatar",
    ["javascript:alert(1)", "data:text/html;base64,AAAA", "../x.png", "/etc/passwd", "a" * 600, ""],
)
def test_a_picture_is_nothing_that_runs_or_leads_out(avatar: str) -> None:
    with pytest.raises(ConfigInvalid, match="avatar"):
        check_overlay({"defaults": {"agents": {"x": {"avatar": avatar}}}}, caller_is_admin=False)


def test_limits_of_connections_are_the_operators() -> None:
    config = parse_config("server: {websocket: {login_lockout: 0}}", name="config")

    assert config.server.websocket.login_lockout == 0
    assert config.server.websocket.max_frame_bytes == 26_214_400
    with pytest.raises(AdminOnlyKey, match="server"):
        check_overlay({"server": {"websocket": {"max_in_flight": 1}}}, caller_is_admin=False)
