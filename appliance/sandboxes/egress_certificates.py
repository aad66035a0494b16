"""The gateway's own certificate authority, for connections whose requests it must see.

Only sandboxes of this gateway trust it, and only our proxy speaks with its
leaves; a server outside is checked against the system's authorities as ever.
"""

import os
import ssl
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.model.errors import Unavailable

_FILE = "secrets/egress-authority.pem"
_LARGEST = 64 * 1024
_NAME = "OpenClawMU sandbox egress"
_LIFE = timedelta(days=3650)
_RENEWED_BEFORE = timedelta(days=60)  # no sandbox lives that long
_LEAF_LIFE = timedelta(days=7)
_CLOCK_SKEW = timedelta(days=1)
_MOST_LEAVES = 128  # of some 50 KiB each


class AuthorityUnusable(Unavailable):
    code = "egress-authority-unusable"
    title = "The certificate authority of the sandboxes cannot be used"


class SecretFiles(Protocol):
    """The part of the state directory that is needed here."""

    def read_bytes(self, relative: str, *, limit: int) -> bytes: ...
    def write_atomic(self, relative: str, data: bytes, *, mode: int = 0o600) -> None: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authority:
    """Signs certificates for the hosts that rules inspect. Holds its key in memory."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        *,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())  # one for all: it stays in here
        self._contexts: OrderedDict[str, tuple[datetime, ssl.SSLContext]] = OrderedDict()
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def __repr__(self) -> str:
        return "<Authority>"

    @classmethod
    def open(cls, state: SecretFiles, *, clock: Callable[[], datetime] = _utc_now) -> "Authority":
        """Read the one in ``secrets/``, making it where there is none or it is about to expire.

        Blocks. Raises :exc:`AuthorityUnusable` for a damaged one.
        """
        try:
            authority = _read(state.read_bytes(_FILE, limit=_LARGEST), clock)
        except FileNotFoundError:
            authority = None
        if authority is None or authority.expires_at - clock() < _RENEWED_BEFORE:
            authority = cls.generate(clock=clock)
            state.write_atomic(_FILE, authority.private_pem(), mode=0o600)
        return authority

    @classmethod
    def generate(cls, *, clock: Callable[[], datetime] = _utc_now) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(_NAME)
        certificate = (
            _unsigned(name, name, key.public_key(), clock(), _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(_key_id(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate, clock=clock)

    def context(self, host: str) -> ssl.SSLContext:
        """What to speak TLS as ``host`` with, in HTTP/1.1 only. About a millisecond if new."""
        now = self._clock()
        kept = self._contexts.get(host)
        if kept is not None and kept[0] > now:
            self._contexts.move_to_end(host)
            return kept[1]
        context = self._make_context(host, now)
        self._contexts[host] = (now + _LEAF_LIFE / 2, context)
        self._contexts.move_to_end(host)
        if len(self._contexts) > _MOST_LEAVES:
            self._contexts.popitem(last=False)
        return context

    @property
    def expires_at(self) -> datetime:
        return self._certificate.not_valid_after_utc

    def private_pem(self) -> bytes:
        return _key_pem(self._key) + self.pem.encode()

    def _make_context(self, host: str, now: datetime) -> ssl.SSLContext:
        # The name is no longer than a common name may be only sometimes, so it
        # stands in the alternative names alone, which then are critical.
        leaf = (
            _unsigned(
                x509.Name([]),
                self._certificate.subject,
                self._leaf_key.public_key(),
                now,
                _LEAF_LIFE,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_key_id(self._leaf_key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # Nothing is resumed, so no ticket keys live on and no session is kept.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        _load(context, leaf.public_bytes(serialization.Encoding.PEM) + _key_pem(self._leaf_key))
        return context


def _read(pem: bytes, clock: Callable[[], datetime]) -> Authority:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("another kind of key")  # noqa: TRY004 - one error type for one cause
        certificate.verify_directly_issued_by(certificate)
        if certificate.public_key() != key.public_key():
            raise ValueError("the key is not the certificate's")
    except (ValueError, TypeError, InvalidSignature):
        raise AuthorityUnusable(
            f"{_FILE} is damaged; remove it and start again, and a new one is made"
        ) from None
    return Authority(key, certificate, clock=clock)


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """The module takes files only; this one never touches a disk."""
    fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_id(key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
