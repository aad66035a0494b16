"""The kinds of text that name something of a tenant.

Every parameter that names a thing uses one of these types, because the
isolation suite finds them by their ``kind`` and hands in what belongs to
another tenant.
"""

from typing import Annotated

from msgspec import Meta


def _named(kind: str, *, longest: int) -> Meta:
    return Meta(min_length=1, max_length=longest, extra={"kind": kind})


SessionKeyText = Annotated[str, _named("session-key", longest=512)]
SessionIdText = Annotated[str, _named("session-id", longest=128)]
TenantIdText = Annotated[str, _named("tenant-id", longest=64)]
RunIdText = Annotated[str, _named("run-id", longest=256)]
IdempotencyKey = Annotated[str, _named("idempotency-key", longest=256)]
AgentIdText = Annotated[str, _named("agent-id", longest=64)]
NodeIdText = Annotated[str, _named("node-id", longest=128)]
DeviceIdText = Annotated[str, _named("device-id", longest=128)]
PairRequestIdText = Annotated[str, _named("pair-request-id", longest=128)]
InvokeIdText = Annotated[str, _named("invoke-id", longest=128)]
WorkIdText = Annotated[str, _named("work-id", longest=256)]
TokenIdText = Annotated[str, _named("token-id", longest=64)]
MessageIdText = Annotated[str, _named("message-id", longest=128)]
FileNameText = Annotated[str, _named("file-name", longest=255)]
ApprovalIdText = Annotated[str, _named("approval-id", longest=128)]
GrantIdText = Annotated[str, _named("grant-id", longest=128)]
TerminalIdText = Annotated[str, _named("terminal-id", longest=128)]
RecordingIdText = Annotated[str, _named("recording-id", longest=128)]
SupportRequestIdText = Annotated[str, _named("support-request-id", longest=128)]
LabelText = Annotated[str, Meta(min_length=1, max_length=512)]
MessageText = Annotated[str, Meta(max_length=1_000_000)]
