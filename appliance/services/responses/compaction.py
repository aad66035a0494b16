"""A conversation made short: a summary that a model wrote, sealed into one item."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from time import perf_counter

import msgspec

from appliance.model.attempts import Trail
from appliance.model.callers import Caller
from appliance.model.calls import Dialect, TextDelta
from appliance.model.errors import InvalidRequest, UpstreamFailed
from appliance.model.usage import TokenUsage
from appliance.protocols.responses import seals
from appliance.protocols.responses.asides import HOSTED
from appliance.protocols.responses.items import Item, compaction_item, input_item, new_id
from appliance.protocols.responses.output import usage_object
from appliance.protocols.responses.request import ResponsesRequest, prompt_size
from appliance.services.compaction import pieces
from appliance.services.context_windows import context_window
from appliance.services.model_calls import CallRequest, ModelCalls, OpenCall
from appliance.services.responses.contexts import (
    Continued,
    continued,
    is_system,
    last_step,
    since_compaction,
    upstream_body,
)
from appliance.services.responses.runs import ResponsesTenant
from appliance.services.token_counts import ProviderCount, TokenCounts
from appliance.services.turns.requests import model_of
from appliance.services.turns.rounds import added

_BYTES_A_TOKEN = 4
_MOST_PIECES = 100  # each is a call of the model
_LONGEST_SUMMARY = 4_096  # tokens
_PICTURE_TOKENS = 1_600
_NOT_SPOKEN = frozenset({"type", "id", "status", "result"})  # a result is a picture
_TASK = """\
You write down what an assistant has to know to carry on with a conversation. Whoever reads it
sees nothing else of what was said. Keep goals and wishes, decisions and the reasons for them,
facts, names, numbers, file names and commands exactly as they were, what tools found out, what
was promised and what is open. Leave out courtesies and dead ends. Use the conversation's own
language, short paragraphs and no introduction."""


@dataclass(frozen=True, slots=True)
class Count:
    tokens: int
    is_estimated: bool
    waited: float = 0.0  # seconds for the provider; not ours to answer for


@dataclass(frozen=True, slots=True)
class Compacted:
    """``body`` is the compacted conversation as JSON, ``call`` stands for all that it took."""

    body: bytes
    call: OpenCall


class Compaction:
    """``agent`` is whom a request is for, None for a model of a provider."""

    def __init__(
        self,
        calls: ModelCalls,
        counts: TokenCounts,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._calls = calls
        self._counts = counts
        self._clock = clock

    async def count(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        request: ResponsesRequest,
        *,
        agent: str | None = None,
    ) -> Count:
        """How many tokens a model would read for ``request``, with what it continues.

        Counted by its provider if that can, else estimated; it counts as a
        request. Raises what finding the conversation raises, :exc:`ModelUnknown`,
        :exc:`ModelForbidden` and :exc:`RateLimited`.
        """
        if request.model:
            self._require(tenant, caller, request, agent)
        tenant.meter.count_request()
        found = await continued(await tenant.responses(), request, now=self._clock())
        counted = ProviderCount(None)
        # Tools that a provider runs are not for the gateway's key, not even to be counted.
        if request.model and agent is None and not request.may_have_hosted_tools:
            counted = await self._counted(tenant, caller, found)
        if counted.tokens is not None:
            return Count(counted.tokens, is_estimated=False, waited=counted.waited)
        return Count(estimated_tokens(found), is_estimated=True, waited=counted.waited)

    def _require(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        request: ResponsesRequest,
        agent: str | None,
    ) -> str:
        """The model that is asked. Raises :exc:`ModelUnknown` and :exc:`ModelForbidden`."""
        model = request.model if agent is None else model_of(tenant, agent)
        self._calls.require(tenant, caller, model, agent=agent)
        return model

    async def _counted(
        self, tenant: ResponsesTenant, caller: Caller, found: Continued
    ) -> ProviderCount:
        body = await upstream_body(found.request, found.context)
        asked = CallRequest(
            model=found.request.model,
            body=body,
            stream=False,
            prompt_bytes=prompt_size(body),
            output_limit=None,
            dialect=Dialect.RESPONSES,
        )
        return await self._counts.count(tenant, caller, asked)

    async def compact(
        self,
        tenant: ResponsesTenant,
        caller: Caller,
        request: ResponsesRequest,
        *,
        agent: str | None = None,
    ) -> Compacted:
        """Have all of it summarised but what the system says; return once that is in the books.

        Raises what finding the conversation raises, what a model call raises,
        and :exc:`UpstreamFailed` if the model wrote nothing.
        """
        model = self._require(tenant, caller, request, agent)
        found = await continued(await tenant.responses(), request, now=self._clock())
        items = since_compaction([*found.context, *found.request.input])
        rules = [item for item in items if is_system(item)]
        said = [item for item in items if not is_system(item)]
        summary = await summarised(
            self._calls,
            tenant,
            caller,
            model,
            said,
            wish=request.instructions or "",
            agent=agent,
        )
        await tenant.meter.durable()
        body = msgspec.json.encode(
            {
                "id": new_id("resp"),
                "object": "response.compaction",
                "created_at": int(self._clock().timestamp()),
                "output": [*rules, summary.item],
                "usage": usage_object(summary.usage),
            }
        )
        return Compacted(body, summary.call)


@dataclass(frozen=True, slots=True)
class Summary:
    """``item`` stands for what was summarised; the rest is what it took.

    ``call`` is the last call of the model, with what all of them took.
    """

    item: Item
    usage: TokenUsage
    call: OpenCall

    @property
    def cost_nano(self) -> int | None:
        """None: not known."""
        return self.call.cost_nano


async def on_the_way(
    calls: ModelCalls, tenant: ResponsesTenant, caller: Caller, found: Continued
) -> tuple[Summary, ResponsesRequest] | None:
    """The same conversation compacted, if it is longer than its request allows.

    The summary stands for all of it, so that whoever goes on with it needs
    nothing from before; what is to be answered now is said again behind it.
    None where nothing is before that. Raises like :func:`summarised`.
    """
    threshold = found.request.compact_threshold
    if threshold is None or estimated_tokens(found) <= threshold:
        return None
    items = since_compaction([*found.context, *found.request.input])
    start = last_step(items)
    if not start:
        return None
    said = [item for item in items if not is_system(item)]
    summary = await summarised(calls, tenant, caller, found.request.model, said)
    going_on = (*items[:start], summary.item, *items[start:])
    return summary, replace(found.request, input=going_on)


async def summarised(
    calls: ModelCalls,
    tenant: ResponsesTenant,
    caller: Caller,
    model: str,
    items: Sequence[Item],
    *,
    wish: str = "",
    agent: str | None = None,
) -> Summary:
    """Have ``model`` write down what is to be known of ``items``; each call is booked.

    ``agent`` is on whose behalf it does: a token for the agent is for its model then.
    Raises :exc:`InvalidRequest` for what says nothing, or too much, what a model
    call raises, and :exc:`UpstreamFailed` if the model wrote nothing.
    """
    lines = [line for item in items if (line := spoken(item))]
    if not lines:
        raise InvalidRequest.at("input", "nothing was said that could be made shorter")
    window = context_window(tenant.config, model)
    output = min(_LONGEST_SUMMARY, max(64, window // 4))
    limit = max(512, (window - output) // 2 * _BYTES_A_TOKEN)
    found = pieces(lines, limit_bytes=limit)
    if len(found) > _MOST_PIECES:
        raise InvalidRequest.at(
            "input",
            f"a summary would take {len(found)} calls of {model[:80]!r}, and may take "
            f"{_MOST_PIECES}",
            "begin anew, or have a model with a larger window make it shorter",
        )
    task = f"{_TASK}\nAbove all: {wish}" if wish else _TASK
    summary, usage = "", TokenUsage()
    calls_made: list[OpenCall] = []
    for piece in found:
        before = f"What you wrote down so far:\n{summary}\n\n" if summary else ""
        said = f"{before}The conversation:\n{piece}\n\nWrite down what is to be known of it."
        summary, call = await _ask(calls, tenant, caller, model, task, said, output, agent)
        calls_made.append(call)
        if call.settlement is not None:
            usage = added(usage, call.settlement.usage)
    return Summary(compaction_item(summary), usage, _together(calls_made))


def _together(calls: Sequence[OpenCall]) -> OpenCall:
    """The last of them, with what all of them took."""
    last = calls[-1]
    costs = [call.cost_nano for call in calls if call.cost_nano is not None]
    last.cost_nano = sum(costs) if len(costs) == len(calls) else None
    last.is_estimated = any(call.is_estimated for call in calls)
    last.waited = sum(call.waited for call in calls)
    trail = Trail(attempts=sum(call.trail.attempts for call in calls))
    for call in calls:
        for target, reason in call.trail.missed:
            trail.miss(target, reason)
    last.trail = trail
    last.guarded = list(dict.fromkeys(each for call in calls for each in call.guarded))
    return last


async def _ask(
    calls: ModelCalls,
    tenant: ResponsesTenant,
    caller: Caller,
    model: str,
    task: str,
    said: str,
    output_limit: int,
    agent: str | None,
) -> tuple[str, OpenCall]:
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
        agent=agent,
        dialect=Dialect.RESPONSES,
    )
    text: list[str] = []
    async with (
        calls.open(tenant, caller, asked) as call,
        aclosing(call.reply.deltas()) as answer,
    ):
        began = perf_counter()
        async for deltas in answer:
            text += [delta.text for delta in deltas if isinstance(delta, TextDelta)]
        call.waited += perf_counter() - began
    summary = "".join(text).encode(errors="replace").decode().strip()
    if not summary:
        raise UpstreamFailed("the model wrote no summary of the conversation")
    return summary, call


def spoken(item: Item) -> str:
    """An item as somebody would read it out; empty for what says nothing."""
    match item:
        case {"type": "message", "role": str(role), "content": list(parts)}:
            return f"{role}: {' '.join(map(_part, parts))}"
        case {"type": "function_call", "name": str(name), "arguments": str(arguments)}:
            return f"assistant: [calls {name} with {arguments}]"
        case {"type": "custom_tool_call", "name": str(name), "input": str(words)}:
            return f"assistant: [calls {name} with {words}]"
        case {"type": "function_call_output" | "custom_tool_call_output", "output": output}:
            text = output if isinstance(output, str) else " ".join(map(_part, output))
            return f"tool: {text}"
        case {"type": "compaction", "encrypted_content": str(sealed)}:
            summary = seals.summary_of(sealed)
            return "" if summary is None else f"what was before: {summary}"
        case {"type": str(kind)} if kind in HOSTED:
            told = {name: value for name, value in item.items() if name not in _NOT_SPOKEN}
            return f"assistant: [did {kind}: {msgspec.json.encode(told).decode()}]"
        case {"type": str(kind), "name": str(name), "arguments": str(arguments)} if ":" in kind:
            return f"assistant: [did {name} with {arguments}: {item.get('output') or ''}]"
    return ""


def estimated_tokens(found: Continued) -> int:
    """Tokens, at four bytes each; a picture is what providers charge for one."""
    request = found.request
    size = len((request.instructions or "").encode())
    size += len(msgspec.json.encode(request.tools)) if request.tools else 0
    pictures = 0
    for item in since_compaction([*found.context, *request.input]):
        size += len(spoken(item).encode(errors="replace"))
        if item["type"] == "message":
            pictures += sum(1 for part in item["content"] if part["type"] == "input_image")
    return max(1, -(-size // _BYTES_A_TOKEN) + pictures * _PICTURE_TOKENS)


def _part(part: Item) -> str:
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else f"[{part.get('type', 'something')}]"
