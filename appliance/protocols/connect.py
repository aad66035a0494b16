"""The handshake of a Gateway connection: what ``connect`` says and ``hello-ok`` answers.

What a client says of itself is read leniently, because clients of every age
come: members that we do not know are passed over at every level, ``null`` is
the same as nothing. What we use must have the right type and a sane size.
How a connection is refused: :mod:`~appliance.protocols.handshake_refusals`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from appliance.model.operator_scopes import Role
from appliance.protocols.device_identity import DeviceProof

PROTOCOLS = (3, 4)

_LONGEST_NAME = 64  # of a client's id and mode
_LONGEST_TEXT = 256
_LONGEST_USER_AGENT = 1024
_LONGEST_TOKEN = 8192  # what is longer cannot be one of ours
_MOST_NAMES = 512  # in one list
_LARGEST = 2**53  # what every client can count to
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNNAMED = "json-rpc"


def negotiate(least: int, most: int) -> int | None:
    """The newest protocol that both sides speak."""
    return max((each for each in PROTOCOLS if least <= each <= most), default=None)


class ConnectInvalid(Exception):
    """The params of ``connect`` cannot be used; the text is what the client is told."""

    def __init__(self, path: str, reason: str, *, message: str = "") -> None:
        where = f"at {path}: " if path else ""
        super().__init__(message or f"invalid connect params: {where}{reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedClient:
    """What a client says of itself; nothing in here is proven."""

    id: str
    mode: str
    version: str = ""
    platform: str = ""
    display_name: str = ""
    device_family: str = ""
    model_identifier: str = ""
    instance_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """None is what the client left out: an empty text is signed, nothing is not."""

    token: str | None = field(default=None, repr=False)
    device_token: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    bootstrap_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Resume:
    """An earlier connection, and the last event that the client had from it."""

    conn_id: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    min_protocol: int
    max_protocol: int
    client: ClaimedClient
    role: Role
    scopes: tuple[str, ...]
    caps: tuple[str, ...]
    commands: tuple[str, ...]
    permissions: Mapping[str, bool]
    auth: Credentials
    device: DeviceProof | None
    resume: Resume | None
    locale: str
    user_agent: str

    @property
    def protocol(self) -> int | None:
        return negotiate(self.min_protocol, self.max_protocol)

    @property
    def tokens(self) -> tuple[str, ...]:
        """What may be a bearer token of ours, the likeliest first."""
        password = self.auth.password or ""
        # A password field may hold a password of the user's; only what looks
        # like a token is anything to us.
        if not password.startswith(("tenant:", "admin:")):
            password = ""
        presented = (self.auth.token, password, self.auth.device_token)
        return tuple(dict.fromkeys(text for text in presented if text))

    @property
    def signed_token(self) -> str:
        """The token that is part of what a device signs."""
        auth = self.auth
        for text in (auth.token, auth.device_token, auth.bootstrap_token):
            if text is not None:
                return text
        return ""


def read_connect(params: object, *, strict_client: bool) -> ConnectRequest:
    """Read the params of ``connect``. Raises :exc:`ConnectInvalid` naming the path.

    With ``strict_client`` the client must name itself and its protocols, as
    OpenClaw's schema wants it; JSON-RPC callers need not.
    """
    if params is None and not strict_client:
        params = {}
    members = _Members(params, "")
    if strict_client:
        members.need("minProtocol", "maxProtocol", "client")
    newest = PROTOCOLS[-1]
    return ConnectRequest(
        min_protocol=members.integer("minProtocol", least=1, absent=newest),
        max_protocol=members.integer("maxProtocol", least=1, absent=newest),
        client=_read_client(members.inner("client"), strict=strict_client),
        role=_read_role(members.text("role")),
        scopes=members.texts("scopes"),
        caps=members.texts("caps"),
        commands=members.texts("commands"),
        permissions=members.flags("permissions"),
        auth=_read_auth(members.inner("auth")),
        device=_read_device(members.inner("device")),
        resume=_read_resume(members.inner("resume")),
        locale=members.text("locale") or "",
        user_agent=members.text("userAgent", longest=_LONGEST_USER_AGENT) or "",
    )


def _read_client(members: "_Members | None", *, strict: bool) -> ClaimedClient:
    if members is None:
        return ClaimedClient(id=_UNNAMED, mode="backend")
    if strict:
        members.need("id", "version", "platform", "mode")
    return ClaimedClient(
        id=members.name("id") or _UNNAMED,
        mode=members.name("mode") or "backend",
        version=members.text("version") or "",
        platform=members.text("platform") or "",
        display_name=members.text("displayName") or "",
        device_family=members.text("deviceFamily") or "",
        model_identifier=members.text("modelIdentifier") or "",
        instance_id=members.text("instanceId") or "",
    )


def _read_role(text: str | None) -> Role:
    if text is None:
        return Role.OPERATOR
    try:
        return Role(text)
    except ValueError:
        raise ConnectInvalid("/role", "invalid role", message="invalid role") from None


def _read_auth(members: "_Members | None") -> Credentials:
    if members is None:
        return Credentials()
    return Credentials(
        token=members.secret("token"),
        device_token=members.secret("deviceToken"),
        password=members.secret("password"),
        bootstrap_token=members.secret("bootstrapToken"),
    )


def _read_device(members: "_Members | None") -> DeviceProof | None:
    if members is None:
        return None
    members.need("id", "publicKey", "signature", "signedAt")
    return DeviceProof(
        id=members.text("id") or "",
        public_key=members.text("publicKey") or "",
        signature=members.text("signature") or "",
        signed_at=members.integer("signedAt", least=0),
        nonce=members.text("nonce") or "",  # whoever checks the proof says what is missing
    )


def _read_resume(members: "_Members | None") -> Resume | None:
    if members is None:
        return None
    members.need("connId", "seq")
    return Resume(members.text("connId") or "", members.integer("seq", least=0))


class _Members:
    """The members of one object, and where it stands in the params."""

    def __init__(self, value: object, path: str) -> None:
        if type(value) is not dict:
            raise ConnectInvalid(path, "must be object")
        self.members: dict[str, object] = value
        self.path = path

    def need(self, *names: str) -> None:
        for name in names:
            if self.members.get(name) is None:
                raise ConnectInvalid(self.path, f"must have required property '{name}'")

    def text(self, name: str, *, longest: int = _LONGEST_TEXT) -> str | None:
        value = self.members.get(name)
        return None if value is None else _text(value, f"{self.path}/{name}", longest)

    def name(self, name: str) -> str | None:
        text = self.text(name, longest=_LONGEST_NAME)
        if text is not None and not (text and text.isprintable()):
            reason = f"must have 1 to {_LONGEST_NAME} printable characters"
            raise ConnectInvalid(f"{self.path}/{name}", reason)
        return text

    def secret(self, name: str) -> str | None:
        """A text of which only the length is checked: any other fault is a wrong token's."""
        value = self.members.get(name)
        if value is None:
            return None
        return _sized_text(value, f"{self.path}/{name}", _LONGEST_TOKEN)

    def integer(self, name: str, *, least: int, absent: int = 0) -> int:
        value = self.members.get(name)
        path = f"{self.path}/{name}"
        if value is None:
            return absent
        if type(value) is float and value.is_integer():
            value = int(value)  # 4.0 is the same number to the clients' language
        if type(value) is not int or value > _LARGEST:
            raise ConnectInvalid(path, "must be integer")
        if value < least:
            raise ConnectInvalid(path, f"must be >= {least}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.members.get(name)
        path = f"{self.path}/{name}"
        if value is None:
            return ()
        if type(value) is not list:
            raise ConnectInvalid(path, "must be array")
        if len(value) > _MOST_NAMES:
            raise ConnectInvalid(path, f"must NOT have more than {_MOST_NAMES} items")
        return tuple(
            _text(each, f"{path}/{place}", _LONGEST_TEXT) for place, each in enumerate(value)
        )

    def flags(self, name: str) -> Mapping[str, bool]:
        inner = self.inner(name)
        if inner is None:
            return MappingProxyType({})
        path = inner.path
        if len(inner.members) > _MOST_NAMES:
            raise ConnectInvalid(path, f"must NOT have more than {_MOST_NAMES} properties")
        flags: dict[str, bool] = {}
        for key, value in inner.members.items():
            _text(key, path, _LONGEST_TEXT)
            if type(value) is not bool:
                raise ConnectInvalid(f"{path}/{key}", "must be boolean")
            flags[key] = value
        return MappingProxyType(flags)

    def inner(self, name: str) -> "_Members | None":
        value = self.members.get(name)
        return None if value is None else _Members(value, f"{self.path}/{name}")


def _text(value: object, path: str, longest: int) -> str:
    text = _sized_text(value, path, longest)
    if _CONTROL.search(text) is not None:
        raise ConnectInvalid(path, "must NOT have control characters")
    return text


def _sized_text(value: object, path: str, longest: int) -> str:
    if type(value) is not str:
        raise ConnectInvalid(path, "must be string")
    if len(value) > longest:
        raise ConnectInvalid(path, f"must NOT have more than {longest} characters")
    return value


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of what we say in the handshake; what is unset is left out."""


class Challenge(_Wire, frozen=True):
    """The payload of ``connect.challenge``. ``ts`` is milliseconds since the epoch."""

    nonce: str
    ts: int
    capabilities: Sequence[str] | UnsetType = UNSET


class Server(_Wire, frozen=True):
    version: str
    conn_id: str


class Features(_Wire, frozen=True):
    methods: Sequence[str]
    events: Sequence[str]
    capabilities: Sequence[str] | UnsetType = UNSET


class SnapshotVersion(_Wire, frozen=True):
    presence: int
    health: int


class SessionDefaults(_Wire, frozen=True):
    default_agent_id: str
    main_key: str
    main_session_key: str
    scope: str  # per-sender or global


class Snapshot(_Wire, frozen=True):
    """``presence`` and ``health`` may be :class:`msgspec.Raw`. No path of ours belongs here."""

    presence: Any
    health: Any
    state_version: SnapshotVersion
    uptime_ms: int
    session_defaults: SessionDefaults | UnsetType = UNSET
    auth_mode: str | UnsetType = UNSET


class HelloAuth(_Wire, frozen=True):
    """What the connection may do; the token, if the client's device was given one."""

    role: str
    scopes: Sequence[str]
    device_token: str | UnsetType = UNSET
    issued_at_ms: int | UnsetType = UNSET


class AttachmentPolicy(_Wire, frozen=True):
    max_bytes: int
    max_image_bytes: int


class Policy(_Wire, frozen=True):
    max_payload: int
    max_buffered_bytes: int
    tick_interval_ms: int
    attachments: AttachmentPolicy | UnsetType = UNSET


class Resumed(_Wire, frozen=True):
    """The connection whose missed events follow."""

    conn_id: str


class HelloOk(_Wire, frozen=True, tag_field="type", tag="hello-ok"):
    """The answer to ``connect`` of both protocol generations.

    The older one knows ``auth`` only with a device token in it, but its clients
    read no more than they need; the newer one demands it.
    """

    protocol: int
    server: Server
    features: Features
    snapshot: Snapshot
    auth: HelloAuth
    policy: Policy
    resume: Resumed | UnsetType = UNSET
