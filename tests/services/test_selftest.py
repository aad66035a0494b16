"""The self-test passes here, and finds what is missing elsewhere."""

import sys

import pytest

from appliance.services import selftest


def test_everything_the_gateway_needs_works_on_this_machine() -> None:
    checks = selftest.self_test()

    assert [check.name for check in checks if not check.ok] == []
    assert {"database", "vector search", "encryption", "embedded models"} <= {
        check.name for check in checks
    }
    assert all(check.detail for check in checks)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("apsw", "database"),
        ("cryptography.hazmat.primitives.ciphers.aead", "encryption"),
        ("xllamacpp", "embedded models"),
    ],
)
def test_a_library_that_does_not_load_is_a_finding_and_not_a_failure(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    checks = {check.name: check for check in selftest.self_test()}

    assert not checks[name].ok
    assert module in checks[name].detail


def test_a_kernel_without_openat2_is_named_and_not_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selftest, "choose_opener", lambda: None)

    checks = {check.name: check for check in selftest.self_test()}

    assert checks["path containment"].ok
    assert "openat2 is not available" in checks["path containment"].detail
