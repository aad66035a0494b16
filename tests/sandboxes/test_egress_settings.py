"""What the config says becomes what the proxy goes by."""

from appliance.config.loading import parse_config
from appliance.model.egress import HostPattern, Injection
from appliance.sandboxes.egress_settings import EgressSettings

CONFIG = """
egress:
  only: ["*.example.org"]
  max_connections: 5
  max_bytes: 1000
  idle_timeout: 7
  allow:
    - {host: "api.example.org", methods: [get], credential: {name: openai}, max_bytes: 9}
    - {host: "*.example.org", ports: [443, 8443]}
    - {host: "elsewhere.net"}
"""


def test_rules_are_read_within_the_operators_bound() -> None:
    settings = EgressSettings.of(parse_config(CONFIG, name="test").egress)

    first, second = settings.rules.rules
    assert (first.host, first.ports) == (HostPattern("api.example.org"), frozenset({443}))
    assert (first.methods, first.max_bytes) == (frozenset({"GET"}), 9)
    assert first.injection == Injection("openai", "authorization", "Bearer ")
    assert second.host == HostPattern("*.example.org")
    assert (second.ports, second.injection) == (frozenset({443, 8443}), None)
    assert (settings.max_connections, settings.max_bytes, settings.idle_timeout) == (5, 1000, 7)


def test_nothing_is_allowed_by_default() -> None:
    settings = EgressSettings.of(parse_config("meta: {}", name="test").egress)

    assert settings.rules.is_empty
    assert not settings.allow_private
    assert settings.credentials("any") is None
