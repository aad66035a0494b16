"""The certificate authority that sandboxes trust."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from appliance.sandboxes.egress_certificates import Authority, AuthorityUnusable
from appliance.storage.state import StateDirectory

NOW = datetime.now(UTC)


def state(path: Path) -> StateDirectory:
    return StateDirectory.open(path / "state")


def served(authority: Authority, host: str, *, trust: Authority | None = None) -> x509.Certificate:
    """The certificate that a client which trusts ``trust`` accepts for ``host``."""
    context = ssl.create_default_context(cadata=(trust or authority).pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(inward, outward, server_hostname=host)
    server = authority.context(host).wrap_bio(outward, inward, server_side=True)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


@pytest.mark.parametrize("host", ["api.example.org", f"{'a' * 60}.{'b' * 60}.example.org"])
def test_a_leaf_is_for_its_host_alone(host: str) -> None:
    leaf = served(Authority.generate(), host)

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host]
    assert leaf.not_valid_after_utc - NOW < timedelta(days=8)


def test_whoever_trusts_another_gateway_trusts_no_leaf_of_this_one() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        served(Authority.generate(), "a.example", trust=Authority.generate())


def test_it_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    with state(tmp_path) as directory:
        first = Authority.open(directory)
        again = Authority.open(directory)

    kept = tmp_path / "state" / "secrets" / "egress-authority.pem"
    assert first.pem == again.pem
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "PRIVATE" in kept.read_text()
    assert "PRIVATE" not in first.pem
    assert "PRIVATE" not in repr(first)
    served(again, "a.example", trust=first)


def test_it_is_renewed_before_it_expires(tmp_path: Path) -> None:
    with state(tmp_path) as directory:
        first = Authority.open(directory)
        later = Authority.open(directory, clock=lambda: NOW + timedelta(days=3600))

    assert first.pem != later.pem


@pytest.mark.parametrize("damage", [b"", b"not a key", None])
def test_a_damaged_one_is_an_error_with_a_remedy(tmp_path: Path, damage: bytes | None) -> None:
    with state(tmp_path) as directory:
        if damage is None:  # another's certificate beside our key
            damage = Authority.generate().private_pem().partition(b"-----BEGIN CERT")[0]
            damage += Authority.generate().pem.encode()
        directory.write_atomic("secrets/egress-authority.pem", damage)
        with pytest.raises(AuthorityUnusable, match="remove it"):
            Authority.open(directory)


def test_leaves_are_kept_but_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.sandboxes.egress_certificates._MOST_LEAVES", 2)
    authority = Authority.generate()
    first = authority.context("a.example")

    assert authority.context("a.example") is first
    authority.context("b.example")
    authority.context("c.example")
    assert authority.context("a.example") is not first


def test_a_leaf_is_made_again_before_it_expires() -> None:
    now = [NOW]
    authority = Authority.generate(clock=lambda: now[0])
    first = authority.context("a.example")
    now[0] += timedelta(days=4)

    assert authority.context("a.example") is not first
