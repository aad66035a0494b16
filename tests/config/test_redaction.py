"""Secrets leave a config that is shown, and come back with it."""

import msgspec
import pytest

from appliance.config.loading import parse_config
from appliance.config.overlay import public_view
from appliance.config.redaction import REDACTED, redacted, restored
from appliance.config.schema import builtins
from appliance.model.errors import ConfigInvalid

CONFIG = """
server: {control_plane_token: "env:CONTROL"}
providers:
  stub: {dialect: openai, api_key: "file:/run/key"}
  local: {dialect: ollama}
models: {default: stub/mock}
backup: {store: {url: "s3://bucket/x", access_key: "cred:a", secret_key: "cred:b"}}
"""


def test_no_reference_to_a_secret_is_shown() -> None:
    config = builtins(parse_config(CONFIG, name="config"))

    shown = msgspec.json.encode(redacted(config)).decode()

    assert "CONTROL" not in shown
    assert "/run/key" not in shown
    assert "cred:" not in shown
    assert shown.count(REDACTED) == 4
    assert redacted(config)["providers"]["local"]["api_key"] is None


def test_what_a_tenant_is_shown_has_no_secret_to_take_out() -> None:
    view = public_view(parse_config(CONFIG, name="config"))

    assert redacted(view) == view


def test_a_mark_becomes_what_is_stored() -> None:
    stored = {"a": {"key": "s1"}, "list": [{"id": "x", "key": "s2"}, {"id": "y", "key": "s3"}]}
    sent = {
        "a": {"key": REDACTED, "more": 1},
        "list": [{"id": "y", "key": REDACTED}, {"id": "x", "key": "new"}],
    }

    assert restored(sent, stored) == {
        "a": {"key": "s1", "more": 1},
        "list": [{"id": "y", "key": "s3"}, {"id": "x", "key": "new"}],
    }


@pytest.mark.parametrize(
    "sent",
    [
        {"b": REDACTED},
        {"a": {"other": REDACTED}},
        {"list": [1, REDACTED]},
        {"list": [{"id": "z", "key": REDACTED}]},
    ],
)
def test_a_mark_with_nothing_behind_it_is_refused(sent: dict[str, object]) -> None:
    with pytest.raises(ConfigInvalid, match="no stored value"):
        restored(sent, {"a": {"key": "s1"}, "list": [REDACTED]})


def test_a_list_without_ids_is_restored_by_place() -> None:
    assert restored([REDACTED, "b"], ["a"]) == ["a", "b"]
