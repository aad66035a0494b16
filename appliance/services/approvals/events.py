"""What those who may approve are told, as it goes over the wire."""

import msgspec

from appliance.services.approvals.pending import Pending, Question

_LONGEST_SHOWN = 16_000  # characters; a longer one says so, and its digest tells it from others


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``digest`` is of the command, its directory and its variables: the answer is for these."""

    command: str
    command_argv: tuple[str, ...] | None
    env_keys: tuple[str, ...] | None
    cwd: str | None
    node_id: str | None
    host: str | None
    security: str | None
    ask: str | None
    agent_id: str | None
    resolved_path: str | None
    session_key: str | None
    kind: str
    reason: str
    digest: str
    allowed_decisions: tuple[str, ...]

    @classmethod
    def of(cls, question: Question) -> "ApprovalRequest":
        return cls(
            command=shown(question.subject),
            command_argv=question.argv,
            env_keys=question.environment or None,
            cwd=question.directory,
            node_id=question.node_id,
            host=question.host,
            security=question.security,
            ask=question.ask,
            agent_id=question.agent or None,
            resolved_path=question.resolved_path,
            session_key=question.session,
            kind=question.kind,
            reason=question.reason,
            digest=question.digest,
            allowed_decisions=tuple(each.value for each in question.decisions),
        )


class ApprovalRequested(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    request: ApprovalRequest
    created_at_ms: int
    expires_at_ms: int

    @classmethod
    def of(cls, pending: Pending) -> "ApprovalRequested":
        return cls(
            id=pending.id,
            request=ApprovalRequest.of(pending.question),
            created_at_ms=pending.created_at_ms,
            expires_at_ms=pending.expires_at_ms,
        )


class ApprovalResolved(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``decision`` is ``deny`` where nobody decided; ``reason`` says why."""

    id: str
    decision: str
    resolved_by: str | None
    ts: int
    reason: str
    request: ApprovalRequest

    @classmethod
    def of(cls, pending: Pending, *, ts: int) -> "ApprovalResolved":
        return cls(
            id=pending.id,
            decision=pending.decision.value if pending.decision else "deny",
            resolved_by=pending.resolved_by,
            ts=ts,
            reason=pending.why.value if pending.why else "",
            request=ApprovalRequest.of(pending.question),
        )


def shown(subject: str) -> str:
    """A command as people read it: nothing in it can hide a part of it."""
    visible = "".join(
        character if character.isprintable() or character in "\n\t" else _spelt(character)
        for character in subject[:_LONGEST_SHOWN]
    )
    over = len(subject) - _LONGEST_SHOWN
    return visible if over <= 0 else f"{visible}\n[… and {over} characters that are not shown]"


def _spelt(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"
