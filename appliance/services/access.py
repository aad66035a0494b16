"""Who a request comes from: the one place where a credential becomes a ``Caller``.

What an attacker may hold: any text they like, another tenant's token, a token
that was revoked or has expired. What we promise: each of these gets the same
refusal after the same work (one SHA-256, one look-up, one comparison), and no
text, however odd, gets any other answer. What we do not promise: a token that
leaks grants what it grants until somebody revokes it.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

from appliance.model.callers import ActorKind, Caller
from appliance.model.errors import Forbidden, TenantUnknown, TokenRejected
from appliance.model.ids import is_tenant_id
from appliance.model.tokens import Scope, parse_stored_digest
from appliance.services.token_index import Grant, TokenIndex

_LONGEST = 512  # bytes; nothing we issue comes near
_TENANT, _ADMIN = b"tenant", b"admin"
_NOBODY = bytes(32)
_NO_SCOPES: frozenset[Scope] = frozenset()


class AdminKeyHash(Protocol):
    """One entry of ``server.admin_keys``."""

    @property
    def label(self) -> str: ...
    @property
    def hash(self) -> str: ...


class Access:
    """Synchronous and in memory: it runs once for every request."""

    def __init__(
        self, index: TokenIndex, *, cookie_key: bytes, clock: Callable[[], datetime]
    ) -> None:
        self._index = index
        self._cookie_key = cookie_key
        self._clock = clock
        self._admins: dict[bytes, str] = {}  # digest -> label
        self._retired: set[str] = set()  # labels that were taken out of the config

    def use_admin_keys(self, keys: Iterable[AdminKeyHash]) -> None:
        """Accept exactly ``keys`` from now on. Raises ``ValueError`` for a hash that is none."""
        admins = {parse_stored_digest(key.hash): key.label for key in keys}
        self._retired |= set(self._admins.values())
        self._retired -= set(admins.values())
        self._admins = admins

    # One SHA-256 and two dictionary look-ups, 3 µs: parsing the text with
    # expressions first would double that, and proves nothing that finding the
    # digest of a secret of ours does not.
    def authenticate(
        self,
        bearer: str | bytes | None,
        *,
        acting_for: str | None = None,
        request_id: str = "",
        ip: str = "",
    ) -> Caller:
        """Return who holds ``bearer``.

        ``acting_for`` is the tenant an admin speaks for (``X-OpenClaw-Tenant``).
        Raises ``TokenRejected`` for whatever grants nothing, ``Forbidden`` if a
        tenant's token is used for another tenant.
        """
        kind, tenant, secret = _split(bearer)
        digest = hashlib.sha256(secret).digest()
        if kind == _ADMIN:
            return self._admin(digest, acting_for, request_id, ip)
        key = tenant + digest
        grant = self._index.find(key)
        # The dictionary finds, the comparison decides; neither can be steered
        # by somebody who does not know a secret, as both see its hash only.
        matches = hmac.compare_digest(digest, _NOBODY if grant is None else grant.key[-32:])
        if kind != _TENANT or grant is None or not matches:
            raise TokenRejected
        if acting_for is not None and acting_for != grant.tenant:
            self._accept(grant)
            raise Forbidden("the token belongs to another tenant than X-OpenClaw-Tenant names")
        return self._caller(grant, request_id, ip)

    def authenticate_cookie(self, value: str, *, request_id: str = "", ip: str = "") -> Caller:
        """Return whose browser session ``value`` is; raises ``TokenRejected``."""
        statement, _, signature = value[:_LONGEST].rpartition(".")
        expected = self._sign(statement)
        matches = hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), expected)
        _, tenant, session = (*statement.split(".", 2), "", "")[:3]
        grant = self._index.grant(tenant, session)
        if not matches or grant is None:
            raise TokenRejected
        return self._caller(grant, request_id, ip)

    def cookie(self, tenant: str, session: str) -> str:
        """The cookie that stands for the browser session ``session`` of ``tenant``.

        It only names a record of the tenant. Revoking that record, or the
        tenant, ends the session; no secret is in the browser but our signature.
        """
        statement = f"v1.{tenant}.{session}"
        return f"{statement}.{self._sign(statement).decode()}"

    def is_live(self, caller: Caller) -> bool:
        """Whether the credential that made ``caller`` still grants anything.

        Work that outlasts its first look (a stream, a socket, a body that was
        read slowly) asks again.
        """
        if caller.kind is ActorKind.TENANT:
            grant = self._index.grant(caller.tenant or "", caller.credential)
            return grant is not None and not grant.is_expired(self._clock())
        return caller.credential not in self._retired

    def _admin(self, digest: bytes, acting_for: str | None, request_id: str, ip: str) -> Caller:
        label = None
        for known, name in self._admins.items():
            if hmac.compare_digest(known, digest):
                label = name
        if label is None:
            raise TokenRejected
        if acting_for is None:
            return Caller(ActorKind.ADMIN, label, None, request_id=request_id, ip=ip)
        if not is_tenant_id(acting_for):
            raise TenantUnknown("there is no tenant of the name in X-OpenClaw-Tenant")
        kind = ActorKind.ADMIN_ON_BEHALF
        return Caller(kind, label, acting_for, request_id=request_id, ip=ip)

    def _caller(self, grant: Grant, request_id: str, ip: str) -> Caller:
        self._accept(grant)
        return Caller(
            ActorKind.TENANT,
            grant.token_id,
            grant.tenant,
            grant.scopes,
            request_id,
            ip,
            models=grant.models,
        )

    def _accept(self, grant: Grant) -> None:
        now = self._clock()
        if grant.expires_at is not None and grant.expires_at <= now:
            raise TokenRejected
        self._index.note_use(grant, now)

    def _sign(self, statement: str) -> bytes:
        message = statement.encode("utf-8", "surrogatepass")
        mac = hmac.digest(self._cookie_key, message, "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=")


def _split(bearer: str | bytes | None) -> tuple[bytes, bytes, bytes]:
    """The kind, the tenant and the secret that ``bearer`` claims; empty where it claims none."""
    if isinstance(bearer, str):
        bearer = bearer[: _LONGEST + 1].encode("utf-8", "surrogatepass")
    if not bearer or len(bearer) > _LONGEST:
        return b"", b"", b""
    kind, _, rest = bearer.partition(b":")
    if kind == _ADMIN:  # an operator's own key may hold a colon
        return kind, b"", rest
    tenant, _, secret = rest.partition(b":")
    return kind, tenant, secret
