"""Does this installation carry what it needs, and does that work on this machine?

``doctor`` asks, and so does the test of the frozen executable: there a library
can be left out, stripped too far or not find its data, and nobody would notice
before the first tenant that needs it.
"""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from appliance.services import price_list
from appliance.storage.beneath import choose_opener, open_with_openat2

# AES-256-GCM, test case 14 of the cipher's specification: one zero block.
_ZERO_KEY: Final = bytes(32)
_ZERO_NONCE: Final = bytes(12)
_ZERO_BLOCK: Final = bytes(16)
_SEALED: Final = bytes.fromhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")


class Check(NamedTuple):
    name: str
    ok: bool
    detail: str


def self_test() -> list[Check]:
    """Try everything once. Takes a tenth of a second, touches no state and never raises."""
    return [_tried(name, check) for name, check in CHECKS]


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, ok=True, detail=check())
    except Exception as failure:  # noqa: BLE001 - whatever a library does here is the finding
        return Check(name, ok=False, detail=f"{type(failure).__name__}: {failure}")


def _load(name: str) -> ModuleType:
    # By name: a library that does not load is a finding, not a failure to start.
    return importlib.import_module(name)


def _sqlite() -> str:
    apsw = _load("apsw")
    return f"SQLite {apsw.sqlite_lib_version()}"


def _vectors() -> str:
    """Load the extension and search once, as memory does."""
    apsw = _load("apsw")
    spec = importlib.util.find_spec("sqlite_vec")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("sqlite_vec is not installed")
    connection = apsw.Connection(":memory:")
    try:
        connection.enable_load_extension(True)  # noqa: FBT003 - positional in apsw
        connection.load_extension(str(Path(spec.origin).with_name("vec0")))
        connection.execute("CREATE VIRTUAL TABLE near USING vec0(place float[2])")
        connection.execute("INSERT INTO near(rowid, place) VALUES (1, '[0, 0]'), (2, '[3, 4]')")
        row = connection.execute(
            "SELECT rowid, vec_version() FROM near WHERE place MATCH '[3, 3]' AND k = 1"
        ).fetchall()[0]
    finally:
        connection.close()
    if row[0] != 2:
        raise ValueError("the nearest of two vectors was not found")
    return f"sqlite-vec {row[1]}"


def _encryption() -> str:
    aead = _load("cryptography.hazmat.primitives.ciphers.aead")
    if aead.AESGCM(_ZERO_KEY).encrypt(_ZERO_NONCE, _ZERO_BLOCK, None) != _SEALED:
        raise ValueError("AES-256-GCM gives a wrong answer")
    return "AES-256-GCM"


def _containment() -> str:
    if choose_opener() is open_with_openat2:
        return "openat2"
    return "openat2 is not available here; paths are walked step by step"


def _embedded_models() -> str:
    return f"xllamacpp {_load('xllamacpp').__version__}"


def _prices() -> str:
    return f"a price list in {price_list.currency()}"


CHECKS: Final[tuple[tuple[str, Callable[[], str]], ...]] = (
    ("database", _sqlite),
    ("vector search", _vectors),
    ("encryption", _encryption),
    ("path containment", _containment),
    ("embedded models", _embedded_models),
    ("prices", _prices),
)
