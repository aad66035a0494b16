"""A line of the audit log, and what makes a chain of them.

``hash`` is the SHA-256 of the line's other fields written as JSON with sorted
keys and no spaces; one of these fields is ``prev``, the hash of the line
before. So a line can be neither changed, removed nor moved without the chain
breaking there, and anybody can check it with ``jq`` and ``sha256sum``.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from appliance.model.callers import ActorKind

GENESIS = "0" * 64
"""The ``prev`` of the very first line."""

# No floats: they have more than one spelling, and a hash knows only one.
Detail: TypeAlias = "str | int | bool | list[Detail] | dict[str, Detail] | None"

_LONGEST_TEXT = 500  # characters of one value
_MOST_ITEMS = 50
_DEEPEST = 4
_HIDDEN = "[hidden]"

_SECRET_NAME = re.compile(
    r"(^|_)(passwords?|passwd|passphrase|secrets?|authorization|cookies?|api_?keys?|private_?key"
    r"|credentials?|token|bearer|hash|digest|signature)$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SECRET_TEXT = re.compile(
    r"tenant:[^\s:]{1,64}:[\w-]{20,}|admin:\S{8,}|ticket_[\w-]{20,}"  # ours
    r"|\bBearer\s+\S+|\b(sk|pk|rk|xox[a-z]|gh[a-z]|glpat|AKIA)[-_A-Z0-9][\w-]{8,}"  # others'
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a JWT
    r"|://[^/\s:@]+:[^/\s@]+@"  # a password in a URL
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Result(StrEnum):
    OK = "ok"
    FAILED = "failed"  # ``details.of`` is the seq of the line that announced it
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Actor:
    kind: ActorKind
    id: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line, its fields in the order in which they are written."""

    ts: datetime
    seq: int
    actor: Actor
    tenant: str | None
    action: str
    target: str
    result: Result
    ip: str
    request_id: str
    details: Mapping[str, Detail]
    prev: str = ""
    hash: str = ""

    def for_tenant(self) -> "AuditEntry":
        """What the tenant itself may see of a line about it.

        Where the operator works from is not its business; and the numbers
        would tell how much happens to the other tenants.
        """
        ip = self.ip if self.actor.kind is ActorKind.TENANT else ""
        return replace(self, seq=0, ip=ip, prev="", hash="")


def chain_hash(canonical: bytes) -> str:
    """The ``hash`` of the line whose other fields, in canonical form, are ``canonical``."""
    return hashlib.sha256(canonical).hexdigest()


def clean_text(text: str) -> str:
    """``text`` as it may stand in the log: no secret, no control character, not endless."""
    cut = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return _CONTROL.sub("\ufffd", _SECRET_TEXT.sub(_HIDDEN, cut))


def clean_details(details: Mapping[str, object]) -> dict[str, Detail]:
    """``details`` without secrets, known by the name they go under or by their shape."""
    return _clean_mapping(details, 0)


def _clean_mapping(details: Mapping[str, object], depth: int) -> dict[str, Detail]:
    return {
        clean_text(name): _HIDDEN if _names_a_secret(name) else _clean(value, depth)
        for name, value in list(details.items())[:_MOST_ITEMS]
    }


def _clean(value: object, depth: int) -> Detail:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return _clean_mapping({str(name): below for name, below in value.items()}, depth + 1)
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_clean(item, depth + 1) for item in list(items)[:_MOST_ITEMS]]
    if isinstance(value, datetime):
        return value.isoformat()
    return clean_text(str(value))


def _names_a_secret(name: str) -> bool:
    snake = _CAMEL.sub("_", name).replace("-", "_").lower()
    return _SECRET_NAME.search(snake) is not None
