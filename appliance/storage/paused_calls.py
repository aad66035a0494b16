"""Turns that wait for a result of one of their caller's tools.

Who sends the whole conversation each time does not know what the agent itself
called on the way. It is found again by the ids of the caller's calls.
"""

from collections.abc import Sequence

import msgspec

from appliance.storage.connection import Connection
from appliance.storage.session_rows import Message

KEPT_NS = 7 * 86_400 * 1_000_000_000

_ADD = "INSERT OR REPLACE INTO paused_calls (call, run, created_ns) VALUES (?, ?, ?)"
_FORGET = "DELETE FROM paused_calls WHERE created_ns < ?"
_FIND = "SELECT run FROM paused_calls WHERE call = ?"
_MESSAGES = """
SELECT m.message FROM runs AS r JOIN messages AS m ON m.session = r.session AND m.run = r.id
WHERE r.id = ? AND m.kind = 'message' ORDER BY m.seq
"""


def add(tx: Connection, calls: Sequence[str], run: str, *, now_ns: int) -> None:
    tx.execute(_FORGET, (now_ns - KEPT_NS,))
    for call in calls:
        tx.execute(_ADD, (call, run, now_ns))


def rounds(tx: Connection, calls: Sequence[str]) -> list[Message]:
    """What the turn that made these calls said and did, its last answer included; may be empty."""
    runs = {str(run) for call in calls for (run,) in tx.execute(_FIND, (call,)).fetchall()}
    if len(runs) != 1:
        return []
    messages: list[Message] = [
        msgspec.json.decode(str(text))
        for (text,) in tx.execute(_MESSAGES, (runs.pop(),)).fetchall()
    ]
    for number, message in enumerate(messages):
        if message.get("role") == "assistant":
            return messages[number:]
    return []
