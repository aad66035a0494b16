"""The rules of tokens: what may be minted, by whom, and what ends with what.

Pure functions from one record of a tenant to the next; ``TenantService`` makes
the change durable.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, NotFound, ScopeMissing
from appliance.model.ids import new_id
from appliance.model.model_patterns import is_within, parse_patterns
from appliance.model.tenants import TenantRecord
from appliance.model.tokens import Scope, TenantToken, TokenRecord

LONGEST_LABEL = 100  # characters
LONGEST_LIFE = timedelta(days=3650)
LONGEST_GRACE = timedelta(days=30)
# Records are read and written whole; this keeps them below 100 kB.
MOST_TOKENS = 200
MOST_SESSIONS = 50  # of browsers; beyond, the oldest is logged out

_TOKEN, _SESSION = "tok", "ses"


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A new token; ``text`` is shown once and kept nowhere."""

    token: TokenRecord
    text: str


def mint(
    tenant: str,
    *,
    label: str,
    scopes: frozenset[Scope],
    now: datetime,
    expires_in: timedelta | None = None,
    models: tuple[str, ...] = (),
) -> MintedToken:
    secret = TenantToken.generate(tenant)
    token = TokenRecord(
        id=new_id(_TOKEN),
        label=label,
        digest=secret.digest(),
        scopes=scopes,
        created_at=now,
        expires_at=None if expires_in is None else now + expires_in,
        models=models,
    )
    return MintedToken(token, secret.text)


def open_session(
    tenant: str,
    *,
    scopes: frozenset[Scope],
    now: datetime,
    expires_at: datetime,
    parent: str | None,
    models: tuple[str, ...] = (),
) -> TokenRecord:
    """The record of a browser session.

    It has the digest of a secret that nobody keeps: what the browser holds is
    our signature on the session's id, so the record alone opens nothing.
    """
    return TokenRecord(
        id=new_id(_SESSION),
        label="browser session",
        digest=TenantToken.generate(tenant).digest(),
        scopes=scopes,
        created_at=now,
        expires_at=expires_at,
        parent=parent,
        models=models,
    )


def is_session(token: TokenRecord) -> bool:
    return token.id.startswith(f"{_SESSION}_")


def with_token(record: TenantRecord, token: TokenRecord, *, now: datetime) -> TenantRecord:
    """``record`` with ``token`` added and without what has expired.

    Raises :exc:`InvalidRequest` if there are too many tokens. A browser session
    takes the place of the oldest one instead: nobody can revoke what logs
    itself in.
    """
    kept = [old for old in record.tokens if old.is_valid(now)]
    alike = [old for old in kept if is_session(old) == is_session(token)]
    if is_session(token):
        for old in alike[: max(0, len(alike) + 1 - MOST_SESSIONS)]:
            kept.remove(old)
    elif len(alike) >= MOST_TOKENS:
        raise InvalidRequest(f"a tenant has at most {MOST_TOKENS} tokens; revoke one first")
    return replace(record, tokens=(*kept, token))


def without_token(record: TenantRecord, token_id: str) -> TenantRecord:
    """``record`` without that token and the browser sessions it opened."""
    ended = family(record, token_id)
    return replace(record, tokens=tuple(t for t in record.tokens if t.id not in ended))


def family(record: TenantRecord, token_id: str) -> frozenset[str]:
    """The ids that end with ``token_id``; raise :exc:`NotFound` if there is no such token."""
    if record.token(token_id) is None:
        raise NotFound("there is no such token")
    ended = {token_id}
    # A session may have opened a session; each comes behind its parent.
    for token in record.tokens:
        if token.parent in ended:
            ended.add(token.id)
    return frozenset(ended)


def rotated(
    record: TenantRecord, token: TokenRecord, *, now: datetime, grace: timedelta
) -> TenantRecord:
    """``record`` with ``token`` alone, or with the others until ``grace`` is over."""
    if not grace:
        return replace(record, tokens=(token,))
    end = now + grace
    others = (
        replace(old, expires_at=end if old.expires_at is None else min(old.expires_at, end))
        for old in record.tokens
        if old.is_valid(now)
    )
    return replace(record, tokens=(*others, token))


def parse_scopes(raw: Iterable[Scope | str], *, field: str = "scopes") -> frozenset[Scope]:
    """Read scopes; raise :exc:`InvalidRequest` for an unknown one, or for none at all."""
    known = ", ".join(Scope)
    try:
        scopes = frozenset(Scope(scope) for scope in raw)
    except ValueError:
        raise InvalidRequest.at(field, "unknown scope", f"scopes are: {known}") from None
    if not scopes:
        raise InvalidRequest.at(field, "names no scope", f"scopes are: {known}")
    return scopes


def require_grantable(caller: Caller, scopes: frozenset[Scope]) -> None:
    """Refuse unless the caller holds what it wants to hand on."""
    missing = sorted(scope for scope in scopes if not caller.may(scope))
    if missing:
        raise ScopeMissing(f"the token cannot grant what it does not have: {', '.join(missing)}")


def grantable_models(caller: Caller, models: Iterable[str]) -> tuple[str, ...]:
    """Read what a new token is to be for; none is what the caller's own is for.

    Raises :exc:`InvalidRequest`, and :exc:`ScopeMissing` for more than the caller's own.
    """
    wanted = parse_patterns(models)
    if not caller.models:
        return wanted
    if not is_within(wanted, caller.models):
        raise ScopeMissing("the token cannot grant models that it is not for itself")
    return wanted or caller.models


def parse_label(label: str, *, field: str = "label", longest: int = LONGEST_LABEL) -> str:
    """Read text that is shown to people, in terminals too."""
    label = label.strip()
    if len(label) > longest:
        raise InvalidRequest.at(field, f"is longer than {longest} characters", "shorten it")
    if not label.isprintable():
        raise InvalidRequest.at(field, "holds what cannot be printed", "use plain text")
    return label


def parse_life(life: timedelta | None, *, field: str = "expires_in") -> timedelta | None:
    if life is not None and not timedelta() < life <= LONGEST_LIFE:
        raise InvalidRequest.at(field, "must be more than nothing and at most ten years", "say 30d")
    return life


def parse_grace(grace: timedelta, *, field: str = "grace") -> timedelta:
    if not timedelta() <= grace <= LONGEST_GRACE:
        raise InvalidRequest.at(field, f"is at most {LONGEST_GRACE.days} days", "say 10m")
    return grace
