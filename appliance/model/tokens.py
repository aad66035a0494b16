"""Bearer tokens: their text, what they grant, and what is kept of them.

A tenant token reads ``tenant:<id>:<secret>``, an admin key ``admin:<secret>``;
the secret is 32 random bytes in base64url. Only its SHA-256 is ever stored.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from appliance.model.ids import is_tenant_id

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# The operator may choose an admin key (OPENCLAW_ADMIN_KEY), so only its length is bounded.
_ADMIN_SECRET = re.compile(r"[\x21-\x7e]{8,256}", re.ASCII)
_STORED = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_LONGEST = 512  # characters; nothing we issue comes near


class Scope(StrEnum):
    """What a token may be used for. ``full`` covers the others."""

    FULL = "full"
    CHAT = "chat"  # model calls, own sessions
    READ = "read"  # look at everything of the tenant, change nothing
    TERMINAL = "terminal"  # open and use terminals
    MANAGE = "manage"  # config, tokens, cron, channels


@dataclass(frozen=True, slots=True)
class TenantToken:
    """A well-formed tenant token; whether it grants anything is another question."""

    tenant: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> "TenantToken | None":
        if len(text) > _LONGEST or not text.startswith("tenant:"):
            return None
        _, tenant, secret = (*text.split(":", 2), "", "")[:3]
        if not is_tenant_id(tenant) or _SECRET.fullmatch(secret) is None:
            return None
        return cls(tenant, secret)

    @classmethod
    def generate(cls, tenant: str) -> "TenantToken":
        return cls(tenant, secrets.token_urlsafe(32))

    @property
    def text(self) -> str:
        return f"tenant:{self.tenant}:{self.secret}"

    def digest(self) -> bytes:
        return digest(self.secret)


@dataclass(frozen=True, slots=True)
class AdminKey:
    secret: str

    @classmethod
    def parse(cls, text: str) -> "AdminKey | None":
        if len(text) > _LONGEST or not text.startswith("admin:"):
            return None
        secret = text.removeprefix("admin:")
        return cls(secret) if _ADMIN_SECRET.fullmatch(secret) else None

    @classmethod
    def generate(cls) -> "AdminKey":
        return cls(secrets.token_urlsafe(32))

    @property
    def text(self) -> str:
        return f"admin:{self.secret}"

    def digest(self) -> bytes:
        return digest(self.secret)


# The secret is 256 random bits, so one fast hash is enough. A password chosen
# by a person would need a slow one.
def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def stored_digest(value: bytes) -> str:
    """How a digest reads in ``tenant.json`` and ``config.yaml``."""
    return f"sha256:{value.hex()}"


def parse_stored_digest(text: str) -> bytes:
    """The opposite of :func:`stored_digest`; raise :exc:`ValueError` for anything else."""
    # A pattern, because bytes.fromhex reads past spaces and so returns less.
    if _STORED.fullmatch(text) is None:
        raise ValueError("a hash reads sha256:<64 hex digits>")
    return bytes.fromhex(text.removeprefix("sha256:"))


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token. ``expires_at`` and the others are aware, UTC.

    A browser session is kept like a token; ``parent`` is the token whose
    ticket opened it, and it ends with that one. ``models`` are patterns of what
    it may ask; none: any model.
    """

    id: str
    label: str
    digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    parent: str | None = None
    models: tuple[str, ...] = ()

    def is_valid(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at
