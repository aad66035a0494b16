"""Device identity: who signed what, and in which order a proof is looked at."""

import base64
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocols.device_identity import (
    LONGEST_SKEW,
    DeviceFault,
    DeviceProof,
    DeviceRejected,
    verify,
)

NOW = 1_737_264_000_000
# The key of RFC 8032 §7.1, test 1; the signatures were made with Node's crypto.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
DEVICE = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"
SIGNED_V3 = "vIntioxQgU4Jfq5SsOZjFVVb50u8biOz-3-X3P2RiQOwMtO27jbVF8OdYce-osjGkJOMX9bNcrMxkvYgRMSMDw"
SIGNED_V2 = "5NqFoJLheTf-RgTZxJ59cOMn4k7R1rVdWStgpJ7LZZ3j-bCYHS-uYtjKGEJtavX2tTxSq1b2EvhdlhQCWOibAw"

PROOF = DeviceProof(DEVICE, PUBLIC, SIGNED_V3, NOW, "nonce-1")
SAID: dict[str, Any] = {
    "client_id": "cli",
    "client_mode": "cli",
    "role": "operator",
    "scopes": ("operator.admin", "operator.read"),
    "token": "tenant:acme:secret",
    "platform": "linux",
    "device_family": "",
    "nonce": "nonce-1",
    "now_ms": NOW,
}


def rejected(proof: DeviceProof, **said: Any) -> DeviceFault:
    with pytest.raises(DeviceRejected) as caught:
        verify(proof, **(SAID | said))
    return caught.value.reason


def sign(text: str) -> str:
    signature = Ed25519PrivateKey.from_private_bytes(SEED).sign(text.encode())
    return base64.urlsafe_b64encode(signature).decode()


@pytest.mark.parametrize("signature", [SIGNED_V3, SIGNED_V2])
def test_both_texts_that_clients_sign_are_accepted(signature: str) -> None:
    verify(replace(PROOF, signature=signature), **SAID)


def test_padding_may_be_there_or_not() -> None:
    verify(replace(PROOF, public_key=PUBLIC + "=", signature=SIGNED_V3 + "=="), **SAID)


def test_platform_and_family_are_signed_trimmed_and_in_lower_case_ascii() -> None:
    text = f"v3|{DEVICE}|cli|cli|operator||{NOW}||nonce-1|macos \u0130|mac"
    said = {
        "scopes": (),
        "token": "",
        "platform": "  MacOS \u0130 ",
        "device_family": "Mac",
    }
    verify(replace(PROOF, signature=sign(text)), **(SAID | said))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("client_id", "cli2"),
        ("client_mode", "ui"),
        ("role", "node"),
        ("scopes", ("operator.admin",)),
        ("scopes", ("operator.read", "operator.admin")),
        ("token", "tenant:other:secret"),
        ("platform", "darwin"),
        ("device_family", "phone"),
    ],
)
def test_whatever_is_claimed_must_be_what_was_signed(name: str, value: object) -> None:
    assert rejected(PROOF, **{name: value}) is DeviceFault.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": DEVICE.upper()}, DeviceFault.ID_MISMATCH),
        ({"id": ""}, DeviceFault.ID_MISMATCH),
        ({"id": "0" * 64}, DeviceFault.ID_MISMATCH),
        ({"public_key": ""}, DeviceFault.ID_MISMATCH),
        ({"public_key": "not base64!"}, DeviceFault.ID_MISMATCH),
        ({"public_key": PUBLIC[:-2]}, DeviceFault.ID_MISMATCH),
        ({"public_key": PUBLIC + "==="}, DeviceFault.ID_MISMATCH),
        ({"signed_at": NOW - LONGEST_SKEW - 1}, DeviceFault.STALE),
        ({"signed_at": NOW + LONGEST_SKEW + 1}, DeviceFault.STALE),
        ({"signed_at": 0}, DeviceFault.STALE),
        ({"nonce": ""}, DeviceFault.NONCE_MISSING),
        ({"nonce": "nonce-2"}, DeviceFault.NONCE_MISMATCH),
        ({"nonce": "nonce-1\udc00"}, DeviceFault.NONCE_MISMATCH),
        ({"signature": ""}, DeviceFault.SIGNATURE_INVALID),
        ({"signature": "!"}, DeviceFault.SIGNATURE_INVALID),
        ({"signature": "A" * 86}, DeviceFault.SIGNATURE_INVALID),
        ({"signature": SIGNED_V3[:-4]}, DeviceFault.SIGNATURE_INVALID),
        ({"signed_at": NOW + 1}, DeviceFault.SIGNATURE_INVALID),
    ],
)
def test_each_fault_is_told_by_its_name(change: dict[str, Any], reason: DeviceFault) -> None:
    assert rejected(replace(PROOF, **change)) is reason


@pytest.mark.parametrize("edge", [-LONGEST_SKEW, LONGEST_SKEW])
def test_two_minutes_of_skew_are_still_fresh(edge: int) -> None:
    verify(PROOF, **(SAID | {"now_ms": NOW + edge}))


def test_a_key_of_another_length_is_no_key_even_if_its_id_is_right() -> None:
    short = b"\1" * 31
    proof = replace(
        PROOF,
        id=hashlib.sha256(short).hexdigest(),
        public_key=base64.urlsafe_b64encode(short).decode(),
    )

    assert rejected(proof) is DeviceFault.KEY_INVALID


def test_the_faults_are_looked_for_in_a_fixed_order() -> None:
    wrong = {
        "id": "x",
        "signed_at": 0,
        "nonce": "other",
        "signature": "",
    }
    seen = []
    for name in list(wrong):
        seen.append(rejected(replace(PROOF, **wrong)))  # type: ignore[arg-type]  # a mixed dict
        del wrong[name]

    assert seen == [
        DeviceFault.ID_MISMATCH,
        DeviceFault.STALE,
        DeviceFault.NONCE_MISMATCH,
        DeviceFault.SIGNATURE_INVALID,
    ]


def test_a_signature_for_one_connection_is_worth_nothing_on_the_next() -> None:
    assert rejected(PROOF, nonce="nonce-of-the-next") is DeviceFault.NONCE_MISMATCH


def test_a_proof_in_a_traceback_does_not_show_its_signature() -> None:
    assert SIGNED_V3 not in repr(PROOF)


anything = st.text(st.characters(exclude_categories=())) | st.text("Aa0_-=", max_size=100)
keys = st.binary(max_size=40)


@given(
    keys,
    st.builds(
        DeviceProof,
        st.just(DEVICE) | anything,
        st.just(PUBLIC) | anything,
        st.just(SIGNED_V3) | anything,
        st.integers(NOW - 5, NOW + 5) | st.integers(),
        st.just("nonce-1") | anything,
    ),
    st.fixed_dictionaries(
        {
            "client_id": anything,
            "client_mode": anything,
            "role": anything,
            "scopes": st.lists(anything),
            "token": anything,
            "platform": anything,
            "device_family": anything,
            "nonce": st.just("nonce-1") | anything,
            "now_ms": st.just(NOW) | st.integers(),
        }
    ),
    st.booleans(),
)
def test_whatever_comes_it_is_rejected_and_nothing_else_is_raised(
    key: bytes,
    proof: DeviceProof,
    said: dict[str, Any],
    match: bool,  # noqa: FBT001 - drawn
) -> None:
    if match:
        public = base64.urlsafe_b64encode(key).decode()
        proof = replace(proof, id=hashlib.sha256(key).hexdigest(), public_key=public)

    with pytest.raises(DeviceRejected):
        verify(proof, **said)
