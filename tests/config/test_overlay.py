import copy
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.checking import find_problems, is_section, keys_of, kind_of
from appliance.config.documents import DEEPEST, MOST_PROBLEMS
from appliance.config.loading import parse_config
from appliance.config.overlay import (
    ADMIN_ONLY,
    check_overlay,
    effective,
    merge,
    merge_patch,
    overlay_problems,
    parse_overlay,
    public_view,
    render_overlay,
)
from appliance.config.schema import GatewayConfig, builtins
from appliance.model.errors import AdminOnlyKey, ConfigInvalid

GATEWAY = parse_config(
    """
server: {control_plane_token: "env:CONTROL", admin_keys: [{label: a, hash: "sha256:%s"}]}
providers:
  stub: {dialect: openai, base_url: "http://10.0.0.9:9101/v1", api_key: "env:STUB_KEY"}
models:
  default: stub/mock
  aliases: {fast: stub/mock, smart: stub/large}
  rate_card: {"stub/mock": {input: "1.00", output: "2.00"}}
defaults: {agents: {main: {instructions: be kind}}}
quotas: {requests_per_minute: 600}
sandbox: {binds: ["/srv/tools:/tools"], limits: {pids: 100}}
backup: {store: {url: "s3://bucket/x", secret_key: "file:/run/secret"}}
egress: {allow_private: false}
env: {TOKEN: hidden}
meta: {note: hidden}
"""
    % ("0" * 64),
    name="config.yaml",
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_appendix_a_of_rfc_7396_says(
    target: object, patch: object, result: object
) -> None:
    assert merge_patch(target, patch) == result


_keys = st.sampled_from(["a", "b", "c", "__proto__", "constructor", "models"])
_scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=16,
)
_objects = st.dictionaries(_keys, _json, max_size=5)


def _rfc_7396(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7396 section 2, word for word."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        target = dict(target)
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = _rfc_7396(target.get(name), value)
        return target
    return patch


@given(_json, _json)
def test_the_loop_is_the_recursion_of_the_rfc(target: object, patch: object) -> None:
    assert merge_patch(target, patch) == _rfc_7396(target, patch)


@given(_objects, _objects)
def test_merging_changes_neither_side(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    before = copy.deepcopy((base, overlay))
    merge(base, overlay)
    assert (base, overlay) == before


@given(_objects, _objects)
def test_merging_twice_is_merging_once(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    once = merge(base, overlay)
    assert merge(once, overlay) == once


@given(_objects)
def test_an_empty_overlay_changes_nothing(base: dict[str, Any]) -> None:
    assert merge(base, {}) == base


@given(_objects, _objects)
def test_a_null_removes_and_what_is_not_named_stays(
    base: dict[str, Any], overlay: dict[str, Any]
) -> None:
    merged = merge(base, overlay)
    for key in base.keys() | overlay.keys():
        if key not in overlay:
            assert merged[key] == base[key]
        elif overlay[key] is None:
            assert key not in merged
        elif not isinstance(overlay[key], dict):
            assert merged[key] == overlay[key]  # lists too: replaced, not joined


def test_a_key_called_proto_is_a_key_like_any_other() -> None:
    merged = merge({}, {"__proto__": {"server": {"behind_proxy": True}}})
    assert merged == {"__proto__": {"server": {"behind_proxy": True}}}
    assert "server" not in merged


def test_a_patch_of_any_depth_is_merged_without_recursion() -> None:
    patch: dict[str, Any] = {"a": 1}
    for _ in range(100_000):
        patch = {"a": patch}
    merged = merge_patch({}, patch)
    while isinstance(merged, dict):
        merged = merged.pop("a")
    while isinstance(patch, dict):  # by hand: the interpreter would free it recursively
        patch = patch.pop("a")
    assert merged == 1


def _path(overlay: object, dotted: str) -> object:
    for key in dotted.split("."):
        if not isinstance(overlay, dict) or key not in overlay:
            return None
        overlay = overlay[key]
    return overlay


def _at(key: str, value: object) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("key", ADMIN_ONLY)
@pytest.mark.parametrize("value", [None, {}, 5, {"x": 1}])
@pytest.mark.parametrize("caller_is_admin", [True, False])
def test_a_key_of_the_operator_is_refused_by_name_whoever_asks(
    key: str, value: object, *, caller_is_admin: bool
) -> None:
    with pytest.raises(AdminOnlyKey) as caught:
        check_overlay(_at(key, value), caller_is_admin=caller_is_admin)
    assert key in caught.value.detail
    assert [field.field for field in caught.value.fields] == [key]
    expected = "config.yaml" if caller_is_admin else "ask the operator"
    assert expected in caught.value.fields[0].remedy


def test_the_contract_s_keys_are_the_operator_s() -> None:
    named = {
        "server", "providers", "models.rate_card", "quotas", "sandbox.backend", "sandbox.binds",
        "sandbox.limits", "backup.store", "egress.allow_private", "metrics", "logging", "meta",
        "env",
    }  # fmt: skip
    assert named <= set(ADMIN_ONLY)


def test_every_key_of_the_operator_exists() -> None:
    default = builtins(GatewayConfig())
    for key in ADMIN_ONLY:
        above, _, last = key.rpartition(".")
        assert last in (_path(default, above) if above else default)  # type: ignore[operator] # a mapping


def test_all_admin_only_keys_of_a_request_are_named_at_once() -> None:
    with pytest.raises(AdminOnlyKey, match=r"server, models\.rate_card, quotas"):
        check_overlay(
            {"quotas": {}, "server": {}, "models": {"rate_card": {}}}, caller_is_admin=False
        )


# Anything may stand anywhere: real names, so that it comes close, and real values.
_TENANTS = ["defaults", "default", "aliases", "agents", "main", "model", "max_output_tokens", "x"]
_names = st.sampled_from(
    [*sorted({part for key in ADMIN_ONLY for part in key.split(".")}), *_TENANTS]
)
_near_values = st.recursive(
    _scalars | st.sampled_from(["stub/mock", "fast", 100]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)
_overlays = st.dictionaries(_names, _near_values, max_size=5)


@given(_overlays)
def test_no_overlay_changes_what_is_the_operator_s(overlay: dict[str, Any]) -> None:
    """Also one that never went through the check: edited by hand, or out of an archive."""
    try:
        config = effective(GATEWAY, overlay)
    except ConfigInvalid:
        return
    mine, theirs = builtins(GATEWAY), builtins(config)
    for key in ADMIN_ONLY:
        assert _path(theirs, key) == _path(mine, key)


@given(_overlays)
def test_what_the_check_accepts_takes_effect(overlay: dict[str, Any]) -> None:
    try:
        accepted = check_overlay(overlay, caller_is_admin=False)
    except (ConfigInvalid, AdminOnlyKey):
        return
    assert parse_overlay(render_overlay(accepted), name="x") == accepted
    effective(GATEWAY, accepted)


@pytest.mark.parametrize(
    "overlay",
    [
        {"models": None},
        {"models": {"rate_card": None, "aliases": {"fast": None}}},
        {"sandbox": None, "backup": None, "egress": None},
        {"egress": {"allow_private": True}},
        {"server": None, "env": {"TOKEN": "mine"}},
    ],
)
def test_removing_what_holds_an_admin_only_key_leaves_that_key(overlay: dict[str, Any]) -> None:
    config = effective(GATEWAY, overlay)
    assert config.models.rate_card == GATEWAY.models.rate_card
    assert config.sandbox == GATEWAY.sandbox
    assert config.backup == GATEWAY.backup
    assert config.egress == GATEWAY.egress
    assert config.server == GATEWAY.server
    assert config.env == GATEWAY.env


def test_a_tenant_s_settings_lie_on_top_and_null_takes_one_away() -> None:
    overlay = check_overlay(
        {
            "models": {"default": "smart", "aliases": {"fast": None, "own": "mine/model"}},
            "defaults": {"agents": {"main": {"max_output_tokens": 50}, "poet": {}}},
        },
        caller_is_admin=False,
    )
    config = effective(GATEWAY, overlay)
    assert config.models.default == "smart"
    assert config.models.aliases == {"smart": "stub/large", "own": "mine/model"}
    assert config.defaults.agents["main"].instructions == "be kind"
    assert config.defaults.agents["main"].max_output_tokens == 50
    assert "poet" in config.defaults.agents
    assert config.models.rate_card == GATEWAY.models.rate_card


def test_without_an_overlay_the_gateway_s_config_holds_itself() -> None:
    assert effective(GATEWAY, {}) is GATEWAY


@pytest.mark.parametrize(
    ("overlay", "key", "hint"),
    [
        ({"defalts": {}}, "defalts", "did you mean 'defaults'?"),
        ({"models": {"defualt": "x"}}, "models.defualt", "did you mean 'default'?"),
        ({"models": 5}, "models", "got a number"),
        ({"models": {"max_output_tokens": "1"}}, "models.max_output_tokens", "got text"),
        ({"defaults": {"agents": {"A": {}}}}, "defaults.agents.A", "agent id"),
        ({"__proto__": {"server": {}}}, "__proto__", "unknown key"),
        ({"": 1}, "", "unknown key"),
        ([], "", "expected a mapping"),
        (None, "", "expected a mapping"),
        ("server: {}", "", "expected a mapping"),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused_at_its_key(
    overlay: object, key: str, hint: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        check_overlay(overlay, caller_is_admin=False)
    assert caught.value.fields[0].field == key
    assert hint in caught.value.detail


def test_every_mistake_of_an_overlay_is_reported() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        check_overlay({"defalts": {}, "models": {"defualt": 1}}, caller_is_admin=False)
    assert {field.field for field in caught.value.fields} == {"defalts", "models.defualt"}


def test_a_flood_of_mistakes_costs_no_more_than_a_hundred() -> None:
    """Each suggestion is a search; sixty thousand of them would hold up every tenant."""
    flood: dict[str, Any] = {f"modls{n}": {} for n in range(60_000)}
    with pytest.raises(ConfigInvalid) as caught:
        check_overlay(flood, caller_is_admin=False)
    assert len(caught.value.fields) == MOST_PROBLEMS
    assert "and 80 more" in caught.value.detail


@pytest.mark.parametrize(
    ("overlay", "key"),
    [
        ({"defaults": {"agents": {f"a{n}": {} for n in range(201)}}}, "defaults.agents"),
        ({"models": {"aliases": {f"a{n}": "p/m" for n in range(1001)}}}, "models.aliases"),
        ({"models": {"failover": {"a": ["p/m"] * 17}}}, "models.failover.a"),
    ],
)
def test_a_tenant_s_settings_have_an_end(overlay: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigInvalid, match="holds at most") as caught:
        check_overlay(overlay, caller_is_admin=False)
    assert [field.field for field in caught.value.fields] == [key]


def test_depth_is_refused_however_deep() -> None:
    overlay: dict[str, Any] = {"defaults": {}}
    for _ in range(DEEPEST):
        overlay = {"defaults": overlay}
    with pytest.raises(ConfigInvalid, match="nested more than"):
        check_overlay(overlay, caller_is_admin=False)
    assert any("nested" in p.reason for p in overlay_problems(overlay, path="x"))


def test_an_overlay_that_could_not_be_read_back_is_not_written() -> None:
    long = {"defaults": {"agents": {f"a{n}": {"instructions": "\x01" * 90_000} for n in range(4)}}}
    with pytest.raises(ConfigInvalid, match="larger than"):
        render_overlay(check_overlay(long, caller_is_admin=False))


def test_an_empty_overlay_file_is_an_empty_overlay() -> None:
    assert parse_overlay("", name="x") == {}
    assert parse_overlay("{}\n", name="x") == {}


def test_an_overlay_file_is_refused_with_its_name_and_line() -> None:
    with pytest.raises(ConfigInvalid, match=r"tenants/acme/config\.yaml: line 2: models\.x"):
        parse_overlay("models:\n  x: 1\n", name="tenants/acme/config.yaml")
    with pytest.raises(AdminOnlyKey, match=r"tenants/acme/config\.yaml: only the operator"):
        parse_overlay("server: {}\n", name="tenants/acme/config.yaml")


def test_a_tenant_sees_nothing_of_the_operator_s() -> None:
    view = public_view(effective(GATEWAY, {"models": {"default": "fast"}}))
    text = msgspec.json.encode(view)
    for key in ADMIN_ONLY:
        assert _path(view, key) is None
    for secret in (b"env:", b"file:", b"hidden", b"sha256", b"10.0.0.9", b"/srv/tools", b"bucket"):
        assert secret not in text
    assert view["models"]["default"] == "fast"
    assert view["models"]["aliases"] == {"fast": "stub/mock", "smart": "stub/large"}
    assert list(find_problems(view, GatewayConfig, partial=True)) == []


def test_looking_at_the_public_view_changes_nothing() -> None:
    before = builtins(GATEWAY)
    public_view(GATEWAY)["models"].clear()
    assert builtins(GATEWAY) == before


def test_every_reference_to_a_secret_is_the_operator_s() -> None:
    """An overlay with ``env:…`` in it would read the gateway's own secrets."""
    references = list(_secrets(GatewayConfig))
    assert {"providers.*.api_key", "server.control_plane_token"} <= set(references)
    for path in references:
        assert any(path == key or path.startswith(f"{key}.") for key in ADMIN_ONLY), path


def _secrets(annotation: Any, path: str = "") -> Any:
    kind = kind_of(annotation)
    if kind.extra.get("secret"):
        yield path
    elif is_section(kind.base):
        for key, info in keys_of(kind.base).items():
            yield from _secrets(info.type, f"{path}.{key}" if path else key)
    elif get_origin(kind.base) in {dict, list}:
        yield from _secrets(get_args(kind.base)[-1], f"{path}.*")
