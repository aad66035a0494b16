"""Which secret grants what: every valid token of every tenant, in memory.

Ten thousand tenants sleep with their token in here, so an entry is a few
hundred bytes and not a parsed record.
"""

from collections.abc import Iterator
from datetime import datetime

from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TokenRecord


class Grant:
    """What one token grants.

    ``key`` is the tenant's id followed by the digest of the secret: a secret
    counts for the tenant it was made for, even if somebody copies a tenant's
    directory under a second name.
    """

    __slots__ = ("expires_at", "key", "last_used_at", "models", "scopes", "tenant", "token_id")

    def __init__(self, tenant: str, token: TokenRecord, scopes: frozenset[Scope]) -> None:
        self.key = tenant.encode() + token.digest
        self.tenant = tenant
        self.token_id = token.id
        self.scopes = scopes
        self.models = token.models
        self.expires_at = token.expires_at
        self.last_used_at = token.last_used_at

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class TokenIndex:
    """The tokens of enabled tenants. A disabled tenant has none: its tokens are unknown."""

    def __init__(self) -> None:
        self._grants: dict[bytes, Grant] = {}
        self._tenants: dict[str, tuple[Grant, ...]] = {}
        self._scopes: dict[frozenset[Scope], frozenset[Scope]] = {}
        self._used: set[str] = set()

    def __contains__(self, tenant: str) -> bool:
        """Whether ``tenant`` is known and enabled."""
        return tenant in self._tenants

    def __len__(self) -> int:
        return len(self._grants)

    @property
    def tenant_count(self) -> int:
        return len(self._tenants)

    def put(self, record: TenantRecord) -> None:
        """Let the tokens of ``record``, and no others of this tenant, grant something."""
        before = {grant.token_id: grant for grant in self._tenants.get(record.id, ())}
        self.drop(record.id)
        if record.disabled:
            return
        grants = tuple(self._grant(record.id, token) for token in record.tokens)
        for grant in grants:
            known = before.get(grant.token_id)
            if known is not None:
                grant.last_used_at = later(known.last_used_at, grant.last_used_at)
            self._grants[grant.key] = grant
        self._tenants[record.id] = grants

    def drop(self, tenant: str) -> None:
        """Let nothing of ``tenant`` grant anything."""
        for grant in self._tenants.pop(tenant, ()):
            self._grants.pop(grant.key, None)

    def drop_tokens(self, tenant: str, token_ids: frozenset[str]) -> None:
        """Let these tokens of ``tenant`` grant nothing."""
        grants = self._tenants.get(tenant)
        if grants is None:
            return
        for grant in grants:
            if grant.token_id in token_ids:
                self._grants.pop(grant.key, None)
        self._tenants[tenant] = tuple(g for g in grants if g.token_id not in token_ids)

    def find(self, key: bytes) -> Grant | None:
        return self._grants.get(key)

    def grant(self, tenant: str, token_id: str) -> Grant | None:
        for grant in self._tenants.get(tenant, ()):
            if grant.token_id == token_id:
                return grant
        return None

    def grants(self, tenant: str) -> Iterator[Grant]:
        yield from self._tenants.get(tenant, ())

    def note_use(self, grant: Grant, now: datetime) -> None:
        grant.last_used_at = now
        self._used.add(grant.tenant)

    def used(self) -> frozenset[str]:
        """The tenants that used a token since :meth:`forget_use`."""
        return frozenset(self._used)

    def forget_use(self, tenant: str) -> None:
        self._used.discard(tenant)

    def _grant(self, tenant: str, token: TokenRecord) -> Grant:
        # Thousands of tokens share a handful of scope sets.
        return Grant(tenant, token, self._scopes.setdefault(token.scopes, token.scopes))


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two moments, either of which may be missing."""
    if one is None or other is None:
        return one or other
    return max(one, other)
