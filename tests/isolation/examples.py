"""One request for every route that its rightful caller gets an answer to.

Without it a refusal would prove little: a request may be refused for being
malformed. The suite fails for a route that has no example here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """``token_id`` in a parameter stands for the id of the victim's token."""

    body: Any = None
    query: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None  # of the answer; None: the one the route declares


_CHAT = {"model": "openclaw", "messages": [{"role": "user", "content": "hi"}]}
# Past the gate nobody is awake in this suite.
_ASLEEP = 503

_RESPONSE = {"response": "resp_guessed"}
_CONVERSATION = {"conversation": "conv_guessed"}
_ITEM = {**_CONVERSATION, "item": "msg_guessed"}

EXAMPLES: Mapping[str, Example] = {
    "openai.chat": Example(_CHAT, status=_ASLEEP),
    "openai.responses": Example({"model": "stub/mock", "input": "hi"}, status=_ASLEEP),
    "openai.response": Example(parameters=_RESPONSE, status=_ASLEEP),
    "openai.response_delete": Example(parameters=_RESPONSE, status=_ASLEEP),
    "openai.response_cancel": Example(parameters=_RESPONSE, status=_ASLEEP),
    "openai.response_input": Example(parameters=_RESPONSE, status=_ASLEEP),
    "openai.input_tokens": Example({"model": "stub/mock", "input": "hi"}, status=_ASLEEP),
    "openai.compact": Example({"model": "stub/mock", "input": "hi"}, status=_ASLEEP),
    "openai.conversation_create": Example({"metadata": {"a": "b"}}, status=_ASLEEP),
    "openai.conversation": Example(parameters=_CONVERSATION, status=_ASLEEP),
    "openai.conversation_update": Example(
        {"metadata": {"a": "b"}}, parameters=_CONVERSATION, status=_ASLEEP
    ),
    "openai.conversation_delete": Example(parameters=_CONVERSATION, status=_ASLEEP),
    "openai.items": Example(parameters=_CONVERSATION, status=_ASLEEP),
    "openai.items_create": Example(
        {"items": [{"role": "user", "content": "hi"}]}, parameters=_CONVERSATION, status=_ASLEEP
    ),
    "openai.item": Example(parameters=_ITEM, status=_ASLEEP),
    "openai.item_delete": Example(parameters=_ITEM, status=_ASLEEP),
    "openai.embeddings": Example({"model": "stub/embed", "input": "hi"}, status=_ASLEEP),
    "anthropic.messages": Example({**_CHAT, "max_tokens": 9}, status=_ASLEEP),
    "anthropic.count_tokens": Example(_CHAT, status=_ASLEEP),
    "openai.models": Example(status=_ASLEEP),
    "openai.model": Example(parameters={"model": "stub/mock"}, status=_ASLEEP),
    "tools.invoke": Example({"tool": "agents_list"}, status=_ASLEEP),
    "tenants.create": Example({"id": "newcomer"}),
    "tenants.list": Example(),
    "tenants.get": Example(),
    "tenants.update": Example({"name": "changed"}),
    "tenants.delete": Example(query="delete_data=true"),
    "tokens.rotate": Example({"grace": "1m"}),
    "tokens.list": Example(),
    "tokens.create": Example({"label": "more"}),
    "tokens.revoke": Example(parameters={"tid": "token_id"}),
    "tickets.issue": Example({"ttl": "5m"}),
    "tickets.login": Example(query="ticket=ticket_guessed", status=401),
    "tickets.logout": Example(status=422),  # a token is no session
    "config.get": Example(),
    "config.put": Example({"defaults": {"session": {"history_tokens": 9}}}),
    "config.patch": Example({"defaults": {"session": {"history_tokens": 9}}}),
    "quotas.get": Example(),
    "quotas.put": Example({"terminals": 9}),
    "usage.tenant": Example(query="granularity=month"),
    "usage.tenant_csv": Example(),
    "usage.all": Example(),
    "usage.all_csv": Example(),
    "files.list": Example(parameters={"agent": "main"}, query="path=src", status=_ASLEEP),
    "files.delete": Example(parameters={"agent": "main"}, query="path=a.txt", status=_ASLEEP),
    "files.download": Example(parameters={"agent": "main"}, query="path=a.txt", status=_ASLEEP),
    "files.upload": Example(
        {"any": "bytes"}, parameters={"agent": "main"}, query="path=a.txt", status=_ASLEEP
    ),
    "terminals.list": Example(),
    "terminals.close": Example(parameters={"tid": "guessed"}, status=404),
    "terminals.recordings": Example(),
    "terminals.recording": Example(parameters={"rid": "guessed"}, status=404),
    "terminals.recording_delete": Example(parameters={"rid": "guessed"}, status=404),
    "credentials.list": Example(),
    "credentials.put": Example({"api_key": "sk-other"}, parameters={"provider": "stub"}),
    "credentials.delete": Example(parameters={"provider": "stub"}),
    "audit.tail": Example(),
    "status.get": Example(),
    "internal.status": Example(),
    "internal.tenant": Example(),
    "internal.create": Example({"displayName": "Acme"}, status=409),
    "internal.delete": Example(),
    "web.terminal": Example(),
    "web.replay": Example(parameters={"recording": "20261121-guessed"}),
    "web.support": Example(),
    "web.asset": Example(parameters={"digest": "0" * 16, "name": "page.css"}, status=404),
    "site.healthz": Example(),
    "site.readyz": Example(),
    "site.metrics": Example(),
    "site.openapi": Example(),
    "site.docs": Example(),
}
