"""Device tokens: what a device that proved its key may come back with.

A device token reads like a tenant's token and is kept as a digest. It counts
only for its device, for one role, and only as long as the tenant token that
vouched for it: whoever revokes that one ends them all. It never grants more
than that token does.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from appliance.model.callers import ActorKind, Caller
from appliance.model.operator_scopes import OperatorScope, Role, covers, grantable
from appliance.model.tokens import TenantToken, stored_digest
from appliance.services.token_index import Grant
from appliance.storage.paired import Device, DeviceTokenRecord

_NOTHING = stored_digest(bytes(32))


class TenantTokens(Protocol):
    """The part of ``TokenIndex`` that is needed here."""

    def grant(self, tenant: str, token_id: str) -> Grant | None: ...
    def note_use(self, grant: Grant, now: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class IssuedDeviceToken:
    """A new token; ``text`` is shown once and kept nowhere."""

    text: str
    device_id: str
    role: Role
    scopes: tuple[str, ...]
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What a device token grants. ``caller`` lives and dies with the vouching token."""

    caller: Caller
    device_id: str
    role: Role
    scopes: frozenset[OperatorScope]


def mint(
    tenant: str,
    device_id: str,
    role: Role,
    scopes: Iterable[str],
    *,
    parent: str,
    now_ms: int,
    before: DeviceTokenRecord | None = None,
) -> tuple[IssuedDeviceToken, DeviceTokenRecord]:
    """A token for ``device_id`` in ``role``, in the place of ``before``."""
    secret = TenantToken.generate(tenant)
    named = tuple(sorted(scopes))
    record = DeviceTokenRecord(
        hash=stored_digest(secret.digest()),
        scopes=named,
        created_at_ms=now_ms if before is None else before.created_at_ms,
        rotated_at_ms=None if before is None else now_ms,
        parent_token_id=parent,
    )
    return IssuedDeviceToken(secret.text, device_id, role, named, now_ms), record


def vouched(
    tokens: TenantTokens, tenant: str, record: DeviceTokenRecord | None, now: datetime
) -> Grant | None:
    """What the token grants behind which ``record`` stands; None if it ended."""
    if record is None or record.revoked_at_ms is not None or record.parent_token_id is None:
        return None
    parent = tokens.grant(tenant, record.parent_token_id)
    return None if parent is None or parent.is_expired(now) else parent


def includes(held: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether somebody with the scopes ``held`` has all of ``wanted``."""
    have = known(held)
    return all(covers(have, scope) for scope in known(wanted))


def known(names: Iterable[str]) -> frozenset[OperatorScope]:
    """Those of ``names`` that this release has."""
    return frozenset(scope for scope in OperatorScope if scope.value in frozenset(names))


def authenticated(
    tokens: TenantTokens,
    tenant: str,
    text: str,
    *,
    device: Device | None,
    role: Role,
    now: datetime,
    request_id: str,
    ip: str,
) -> DeviceGrant | None:
    """What ``text`` grants to ``device``, which has proved to be itself, in ``role``.

    One answer for every reason why it grants nothing, after the same work.
    """
    parsed = TenantToken.parse(text)
    record = None if device is None else device.tokens.get(role.value)
    digest = _NOTHING if parsed is None else stored_digest(parsed.digest())
    matches = hmac.compare_digest(digest, _NOTHING if record is None else record.hash)
    parent = vouched(tokens, tenant, record, now)
    if parsed is None or parsed.tenant != tenant or not matches:
        return None
    if device is None or record is None or parent is None:
        return None
    tokens.note_use(parent, now)
    caller = Caller(
        ActorKind.TENANT,
        parent.token_id,
        tenant,
        parent.scopes,
        request_id,
        ip,
        models=parent.models,
    )
    held = known(record.scopes)
    scopes = frozenset(scope for scope in grantable(caller) if covers(held, scope))
    return DeviceGrant(caller, device.device_id, role, scopes)
