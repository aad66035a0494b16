"""Carrying out the tool calls that a model made in one step."""

import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import msgspec
import trio

from appliance.config.tool_schema import ToolDefaults
from appliance.model.errors import ApplianceError
from appliance.model.spelling import nearest
from appliance.model.untrusted import marked
from appliance.services.tools.base import (
    AnyParams,
    Effect,
    Tool,
    ToolCall,
    ToolFailed,
    ToolResult,
)
from appliance.services.tools.repeats import Repeats, Verdict
from appliance.services.tools.toolbox import Offer
from appliance.services.turns.requests import ToolActivity

log = logging.getLogger(__name__)

LARGEST_ARGUMENTS = 8 * 1024 * 1024  # bytes
MOST_SHOWN = 16_000  # characters of arguments and results for who watches


class Gate(Protocol):
    """Asks people. Raises :exc:`ToolFailed` where they refuse or nobody answers."""

    async def require(
        self, call: ToolCall, effect: Effect, arguments: Mapping[str, Any], /
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A tool call as the model made it; ``arguments`` is JSON text, or should be.

    ``model_id`` is the id that the model gave where ``id`` is another.
    """

    id: str
    name: str
    arguments: str
    model_id: str = ""


@dataclass(slots=True)
class StepState:
    """What one turn remembers between its steps."""

    repeats: Repeats
    tainted: bool = False
    goes_in_circles: bool = False
    calls: int = 0
    notes: list[str] = field(default_factory=list)


class ToolRunner:
    """Runs calls of one turn. A call that fails is a result, not an exception."""

    def __init__(
        self,
        offer: Offer,
        template: ToolCall,
        state: StepState,
        settings: ToolDefaults,
        *,
        gate: Gate | None,
        tell: Callable[[ToolActivity], None],
        most_calls: int | None = None,
    ) -> None:
        self._offer = offer
        self._template = template
        self._state = state
        self._settings = settings
        self._gate = gate
        self._tell = tell
        self._most_calls = settings.limits.max_tool_calls if most_calls is None else most_calls
        self._limiter = trio.CapacityLimiter(settings.limits.max_parallel)

    async def run(self, calls: Sequence[RequestedCall]) -> list[ToolResult]:
        """The results, in the order of the calls. Cancelled, it ends what runs."""
        results: list[ToolResult | None] = [None] * len(calls)
        # In their order, whichever of them is begun first: the limit leaves the last ones out.
        left = self._most_calls - self._state.calls
        self._state.calls += len(calls)

        async def one(number: int) -> None:
            async with self._limiter:
                results[number] = await self._one(calls[number], is_too_many=number >= left)

        for batch in self._batches(calls):
            if len(batch) == 1:
                await one(batch[0])
                continue
            async with trio.open_nursery() as nursery:
                for number in batch:
                    nursery.start_soon(one, number)
        return [result or ToolResult(text="not run", is_error=True) for result in results]

    def _batches(self, calls: Sequence[RequestedCall]) -> list[list[int]]:
        """Neighbours that may run at once."""
        batches: list[list[int]] = []
        joins = False
        for number, call in enumerate(calls):
            tool = self._offer.tools.get(call.name)
            is_parallel = tool is not None and tool.is_parallel
            if joins and is_parallel:
                batches[-1].append(number)
            else:
                batches.append([number])
            joins = is_parallel
        return batches

    async def _one(self, asked: RequestedCall, *, is_too_many: bool) -> ToolResult:
        arguments = _decoded(asked.arguments)
        shown = arguments if isinstance(arguments, dict) else {}
        told = partial(ToolActivity, call_id=asked.id, name=asked.name)
        self._tell(told(phase="start", arguments=cut_values(shown)))

        def update(text: str) -> None:
            self._tell(told(phase="update", text=text[-MOST_SHOWN:]))

        if is_too_many:
            result = _error("this turn has made as many tool calls as it may; answer now")
        else:
            result = await self._result(asked, arguments, update)
        result = self._finished(asked, result)
        self._tell(
            told(
                phase="result",
                text=result.text[:MOST_SHOWN],
                details=result.details,
                is_error=result.is_error,
            )
        )
        return result

    async def _result(
        self, asked: RequestedCall, arguments: object, update: Callable[[str], None]
    ) -> ToolResult:
        tool = self._offer.tools.get(asked.name)
        if tool is None:
            near = nearest(asked.name, list(self._offer.tools))
            hint = f"; did you mean {near}?" if near else ""
            return _error(f"there is no tool {asked.name[:80]!r}{hint}")
        if not isinstance(arguments, dict):
            return _error(f"the arguments of {asked.name} are not a JSON object; send one")
        call = replace(
            self._template,
            call_id=asked.id,
            name=tool.name,
            tainted=self._state.tainted,
            update=update,
        )
        try:
            params = _params(tool, arguments)
            await self._agree(call, tool, arguments)
            return await self._timed(call, tool, params)
        except msgspec.ValidationError as problem:
            return _error(f"{asked.name}: {problem}")
        except ToolFailed as problem:
            return _error(str(problem))
        except ApplianceError as problem:
            return _error(f"{problem.title}: {problem.detail}")
        except Exception:
            # The turn goes on without this tool; what broke is for the operator.
            reference = secrets.token_hex(4)
            log.exception("a tool broke", extra={"tool": tool.name, "reference": reference})
            return _error(f"{asked.name} failed inside the gateway (reference {reference})")

    async def _agree(self, call: ToolCall, tool: Tool[Any], arguments: Mapping[str, Any]) -> None:
        guarded = tool.effect in self._offer.needs_approval
        wary = self._state.tainted and (
            tool.effect.value in self._settings.untrusted.needs_approval
        )
        if not guarded and not wary:
            return
        if self._gate is None:
            raise ToolFailed(f"{call.name} needs somebody's approval, and nobody can be asked")
        await self._gate.require(call, tool.effect, arguments)

    async def _timed(self, call: ToolCall, tool: Tool[Any], params: Any) -> ToolResult:
        limit = self._settings.limits.tool_timeout or math.inf
        with trio.move_on_after(limit):
            return await tool.call(call, params)
        raise ToolFailed(f"{call.name} was ended after {limit:.0f} s, its time limit")

    def _finished(self, asked: RequestedCall, result: ToolResult) -> ToolResult:
        """The result as the model reads it: Unicode, bounded, marked, and counted."""
        text = result.text.encode(errors="replace").decode()
        text = cut(text, self._settings.limits.max_result_chars)
        limits = self._state.repeats.note(asked.name, asked.arguments, text)
        if result.untrusted is not None:
            self._state.tainted = True
            text = marked(text, source=result.untrusted.value, nonce=secrets.token_hex(6))
        if limits is not Verdict.FINE:
            text += "\n\n[You made this very call before, with the same result. Do something else.]"
            self._state.goes_in_circles |= limits is Verdict.END
        return replace(result, text=text)


def cut(text: str, limit: int) -> str:
    """``text``, or its beginning and end with a word on what is missing."""
    if len(text) <= limit:
        return text
    head = limit * 7 // 10
    tail = limit - head
    left_out = len(text) - head - tail
    return f"{text[:head]}\n\n[… {left_out} characters left out …]\n\n{text[-tail:]}"


def _params(tool: Tool[Any], arguments: dict[str, Any]) -> Any:
    if issubclass(tool.params, AnyParams):
        return tool.params(arguments=arguments)
    return msgspec.convert(arguments, tool.params, strict=False)


def _decoded(arguments: str) -> object:
    if len(arguments) > LARGEST_ARGUMENTS:
        return None
    try:
        return msgspec.json.decode(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return None


def cut_values(arguments: Mapping[str, object]) -> dict[str, object]:
    return {
        name: cut(value, MOST_SHOWN) if isinstance(value, str) else value
        for name, value in arguments.items()
    }


def _error(text: str) -> ToolResult:
    return ToolResult(text=text, is_error=True)
