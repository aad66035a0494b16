"""Proof that a client holds the Ed25519 key of the device it says it is.

The device's id is the SHA-256 of its public key, so there is nothing to look
up: the client signs who it is, what it asks for and the nonce it was given.
Clients sign one of two texts; the newer one also names the platform.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LONGEST_SKEW = 120_000  # milliseconds between the client's clock and ours

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*={0,2}", re.ASCII)


class DeviceFault(StrEnum):
    """What is wrong with a proof, in the words that clients know."""

    ID_MISMATCH = "device-id-mismatch"
    STALE = "device-signature-stale"
    NONCE_MISSING = "device-nonce-missing"
    NONCE_MISMATCH = "device-nonce-mismatch"
    KEY_INVALID = "device-public-key"
    SIGNATURE_INVALID = "device-signature"


class DeviceRejected(Exception):
    """The proof proves nothing."""

    def __init__(self, reason: DeviceFault) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DeviceProof:
    """``connect.params.device``. ``signed_at`` is in milliseconds since the epoch."""

    id: str
    public_key: str  # base64url
    signature: str = field(repr=False)
    signed_at: int
    nonce: str


def verify(
    proof: DeviceProof,
    *,
    client_id: str,
    client_mode: str,
    role: str,
    scopes: Sequence[str],
    token: str,
    platform: str,
    device_family: str,
    nonce: str,
    now_ms: int,
) -> None:
    """Return if the device signed exactly this; raise :exc:`DeviceRejected` if not.

    ``nonce`` is the one that this connection was given; ``token`` is what the
    client presented, and part of what it signed.
    """
    key = _decode(proof.public_key)
    if key is None or hashlib.sha256(key).hexdigest() != proof.id:
        raise DeviceRejected(DeviceFault.ID_MISMATCH)
    if abs(now_ms - proof.signed_at) > LONGEST_SKEW:
        raise DeviceRejected(DeviceFault.STALE)
    if not proof.nonce:
        raise DeviceRejected(DeviceFault.NONCE_MISSING)
    if not hmac.compare_digest(_bytes(proof.nonce), _bytes(nonce)):
        raise DeviceRejected(DeviceFault.NONCE_MISMATCH)
    try:
        public_key = Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        raise DeviceRejected(DeviceFault.KEY_INVALID) from None
    signature = _decode(proof.signature)
    if signature is None:
        raise DeviceRejected(DeviceFault.SIGNATURE_INVALID)
    parts = (
        proof.id,
        client_id,
        client_mode,
        role,
        ",".join(scopes),
        str(proof.signed_at),
        token,
        nonce,
    )
    # Command lines and the client library sign the third text, browsers the second.
    named = (*parts, _normal(platform), _normal(device_family))
    for text in (("v3", *named), ("v2", *parts)):
        if _is_signed(public_key, signature, _bytes("|".join(text))):
            return
    raise DeviceRejected(DeviceFault.SIGNATURE_INVALID)


def _is_signed(key: Ed25519PublicKey, signature: bytes, text: bytes) -> bool:
    try:
        key.verify(signature, text)
    except InvalidSignature:
        return False
    return True


def _decode(text: str) -> bytes | None:
    """Read base64url with or without its padding; None if it is something else."""
    if _BASE64URL.fullmatch(text) is None:
        return None
    digits = text.rstrip("=")
    if len(digits) % 4 == 1:
        return None
    return base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))


def _normal(text: str) -> str:
    # ASCII only, as the clients do it: "İ" has no lower case that all agree on.
    return _bytes(text.strip()).lower().decode(errors="surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
