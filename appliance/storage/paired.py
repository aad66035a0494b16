"""``devices.json``: what is paired with a tenant, and what asks to be.

One small file, read and replaced whole. Of tokens it holds SHA-256 digests
only. A file that cannot be read is left as it is and never written over:
forgetting a pairing by accident would lock people out, and forgetting that
one was revoked would let somebody in.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from appliance.model.errors import ApplianceError, InvalidRequest, TenantBroken, TooLarge

FILE = "devices.json"
SCHEMA_VERSION = 1
# The oldest release that may still read what we write, as its SCHEMA_VERSION.
COMPAT_VERSION = 1
LARGEST = 4 * 1024 * 1024  # bytes; every cap reached with long names is a fourth of it

MOST_DEVICES = 200
MOST_NODES = 200
MOST_REQUESTS = 100
MOST_TRIGGERS = 32

# As model.tokens.stored_digest writes it.
Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
_Names = tuple[str, ...]


class DeviceTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A device's token for one role. ``parent_token_id`` is the tenant token it ends with."""

    hash: Digest
    scopes: _Names = ()
    created_at_ms: int
    rotated_at_ms: int | None = None
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None
    parent_token_id: str | None = None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """``tokens`` are by role."""

    device_id: str
    public_key: str
    display_name: str | None = None
    platform: str | None = None
    client_id: str | None = None
    client_mode: str | None = None
    roles: _Names = ()
    scopes: _Names = ()
    created_at_ms: int
    approved_at_ms: int
    tokens: Mapping[str, DeviceTokenRecord] = {}
    label: str | None = None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    display_name: str | None = None
    platform: str | None = None
    version: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    caps: _Names = ()
    commands: _Names = ()
    token_hash: Digest | None = None
    created_at_ms: int
    approved_at_ms: int
    last_connected_at_ms: int | None = None


class PairRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks to be paired; ``subject_id`` is the device's or the node's id.

    ``ts`` is when it asked, in milliseconds; how long it may wait is the
    service's business.
    """

    request_id: str
    kind: Literal["device", "node"]
    subject_id: str
    ts: int
    public_key: str | None = None
    display_name: str | None = None
    platform: str | None = None
    version: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    client_id: str | None = None
    client_mode: str | None = None
    role: str | None = None
    roles: _Names = ()
    scopes: _Names = ()
    caps: _Names = ()
    commands: _Names = ()
    remote_ip: str | None = None
    silent: bool = False
    is_repair: bool = False
    parent_token_id: str | None = None  # the tenant token it came with


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """``devices`` and ``nodes`` are by id; ``triggers`` is None where the defaults hold."""

    devices: Mapping[str, Device] = {}
    nodes: Mapping[str, Node] = {}
    requests: tuple[PairRequest, ...] = ()
    triggers: tuple[str, ...] | None = None


class Files(Protocol):
    """The part of a confined directory that is needed here."""

    def read_bytes(self, relative: str, *, limit: int) -> bytes: ...
    def write_atomic(self, relative: str, data: bytes, *, mode: int = 0o600) -> None: ...


class PairedStore:
    """What is paired with one tenant. Methods block: call them in a thread."""

    def __init__(self, root: Files) -> None:
        """``root`` is the tenant's directory."""
        self._root = root

    def load(self) -> Paired:
        """What is stored, nothing where there is no file.

        Raises :exc:`TenantBroken` for a file that cannot be used.
        """
        data = self._read()
        return Paired() if data is None else _parsed(data)

    def save(self, paired: Paired) -> None:
        """Replace all of it; when this returns it is on disk.

        Whatever happens, even a power cut, there is either the old content or
        the new. Raises :exc:`TooLarge` beyond 200 devices, 200 nodes, 100
        requests or 32 triggers, :exc:`DiskFull`, and :exc:`TenantBroken`
        rather than replace a file that cannot be read.
        """
        _require_room(paired)
        before = self._read()
        if before is not None:
            _parsed(before)
        data = _rendered(paired, before=before)
        if len(data) > LARGEST:
            raise TooLarge(f"what is paired exceeds {LARGEST} bytes; remove some", limit=LARGEST)
        self._root.write_atomic(FILE, data)

    def _read(self) -> bytes | None:
        try:
            return self._root.read_bytes(FILE, limit=LARGEST)
        except FileNotFoundError:
            return None
        except ApplianceError as error:
            raise TenantBroken(error.detail) from error
        except OSError as error:
            raise TenantBroken(f"{FILE} cannot be read: {error.strerror}") from error


class _Versions(msgspec.Struct, frozen=True):
    schema_version: int
    compat_version: int


class _Stored(Paired, frozen=True, kw_only=True):
    """The file."""

    schema_version: int = SCHEMA_VERSION
    compat_version: int = COMPAT_VERSION


class _StrictToken(DeviceTokenRecord, frozen=True, forbid_unknown_fields=True):
    pass


class _StrictDevice(Device, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tokens: Mapping[str, _StrictToken] = {}


class _StrictNode(Node, frozen=True, forbid_unknown_fields=True):
    pass


class _StrictRequest(PairRequest, frozen=True, forbid_unknown_fields=True):
    pass


class _Strict(_Stored, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file as this release writes it.

    A key with a damaged name would otherwise be passed over, and a revoked
    token be one that never was.
    """

    devices: Mapping[str, _StrictDevice] = {}
    nodes: Mapping[str, _StrictNode] = {}
    requests: tuple[_StrictRequest, ...] = ()


_check = msgspec.json.Decoder(_Strict).decode
_decode = msgspec.json.Decoder(_Stored).decode
_decode_versions = msgspec.json.Decoder(_Versions).decode
_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _parsed(data: bytes) -> Paired:
    """The content of the file; what a newer release added is passed over."""
    try:
        versions = _decode_versions(data)
        if versions.compat_version > SCHEMA_VERSION:
            raise ValueError("it was written by a newer release that says we may not")
        if versions.schema_version <= SCHEMA_VERSION:
            _check(data)
        stored = _decode(data)
        _require_consistent(stored)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # The text of the file is not quoted: it holds hashes.
        raise TenantBroken(f"{FILE} cannot be used: {error}") from error
    return Paired(
        devices=stored.devices,
        nodes=stored.nodes,
        requests=stored.requests,
        triggers=stored.triggers,
    )


def _rendered(paired: Paired, *, before: bytes | None) -> bytes:
    """The file, for people too; keys of a newer release in ``before`` are kept."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "compat_version": COMPAT_VERSION,
        **{name: getattr(paired, name) for name in Paired.__struct_fields__},
    }
    if before is not None:
        kept = _decode_keys(before)
        newer = _decode_versions(before).schema_version > SCHEMA_VERSION
        content |= {name: kept[name] for name in kept if newer and name not in content}
    try:
        return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
    except UnicodeEncodeError:
        raise InvalidRequest.at(
            "", "a name holds half of a surrogate pair", "send whole characters"
        ) from None


def _require_consistent(paired: Paired) -> None:
    if any(device.device_id != key for key, device in paired.devices.items()):
        raise ValueError("a device stands under another one's id")
    if any(node.node_id != key for key, node in paired.nodes.items()):
        raise ValueError("a node stands under another one's id")


def _require_room(paired: Paired) -> None:
    for number, most, things in (
        (len(paired.devices), MOST_DEVICES, "devices"),
        (len(paired.nodes), MOST_NODES, "nodes"),
        (len(paired.requests), MOST_REQUESTS, "pairing requests"),
        (len(paired.triggers or ()), MOST_TRIGGERS, "wake words"),
    ):
        if number > most:
            raise TooLarge(f"a tenant has at most {most} {things}; remove some", limit=most)
