"""The handshake: what clients of every age send, what they get, and how they are refused."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.model.operator_scopes import Role
from appliance.protocols import handshake_refusals as refusals
from appliance.protocols.connect import (
    AttachmentPolicy,
    Challenge,
    ConnectInvalid,
    Credentials,
    Features,
    HelloAuth,
    HelloOk,
    Policy,
    Resume,
    Resumed,
    Server,
    SessionDefaults,
    Snapshot,
    SnapshotVersion,
    negotiate,
    read_connect,
)
from appliance.protocols.device_identity import DeviceFault, DeviceProof

CLI_V4: dict[str, Any] = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "cli", "version": "2026.9.6", "platform": "linux", "mode": "cli"},
    "role": "operator",
    "scopes": ["operator.read"],
    "caps": [],
    "auth": {"token": "tenant:acme:secret"},
}
CLI_V3: dict[str, Any] = {
    "minProtocol": 3,
    "maxProtocol": 3,
    "client": {
        "id": "cli",
        "displayName": "laptop",
        "version": "2026.2.26",
        "platform": "linux",
        "mode": "cli",
        "instanceId": "i-1",
    },
    "pathEnv": "/usr/bin",
    "caps": [],
    "role": "operator",
    "scopes": ["operator.admin", "operator.read", "operator.write"],
    "device": {
        "id": "d" * 64,
        "publicKey": "k",
        "signature": "s",
        "signedAt": 1_737_264_000_000,
        "nonce": "n",
    },
    "auth": {"token": "tenant:acme:secret"},
    "locale": "en_US",
    "userAgent": "node",
}
CONTROL_UI_V4 = CLI_V4 | {
    "client": {
        "id": "openclaw-control-ui",
        "version": "control-ui",
        "platform": "Linux x86_64",
        "mode": "webchat",
        "buildId": "abc",
        "timeZone": "Europe/Berlin",
    },
    "caps": ["tool-events", "model-catalog-snapshot"],
    "auth": {"token": "tenant:acme:secret", "password": "tenant:acme:secret"},
    "modelCatalog": {"sessionKey": "agent:main:main"},
    "computerUse": True,
}
NODE: dict[str, Any] = {
    "minProtocol": 3,
    "maxProtocol": 4,
    "client": {"id": "node-host", "version": "1", "platform": "linux", "mode": "node"},
    "role": "node",
    "commands": ["system.run", "system.which"],
    "permissions": {"camera": True, "screen": False},
    "auth": {"deviceToken": "dt", "bootstrapToken": "bt"},
}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def refused(params: object, *, strict_client: bool = True) -> ConnectInvalid:
    with pytest.raises(ConnectInvalid) as caught:
        read_connect(params, strict_client=strict_client)
    return caught.value


def changed(path: str, value: object) -> dict[str, Any]:
    params: dict[str, Any] = json.loads(json.dumps(CLI_V3))
    *above, name = path.removeprefix("/").split("/")
    inner = params
    for each in above:
        inner = inner.setdefault(each, {})
    inner[name] = value
    return params


@pytest.mark.parametrize("params", [CLI_V3, CLI_V4, CONTROL_UI_V4, NODE])
def test_what_the_real_clients_send_is_read(params: dict[str, Any]) -> None:
    request = read_connect(params, strict_client=True)

    assert request.client.id == params["client"]["id"]
    assert request.client.mode == params["client"]["mode"]
    assert request.role == params["role"]
    assert request.protocol == params["maxProtocol"]
    assert list(request.scopes) == params.get("scopes", [])


def test_every_field_arrives() -> None:
    request = read_connect(CLI_V3, strict_client=True)

    assert request.client.display_name == "laptop"
    assert request.client.instance_id == "i-1"
    assert request.client.platform == "linux"
    assert request.device == DeviceProof("d" * 64, "k", "s", 1_737_264_000_000, "n")
    assert (request.locale, request.user_agent) == ("en_US", "node")

    node = read_connect(NODE, strict_client=True)
    assert node.role is Role.NODE
    assert node.commands == ("system.run", "system.which")
    assert dict(node.permissions) == {"camera": True, "screen": False}
    assert node.device is None


def test_what_we_do_not_know_is_passed_over_at_every_level() -> None:
    params = CLI_V3 | {
        "zzz": {"deep": [1]},
        "client": CLI_V3["client"] | {"zzz": 1},
        "auth": {"token": "t", "approvalRuntimeToken": 7},
        "device": CLI_V3["device"] | {"zzz": None},
        "pathEnv": 17,
    }

    assert read_connect(params, strict_client=True).client.id == "cli"


def test_null_is_the_same_as_nothing() -> None:
    params = CLI_V4 | dict.fromkeys(
        ["role", "scopes", "caps", "device", "auth", "locale", "permissions", "resume"]
    )
    request = read_connect(params, strict_client=True)

    assert request.role is Role.OPERATOR
    assert request.scopes == ()
    assert request.auth == Credentials()


@pytest.mark.parametrize("params", [None, {}, {"auth": {"token": "t"}}, {"client": {}}])
def test_a_json_rpc_caller_need_not_name_itself(params: object) -> None:
    request = read_connect(params, strict_client=False)

    assert (request.client.id, request.client.mode) == ("json-rpc", "backend")
    assert request.protocol == 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (None, "must be object"),
        ([], "must be object"),
        ("x", "must be object"),
        ({}, "must have required property 'minProtocol'"),
        ({"minProtocol": 4}, "must have required property 'maxProtocol'"),
        ({"minProtocol": 4, "maxProtocol": 4}, "must have required property 'client'"),
        (changed("/client", []), "at /client: must be object"),
        (changed("/client", {}), "at /client: must have required property 'id'"),
        (changed("/client/id", 3), "at /client/id: must be string"),
        (changed("/client/id", ""), "at /client/id: must have 1 to 64 printable characters"),
        (changed("/client/id", "a\u200bb"), "at /client/id: must have 1 to 64 printable"),
        (changed("/client/id", "x" * 65), "at /client/id: must NOT have more than 64 characters"),
        (changed("/client/mode", None), "at /client: must have required property 'mode'"),
        (changed("/client/version", {}), "at /client/version: must be string"),
        (changed("/client/platform", "x" * 257), "at /client/platform: must NOT have more than"),
        (changed("/client/displayName", "a\nb"), "at /client/displayName: must NOT have control"),
        (changed("/minProtocol", "4"), "at /minProtocol: must be integer"),
        (CLI_V3 | {"minProtocol": True}, "at /minProtocol: must be integer"),
        (changed("/minProtocol", 3.5), "at /minProtocol: must be integer"),
        (changed("/minProtocol", 0), "at /minProtocol: must be >= 1"),
        (changed("/maxProtocol", 2**60), "at /maxProtocol: must be integer"),
        (changed("/scopes", "operator.read"), "at /scopes: must be array"),
        (changed("/scopes", ["a", 1]), "at /scopes/1: must be string"),
        (changed("/caps", ["a"] * 513), "at /caps: must NOT have more than 512 items"),
        (changed("/commands", ["x" * 257]), "at /commands/0: must NOT have more than 256"),
        (changed("/permissions", [1]), "at /permissions: must be object"),
        (changed("/permissions", {"camera": 1}), "at /permissions/camera: must be boolean"),
        (changed("/auth", "token"), "at /auth: must be object"),
        (changed("/auth/token", 1), "at /auth/token: must be string"),
        (changed("/auth/password", "x" * 8193), "at /auth/password: must NOT have more than 8192"),
        (changed("/device", "x"), "at /device: must be object"),
        (changed("/device", {}), "at /device: must have required property 'id'"),
        (changed("/device/signedAt", "now"), "at /device/signedAt: must be integer"),
        (changed("/device/signedAt", -1), "at /device/signedAt: must be >= 0"),
        (changed("/locale", 1), "at /locale: must be string"),
        (changed("/userAgent", "x" * 1025), "at /userAgent: must NOT have more than 1024"),
        (changed("/resume", {"connId": "c"}), "at /resume: must have required property 'seq'"),
        (changed("/resume", {"connId": "c", "seq": -1}), "at /resume/seq: must be >= 0"),
    ],
)
def test_a_wrong_type_or_size_is_refused_by_its_path(params: object, message: str) -> None:
    assert str(refused(params)).startswith(f"invalid connect params: {message}")


@pytest.mark.parametrize("role", ["admin", "", "Operator", "worker"])
def test_only_operators_and_nodes_connect(role: str) -> None:
    found = refused(CLI_V4 | {"role": role})

    assert str(found) == "invalid role"
    assert found.path == "/role"


@given(values, st.booleans())
def test_whatever_comes_as_params_is_read_or_refused(
    params: object,
    strict: bool,  # noqa: FBT001 - drawn
) -> None:
    with suppress(ConnectInvalid):
        read_connect(params, strict_client=strict)


PLACES = ["/minProtocol", "/client", "/client/id", "/role", "/scopes", "/caps", "/commands"]
PLACES += ["/permissions", "/auth", "/auth/token", "/device", "/device/signedAt", "/resume"]


@given(st.sampled_from(PLACES), values)
def test_whatever_stands_in_one_place_is_read_or_refused(path: str, value: object) -> None:
    found = None
    try:
        read_connect(changed(path, value), strict_client=True)
    except ConnectInvalid as exc:
        found = exc

    if found is not None:
        assert found.path.startswith(path.rpartition("/")[0])
        assert refusals.invalid_params(found).message == str(found)


@pytest.mark.parametrize(
    ("least", "most", "agreed"),
    [(3, 3, 3), (4, 4, 4), (3, 4, 4), (1, 9, 4), (1, 3, 3), (4, 7, 4), (1, 2, None), (5, 9, None)],
)
def test_the_newest_protocol_of_both_is_spoken(least: int, most: int, agreed: int | None) -> None:
    assert negotiate(least, most) == agreed


def test_a_range_upside_down_meets_nothing() -> None:
    assert negotiate(4, 3) is None


@pytest.mark.parametrize(
    ("auth", "tokens"),
    [
        ({}, ()),
        ({"token": ""}, ()),
        ({"token": "a"}, ("a",)),
        ({"token": "a", "password": "tenant:x:y", "deviceToken": "d"}, ("a", "tenant:x:y", "d")),
        ({"password": "admin:key"}, ("admin:key",)),
        ({"password": "correct horse"}, ()),
        ({"token": "tenant:x:y", "password": "tenant:x:y"}, ("tenant:x:y",)),
        ({"bootstrapToken": "b"}, ()),
    ],
)
def test_a_token_is_looked_for_wherever_clients_put_it(
    auth: dict[str, str], tokens: tuple[str, ...]
) -> None:
    assert read_connect({"auth": auth}, strict_client=False).tokens == tokens


@pytest.mark.parametrize(
    ("auth", "signed"),
    [
        ({}, ""),
        ({"password": "tenant:x:y"}, ""),
        ({"token": "", "deviceToken": "d"}, ""),
        ({"deviceToken": "d", "bootstrapToken": "b"}, "d"),
        ({"bootstrapToken": "b"}, "b"),
        ({"token": "t", "deviceToken": "d"}, "t"),
    ],
)
def test_a_device_signs_the_first_token_that_was_sent(auth: dict[str, str], signed: str) -> None:
    assert read_connect({"auth": auth}, strict_client=False).signed_token == signed


def test_no_secret_shows_in_a_traceback() -> None:
    auth = {"token": "tok-1", "password": "pw-1", "deviceToken": "dev-1", "bootstrapToken": "bt-1"}
    shown = repr(read_connect({"auth": auth}, strict_client=False))

    assert not any(secret in shown for secret in auth.values())


def test_a_client_may_ask_for_what_it_missed() -> None:
    request = read_connect({"resume": {"connId": "c-1", "seq": 7}}, strict_client=False)

    assert request.resume == Resume("c-1", 7)


HELLO = HelloOk(
    protocol=4,
    server=Server(version="1.0", conn_id="c-1"),
    features=Features(methods=["health"], events=["tick"]),
    snapshot=Snapshot(
        presence=[],
        health=msgspec.Raw(b'{"ok":true}'),
        state_version=SnapshotVersion(presence=1, health=2),
        uptime_ms=5,
        session_defaults=SessionDefaults(
            default_agent_id="main",
            main_key="main",
            main_session_key="agent:main:main",
            scope="per-sender",
        ),
    ),
    auth=HelloAuth(role="operator", scopes=["operator.read"]),
    policy=Policy(max_payload=1, max_buffered_bytes=2, tick_interval_ms=30_000),
)


def test_hello_has_what_both_generations_demand_and_nothing_unset() -> None:
    assert json.loads(msgspec.json.encode(HELLO)) == {
        "type": "hello-ok",
        "protocol": 4,
        "server": {"version": "1.0", "connId": "c-1"},
        "features": {"methods": ["health"], "events": ["tick"]},
        "snapshot": {
            "presence": [],
            "health": {"ok": True},
            "stateVersion": {"presence": 1, "health": 2},
            "uptimeMs": 5,
            "sessionDefaults": {
                "defaultAgentId": "main",
                "mainKey": "main",
                "mainSessionKey": "agent:main:main",
                "scope": "per-sender",
            },
        },
        "auth": {"role": "operator", "scopes": ["operator.read"]},
        "policy": {"maxPayload": 1, "maxBufferedBytes": 2, "tickIntervalMs": 30_000},
    }


def test_hello_tells_the_rest_where_there_is_any() -> None:
    hello = msgspec.structs.replace(
        HELLO,
        auth=HelloAuth(role="node", scopes=[], device_token="d", issued_at_ms=9),
        features=Features(methods=[], events=[], capabilities=["published-model-catalog"]),
        policy=Policy(
            max_payload=1,
            max_buffered_bytes=2,
            tick_interval_ms=3,
            attachments=AttachmentPolicy(max_bytes=4, max_image_bytes=5),
        ),
        resume=Resumed(conn_id="c-0"),
    )
    sent = json.loads(msgspec.json.encode(hello))

    assert sent["auth"]["deviceToken"] == "d"
    assert sent["auth"]["issuedAtMs"] == 9
    assert sent["features"]["capabilities"] == ["published-model-catalog"]
    assert sent["policy"]["attachments"] == {"maxBytes": 4, "maxImageBytes": 5}
    assert sent["resume"] == {"connId": "c-0"}


def test_the_challenge_has_a_nonce_and_the_time() -> None:
    assert msgspec.json.encode(Challenge(nonce="n", ts=7)) == b'{"nonce":"n","ts":7}'
    assert json.loads(msgspec.json.encode(Challenge(nonce="n", ts=7, capabilities=["x"]))) == {
        "nonce": "n",
        "ts": 7,
        "capabilities": ["x"],
    }


# Refusals


REFUSALS = [
    refusals.token_mismatch(3),
    refusals.token_mismatch(4, has_unused_device=True),
    refusals.device_token_mismatch(3),
    refusals.device_token_mismatch(4),
    refusals.token_missing(3),
    refusals.token_missing(4),
    refusals.device_required(),
    *(refusals.device_rejected(fault, protocol) for fault in DeviceFault for protocol in (3, 4)),
    refusals.pairing_required("req-1", protocol=3),
    refusals.pairing_required("req-1", reason="scope-upgrade", protocol=4),
    refusals.protocol_mismatch(1, 2),
    refusals.invalid_params(ConnectInvalid("/client/id", "must be string")),
    refusals.invalid_params(ConnectInvalid("", "\N{SNOWMAN}" * 200)),
    refusals.not_connect(),
    refusals.origin_not_allowed(3),
    refusals.origin_not_allowed(4),
    refusals.rate_limited(12.5, 4),
    refusals.too_many_connections(10),
    refusals.shutting_down(),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.message[:40])
def test_every_reason_fits_a_close_frame_and_is_the_message(
    refusal: refusals.HandshakeRefusal,
) -> None:
    assert 0 < len(refusal.close_reason.encode()) <= 123
    assert refusal.message.startswith(refusal.close_reason)
    assert json.loads(msgspec.json.encode(refusal.error.members()))["code"] == refusal.code


@pytest.mark.parametrize(
    ("refusal", "code", "message", "details", "close"),
    [
        (
            refusals.token_mismatch(3),
            "INVALID_REQUEST",
            "unauthorized: gateway token mismatch (",
            {"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch"},
            1008,
        ),
        (
            refusals.token_mismatch(4),
            "INVALID_REQUEST",
            "unauthorized: gateway token mismatch (",
            {
                "code": "AUTH_TOKEN_MISMATCH",
                "authReason": "token_mismatch",
                "canRetryWithDeviceToken": False,
                "recommendedNextStep": "update_auth_credentials",
            },
            1008,
        ),
        (
            refusals.token_missing(3),
            "INVALID_REQUEST",
            "unauthorized: gateway token missing (",
            {"code": "AUTH_TOKEN_MISSING", "authReason": "token_missing"},
            1008,
        ),
        (
            refusals.device_required(),
            "NOT_PAIRED",
            "device identity required",
            {"code": "DEVICE_IDENTITY_REQUIRED"},
            1008,
        ),
        (
            refusals.device_rejected(DeviceFault.STALE, 3),
            "INVALID_REQUEST",
            "device signature expired",
            {"code": "DEVICE_AUTH_INVALID", "reason": "device-signature-stale"},
            1008,
        ),
        (
            refusals.device_rejected(DeviceFault.STALE, 4),
            "INVALID_REQUEST",
            "device signature expired",
            {"code": "DEVICE_AUTH_SIGNATURE_EXPIRED", "reason": "device-signature-stale"},
            1008,
        ),
        (
            refusals.protocol_mismatch(1, 2),
            "INVALID_REQUEST",
            "protocol mismatch",
            {
                "code": "PROTOCOL_MISMATCH",
                "clientMinProtocol": 1,
                "clientMaxProtocol": 2,
                "expectedProtocol": 3,
                "minimumProbeProtocol": 3,
            },
            1002,
        ),
        (
            refusals.not_connect(),
            "INVALID_REQUEST",
            "invalid handshake: first request must be connect",
            None,
            1008,
        ),
        (refusals.origin_not_allowed(3), "INVALID_REQUEST", "origin not allowed (", None, 1008),
        (
            refusals.origin_not_allowed(4),
            "INVALID_REQUEST",
            "origin not allowed (",
            {"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED"},
            1008,
        ),
        (
            refusals.pairing_required("req-1", protocol=3),
            "NOT_PAIRED",
            "pairing required",
            {"code": "PAIRING_REQUIRED", "requestId": "req-1", "reason": "not-paired"},
            1008,
        ),
        (refusals.shutting_down(), "UNAVAILABLE", "service restart", None, 1012),
    ],
)
def test_each_generation_reads_the_words_it_knows(
    refusal: refusals.HandshakeRefusal,
    code: str,
    message: str,
    details: dict[str, Any] | None,
    close: int,
) -> None:
    assert refusal.code == code
    assert refusal.message.startswith(message)
    assert refusal.details == details
    assert refusal.close_code == close


def test_a_newer_client_reads_our_newest_protocol_in_the_mismatch() -> None:
    details = refusals.protocol_mismatch(5, 9).details

    assert details is not None
    assert details["expectedProtocol"] == 4


def test_whoever_must_wait_is_told_how_long() -> None:
    limited = refusals.rate_limited(12.5, 4)
    assert (limited.error.retryable, limited.error.retry_after_ms) == (True, 12_500)

    crowded = refusals.too_many_connections(10)
    assert (crowded.close_code, crowded.error.retry_after_ms) == (1013, 5_000)


def test_a_device_is_sent_to_its_own_token_only_if_it_may_have_one() -> None:
    details = refusals.token_mismatch(4, has_unused_device=True).details

    assert details is not None
    assert details["canRetryWithDeviceToken"] is True
    assert details["recommendedNextStep"] == "retry_with_device_token"


def test_a_long_reason_is_cut_between_characters() -> None:
    assert refusals.clip_reason("ä" * 100) == "ä" * 61


def test_requests_are_values() -> None:
    request = read_connect(CLI_V4, strict_client=True)

    assert request == read_connect(CLI_V4, strict_client=True)
    assert replace(request, locale="de") != request
