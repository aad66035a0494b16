"""The ledger's rows for sandboxes: time used, and nothing that counts as a call of a model."""

from dataclasses import dataclass

from appliance.storage.connection import Connection

KIND = "sandbox"

_INSERT = f"""
INSERT INTO entries (
    id, ts_ns, settled_ns, request_id, kind, route, provider, model, agent, session, token_id,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
    tool_calls, sandbox_ms, sandbox_cpu_ms, peak_memory_bytes, egress_bytes, cost_nano, currency,
    estimated, outcome
) VALUES (?, ?, ?, ?, '{KIND}', ?, '', '', ?, ?, ?, 0, 0, 0, 0, 0, 0, ?, ?, ?, ?, 0, ?, 0, ?)
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxEntry:
    """One sandbox that has ended. ``purpose`` is exec, terminal, mcp or search."""

    ts_ns: int
    settled_ns: int
    run_id: str
    purpose: str
    agent: str
    session: str | None
    token_id: str | None
    sandbox_ms: int
    cpu_ms: int
    peak_memory_bytes: int | None
    egress_bytes: int
    outcome: str


def insert(tx: Connection, number: int, entry: SandboxEntry, *, currency: str) -> None:
    row = (
        number,
        entry.ts_ns,
        entry.settled_ns,
        entry.run_id,
        f"{KIND}/{entry.purpose}",
        entry.agent,
        entry.session,
        entry.token_id,
        entry.sandbox_ms,
        entry.cpu_ms,
        entry.peak_memory_bytes,
        entry.egress_bytes,
        currency,
        entry.outcome,
    )
    tx.execute(_INSERT, row)
