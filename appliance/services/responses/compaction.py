"""A conversation made short: a summary that a model wrote, sealed into one item."""

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

import msgspec

from appliance.model.callers import Caller
from appliance.model.calls import Dialect, TextDelta
from appliance.model.errors import InvalidRequest, UpstreamFailed
from appliance.model.usage import TokenUsage
from appliance.protocols.responses import seals
from appliance.protocols.responses.items import Item, compaction_item, input_item, new_id
from appliance.protocols.responses.output import usage_object
from appliance.protocols.responses.request import ResponsesRequest, prompt_size
from appliance.protocols.translation import read_prompt, write_body
from appliance.services.compaction import pieces
from appliance.services.context_windows import context_window
from appliance.services.model_calls import CallRequest, ModelCalls
from appliance.services.responses.contexts import Continued, continued, upstream_body
from appliance.services.responses.runs import ResponsesTenant
from appliance.services.token_counts import TokenCounts
from appliance.services.turns.requests import model_of
from appliance.services.turns.rounds import added

_BYTES_A_TOKEN = 4
_LONGEST_SUMMARY = 4_096  # tokens
_PICTURE_TOKENS = 1_600
_TASK = """\
You write down what an assistant has to know to carry on with a conversation. Whoever reads it
sees nothing else of what was said. Keep goals and wishes, decisions and the reasons for them,
facts, names, numbers, file names and commands exactly as they were, what tools found out, what
was promised and what is open. Leave out courtesies and dead ends. Use the conversation's own
language, short paragraphs and no introduction."""


class Compaction:
    """``is_model`` tells a provider's model from an agent."""

    def __init__(
        self,
        calls: ModelCalls,
        counts: TokenCounts,
        *,
        clock: Callable[[], datetime],
        is_model: Callable[[str], bool],
    ) -> None:
        self._calls = calls
        self._counts = counts
        self._clock = clock
        self._is_model = is_model

    async def count(
        self, tenant: ResponsesTenant, caller: Caller, request: ResponsesRequest
    ) -> int:
        """How many tokens a model would read for ``request``, with what it continues.

        Counted by its provider if that can, else estimated. Raises what finding
        the conversation raises, and :exc:`ModelUnknown`.
        """
        found = await continued(await tenant.responses(), request, now=self._clock())
        counted = None
        if request.model and self._is_model(request.model):
            counted = await self._counted(tenant, caller, found)
        return counted if counted is not None else estimated_tokens(found)

    async def _counted(
        self, tenant: ResponsesTenant, caller: Caller, found: Continued
    ) -> int | None:
        body = await upstream_body(found.request, found.context)
        try:
            translated = write_body(Dialect.ANTHROPIC, read_prompt(Dialect.RESPONSES, body))
        except InvalidRequest:
            return None  # no provider that counts has a word for it
        asked = CallRequest(
            model=found.request.model,
            body=translated,
            stream=False,
            prompt_bytes=prompt_size(body),
            output_limit=None,
            dialect=Dialect.ANTHROPIC,
        )
        return await self._counts.count(tenant, caller, asked)

    async def compact(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        request: ResponsesRequest,
        *,
        agent: str | None = None,
    ) -> bytes:
        """The compacted conversation as JSON, once what it cost is in the books.

        Raises what finding the conversation raises, what a model call raises,
        and :exc:`UpstreamFailed` if the model wrote nothing.
        """
        found = await continued(await tenant.responses(), request, now=self._clock())
        lines = [line for item in (*found.context, *found.request.input) if (line := spoken(item))]
        if not lines:
            raise InvalidRequest.at("input", "nothing was said that could be made shorter")
        model = request.model if agent is None else model_of(tenant, agent)
        window = context_window(tenant.config, model)
        output = min(_LONGEST_SUMMARY, max(64, window // 4))
        limit = max(512, (window - output) // 2 * _BYTES_A_TOKEN)
        task = _TASK
        if request.instructions:
            task += f"\nAbove all: {request.instructions}"
        summary, usage = "", TokenUsage()
        for piece in pieces(lines, limit_bytes=limit):
            before = f"What you wrote down so far:\n{summary}\n\n" if summary else ""
            said = f"{before}The conversation:\n{piece}\n\nWrite down what is to be known of it."
            summary, used = await self._ask(tenant, caller, model, task, said, output)
            usage = added(usage, used)
        await tenant.meter.durable()
        return msgspec.json.encode(
            {
                "id": new_id("resp"),
                "object": "response.compaction",
                "created_at": int(self._clock().timestamp()),
                "output": [compaction_item(summary)],
                "usage": usage_object(usage),
            }
        )

    async def _ask(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        model: str,
        task: str,
        said: str,
        output_limit: int,
    ) -> tuple[str, TokenUsage]:
        item = input_item({"role": "user", "content": said}, "input[0]")
        body = {
            "model": msgspec.json.encode(model),
            "instructions": msgspec.json.encode(task),
            "input": msgspec.json.encode([item]),
        }
        asked = CallRequest(
            model=model,
            body=body,
            stream=True,
            prompt_bytes=prompt_size(body),
            output_limit=output_limit,
            kind="compaction",
            dialect=Dialect.RESPONSES,
        )
        text: list[str] = []
        async with (
            self._calls.open(tenant, caller, asked) as call,
            aclosing(call.reply.deltas()) as answer,
        ):
            async for deltas in answer:
                text += [delta.text for delta in deltas if isinstance(delta, TextDelta)]
        summary = "".join(text).encode(errors="replace").decode().strip()
        if not summary:
            raise UpstreamFailed("the model wrote no summary of the conversation")
        used = TokenUsage() if call.settlement is None else call.settlement.usage
        return summary, used


def spoken(item: Item) -> str:
    """An item as somebody would read it out; empty for what says nothing."""
    match item:
        case {"type": "message", "role": str(role), "content": list(parts)}:
            return f"{role}: {' '.join(map(_part, parts))}"
        case {"type": "function_call", "name": str(name), "arguments": str(arguments)}:
            return f"assistant: [calls {name} with {arguments}]"
        case {"type": "function_call_output", "output": output}:
            text = output if isinstance(output, str) else " ".join(map(_part, output))
            return f"tool: {text}"
        case {"type": "compaction", "encrypted_content": str(sealed)}:
            summary = seals.summary_of(sealed)
            return "" if summary is None else f"what was before: {summary}"
        case {"type": str(kind), "name": str(name), "arguments": str(arguments)} if ":" in kind:
            return f"assistant: [did {name} with {arguments}: {item.get('output') or ''}]"
    return ""


def estimated_tokens(found: Continued) -> int:
    """Tokens, at four bytes each; a picture is what providers charge for one."""
    request = found.request
    size = len((request.instructions or "").encode())
    size += len(msgspec.json.encode(request.tools)) if request.tools else 0
    pictures = 0
    for item in (*found.context, *request.input):
        size += len(spoken(item).encode(errors="replace"))
        content = item.get("content")
        if isinstance(content, list):
            pictures += sum(1 for part in content if part.get("type") == "input_image")
    return max(1, -(-size // _BYTES_A_TOKEN) + pictures * _PICTURE_TOKENS)


def _part(part: Item) -> str:
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else f"[{part.get('type', 'something')}]"
