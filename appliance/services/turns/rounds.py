"""The rounds of one turn: the model is asked, tools do what it calls, until it has answered."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

import trio

from appliance.config.schema import AgentConfig
from appliance.model.callers import Caller
from appliance.model.calls import Finished, FinishReason, ToolCallDelta
from appliance.model.errors import (
    ApplianceError,
    ContextTooLong,
    InvalidRequest,
    Kind,
    ProviderFailure,
    UpstreamFailed,
)
from appliance.model.money import parse_amount
from appliance.model.usage import TokenUsage
from appliance.protocols.caller_tools import CallerTools
from appliance.protocols.chat_request import prompt_size
from appliance.services.context_windows import context_window
from appliance.services.model_calls import CallRequest, ModelCalls, OpenCall
from appliance.services.tools.base import ToolCall, ToolResult, ToolTenant
from appliance.services.tools.repeats import Repeats
from appliance.services.tools.runner import Gate, RequestedCall, StepState, ToolRunner
from appliance.services.tools.toolbox import Offer
from appliance.services.turns.call_ids import for_callers
from appliance.services.turns.messages import (
    Step,
    holds_marks,
    request_body,
    results_for_model,
    said_by_model,
    trimmed,
    without_pictures,
)
from appliance.services.turns.pauses import retold
from appliance.services.turns.requests import (
    Interlude,
    Message,
    TurnRecord,
    TurnRequest,
    TurnSink,
)
from appliance.services.turns.steps import StepReader
from appliance.storage.paused_calls import Line
from appliance.storage.sessions import SessionStore

log = logging.getLogger(__name__)

TAINT = "untrusted"  # a fact of a session, its id: it holds what strangers wrote
_BYTES_A_TOKEN = 4
_PATIENCE = (1.0, 4.0)  # seconds before a provider is asked again, once tools have run
_ENOUGH = "[No more tool calls are possible in this turn. Answer now with what you have.]"
_CUT_OFF = "not run: the call was cut off by the limit of the answer's length; make it shorter"


class TurnLimitReached(ApplianceError):
    """A turn went on for as long, or as dear, as one may."""

    code: ClassVar[str] = "turn-limit-reached"
    title: ClassVar[str] = "The turn reached its limit"
    kind: ClassVar[Kind] = Kind.FORBIDDEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a turn works with, settled before its first round."""

    tenant: ToolTenant
    caller: Caller
    turn: TurnRequest
    agent: AgentConfig
    model: str
    store: SessionStore
    offer: Offer
    callers: CallerTools
    # The conversation without this turn's rounds; read again after it was made shorter.
    conversation: Callable[[], Sequence[Mapping[str, object]]]
    system: str
    depth: int
    channel: str
    tainted: bool
    redone: Sequence[Line] = ()  # rounds of an earlier turn, which this one goes on from


class Rounds:
    """One turn on its way. ``record`` always says how far it has come."""

    def __init__(
        self,
        work: Assignment,
        sink: TurnSink,
        record: TurnRecord,
        interlude: Interlude,
        *,
        calls: ModelCalls,
        gate: Gate | None,
        begin: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._work = work
        self._sink = sink
        self._record = record
        self._interlude = interlude
        self._calls = calls
        self._begin = begin
        self._clock = clock
        limits = work.tenant.config.defaults.tools.limits
        self._limits = limits
        wanted = work.turn.max_tool_calls
        self._most_calls = min(
            limits.max_tool_calls, limits.max_tool_calls if wanted is None else wanted
        )
        self._conversation = work.conversation()
        record.rounds += [message for message, _ in work.redone]
        self._is_noted = work.tainted
        self._state = StepState(
            Repeats(warn_at=limits.repeats_warned, end_at=limits.repeats_ended),
            tainted=work.tainted or holds_marks([*self._conversation, *record.rounds]),
        )
        self._template = self._template_call()
        self._runner = ToolRunner(
            work.offer,
            self._template,
            self._state,
            work.tenant.config.defaults.tools,
            gate=gate,
            tell=sink.tool,
            most_calls=self._most_calls,
        )

    async def run(self) -> Finished:
        """Go on until there is an answer; raises what a model call raises.

        The latest call, or the failure, then says how long models and tools took.
        """
        record = self._record
        try:
            finished = await self._go_on()
        except ApplianceError as error:
            error.waited += record.waited
            if (told := _in_callers_words(error, self._work.turn.field)) is not None:
                told.waited = error.waited
                raise told from error
            raise
        if record.call is not None:
            record.call.waited = record.waited
        return finished

    async def _go_on(self) -> Finished:
        record = self._record
        number = 0
        while True:
            number += 1
            is_last = self._is_last(number)
            step = await self._ask(number, is_last=is_last)
            callers = [c for c in step.calls if c.name in self._work.callers.names]
            if callers:
                await self._hand_over(step, callers)
                return Finished(FinishReason.TOOL_CALLS, record.usage)
            if self._work.callers.must_call:
                raise UpstreamFailed("the model did not call the tool that was required")
            if not step.calls:
                return Finished(record.reason or FinishReason.STOP, record.usage)
            if is_last:
                if not step.text:
                    raise TurnLimitReached(f"the agent found no answer in {number} rounds")
                record.reason = FinishReason.STOP
                return Finished(FinishReason.STOP, record.usage)
            await self._act(step)
            self._hear()

    def _is_last(self, number: int) -> bool:
        limits, record = self._limits, self._record
        if limits.max_cost is not None and record.cost_nano >= parse_amount(limits.max_cost):
            raise TurnLimitReached(f"the turn has cost {limits.max_cost}, its limit")
        return (
            number > limits.max_rounds
            or (self._is_spent and not self._work.callers.definitions)
            or self._state.goes_in_circles
        )

    @property
    def _is_spent(self) -> bool:
        """Whether the agent's own tools were called as often as they may be."""
        return self._state.calls >= self._most_calls

    def _tools(self) -> list[Mapping[str, object]]:
        callers = self._work.callers
        if callers.only_these or (self._is_spent and callers.definitions):
            return list(callers.definitions)
        return [*self._work.offer.described(), *callers.definitions]

    # Asking

    async def _ask(self, number: int, *, is_last: bool) -> Step:
        """One answer, however often it takes to get one."""
        patience = list(_PATIENCE) if number > 1 else []
        shorter = iter(("trim", "room", "hard"))
        if self._record.rounds:
            self._trim_when_full()
        while True:
            try:
                return await self._once(number, is_last=is_last)
            except ContextTooLong as failure:
                if not await self._shorten(shorter):
                    raise
                self._record.waited += failure.waited
            except ProviderFailure as failure:
                # What tools have done would be lost, so a provider gets another chance; not
                # once it has begun to speak.
                if self._record.text or not patience or not failure.retryable or failure.lasts:
                    raise
                log.info("a provider is asked again", extra={"reason": failure.code})
                self._record.waited += failure.waited
                with waiting(self._record):
                    await trio.sleep(patience.pop(0))

    async def _once(self, number: int, *, is_last: bool) -> Step:
        work, record = self._work, self._record
        asked = self._request(is_last=is_last)
        async with self._calls.open(work.tenant, work.caller, asked) as call:
            record.call, record.is_open = call, True
            record.waited += call.waited
            call.waited = record.waited
            if record.run is None:
                # From here on the provider works for us, so what was said is kept.
                self._begin()
            if record.run is not None:
                self._template.run_id = record.run.id
            if number == 1:
                await self._sink.begin(call)
                for activity in retold(work.redone):
                    self._sink.tool(activity)
            reader = StepReader(self._sink, record, holds_back=work.callers.must_call)
            with waiting(record):
                step = await reader.read(call)
            if any(c.name in work.callers.names for c in step.calls):
                await reader.release()
        self._count(call)
        return replace(step, calls=tuple(for_callers(step.calls, work.callers.names)))

    def _request(self, *, is_last: bool) -> CallRequest:
        work, turn = self._work, self._work.turn
        messages = [*self._conversation, *self._record.rounds]
        choice = work.callers.choice
        if is_last:
            messages.append({"role": "user", "content": _ENOUGH})
            choice = "none"
        body = request_body(
            turn.chat,
            work.system,
            messages,
            tools=self._tools(),
            choice=choice,
            is_parallel=work.callers.is_parallel,
        )
        return CallRequest(
            model=work.model,
            body=body,
            # Always streamed from the provider, so that a cancelled turn stops there too.
            stream=True,
            prompt_bytes=prompt_size(body),
            output_limit=turn.chat.output_limit or work.agent.max_output_tokens,
            session=turn.key.text,
            agent=turn.key.agent,
        )

    def _count(self, call: OpenCall) -> None:
        record, settled = self._record, call.settlement
        record.is_open = False
        if settled is None:
            return
        record.usage = added(record.usage, settled.usage)
        record.cost_nano += settled.cost_nano or 0
        record.is_priced &= settled.cost_nano is not None
        call.cost_nano = record.cost_nano if record.is_priced else None
        call.is_estimated = record.usage.estimated

    def _trim_when_full(self) -> None:
        window = context_window(self._work.tenant.config, self._work.model)
        reserve = self._work.tenant.config.defaults.session.compaction.reserve_tokens
        messages = (*self._conversation, *self._record.rounds)
        size = sum(len(str(message.get("content") or "")) for message in messages)
        if size // _BYTES_A_TOKEN > window - min(reserve, window // 2):
            self._record.rounds = trimmed(self._record.rounds)

    async def _shorten(self, ways: Iterator[str]) -> bool:
        """Make the request smaller in the next way there is; False if none is left."""
        for way in ways:
            rounds = self._record.rounds
            match way:
                case "room" if await self._interlude.make_room():
                    self._conversation = self._work.conversation()
                    return True
                case "trim" | "hard":
                    self._record.rounds = trimmed(rounds, hard=way == "hard")
                    if self._record.rounds != rounds:
                        return True
        return False

    # Acting

    async def _act(self, step: Step) -> None:
        """Run the agent's own tools and keep what came of it."""
        self._keep_call(step)
        await self._run_own(step, step.calls)
        self._record.text.clear()

    async def _hand_over(self, step: Step, callers: Sequence[RequestedCall]) -> None:
        """Finish the agent's own calls of this step, then let the caller have theirs."""
        own = [call for call in step.calls if call not in callers]
        self._keep_call(step)
        if own:
            await self._run_own(step, own, arrange=without_pictures)
        self._record.text.clear()
        self._record.reason = FinishReason.TOOL_CALLS
        await self._sink.deltas(
            [
                ToolCallDelta(index, call.id, call.name, call.arguments or "{}")
                for index, call in enumerate(callers)
            ]
        )
        self._record.handed_over = tuple(call.id for call in callers)

    async def _run_own(
        self,
        step: Step,
        calls: Sequence[RequestedCall],
        *,
        arrange: Callable[[Sequence[ToolResult]], Sequence[ToolResult]] = lambda same: same,
    ) -> None:
        if step.was_cut:
            results = [ToolResult(text=_CUT_OFF, is_error=True) for _ in calls]
        else:
            # Of several at once the time counts once.
            with waiting(self._record):
                results = await self._runner.run(calls)
            self._note_taint()
        self._record.tool_calls += len(calls)
        metas: list[dict[str, object] | None] = [
            {"isError": result.is_error, "details": dict(result.details)} for result in results
        ]
        messages = results_for_model(calls, arrange(results))
        metas += [None] * (len(messages) - len(metas))
        self._keep(list(zip(messages, metas, strict=True)))

    def _note_taint(self) -> None:
        """What strangers wrote stays in the conversation: whoever reads it is wary from now on."""
        work = self._work
        if self._state.tainted and not self._is_noted and work.turn.keeps_history:
            session = work.store.find(work.turn.key)
            if session is not None:  # of this incarnation: what is begun anew holds nothing
                self._is_noted = True
                work.store.note_facts(work.turn.key, {TAINT: session.id}, now=self._clock())

    def _keep_call(self, step: Step) -> None:
        call = self._record.call
        meta: dict[str, object] = {"stopReason": "toolUse"}
        if call is not None:
            meta |= {"provider": call.target.provider, "model": call.target.model}
        self._keep([(said_by_model(step), meta)])

    def _keep(
        self,
        messages: Sequence[tuple[Message, dict[str, object] | None]],
        *,
        answers: Sequence[str] = (),
    ) -> None:
        record = self._record
        record.rounds += [message for message, _ in messages]
        if record.run is not None:
            self._work.store.add_round(record.run, messages, now=self._clock(), answers=answers)

    def _hear(self) -> None:
        steered = self._interlude.steered()
        if steered and not self._state.tainted and self._work.turn.keeps_history:
            # A sub-agent's report may be among them, and what that has read.
            session = self._work.store.find(self._work.turn.key)
            self._state.tainted = session is not None and session.facts.get(TAINT) == session.id
        for steering in steered:
            answers = [] if steering.answers is None else [steering.answers]
            self._keep([(steering.message, None)], answers=answers)

    def _template_call(self) -> ToolCall:
        work = self._work
        return ToolCall(
            tenant=work.tenant,
            caller=work.caller,
            key=work.turn.key,
            store=work.store,
            call_id="",
            name="",
            run_id="" if self._record.run is None else self._record.run.id,
            depth=work.depth,
            channel=work.channel,
        )


@contextmanager
def waiting(record: TurnRecord) -> Iterator[None]:
    """What happens meanwhile is up to others: models, tools, people who are asked."""
    began = trio.current_time()
    try:
        yield
    finally:
        record.waited += trio.current_time() - began


def added(one: TokenUsage | None, other: TokenUsage) -> TokenUsage:
    if one is None:
        return other
    return replace(
        one,
        input=one.input + other.input,
        output=one.output + other.output,
        cache_read=one.cache_read + other.cache_read,
        cache_write=one.cache_write + other.cache_write,
        reasoning=one.reasoning + other.reasoning,
        input_audio=one.input_audio + other.input_audio,
        output_audio=one.output_audio + other.output_audio,
        web_searches=one.web_searches + other.web_searches,
        estimated=one.estimated or other.estimated,
    )


def _in_callers_words(error: ApplianceError, field: str) -> InvalidRequest | None:
    """A refusal of a message, whose number in the whole conversation no caller knows."""
    if type(error) is not InvalidRequest or not error.fields:
        return None
    first = error.fields[0]
    if not first.field.startswith("messages["):
        return None
    return InvalidRequest.at(field, first.reason, first.remedy, fault=first.fault)
