"""The older part of a conversation, replaced by a summary that a model wrote of it."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from appliance.model.callers import Caller
from appliance.model.calls import TextDelta
from appliance.model.errors import UpstreamFailed
from appliance.model.session_keys import SessionKey
from appliance.protocols.chat_request import prompt_size
from appliance.services.context_windows import context_window, history_budget
from appliance.services.events import TenantEvents
from appliance.services.model_calls import CallRequest, ModelCalls
from appliance.services.session_events import publish_changed
from appliance.services.turns.requests import TenantWithSessions, model_of
from appliance.storage.session_rows import Context, ContextLine, Session

_EVERYTHING = 100_000_000  # tokens; no session holds as many
_BYTES_A_TOKEN = 4
_LONGEST_SUMMARY = 4_096  # tokens

_TASK = """\
You write the memory of a conversation between a user and an assistant. What you write will
stand in the place of the part you are shown, and nobody will see that part again.
Keep what is needed to go on: the user's goals and wishes, decisions and their reasons, facts,
names, numbers, file names and commands word for word, what was promised, and what is still open.
Leave out greetings and what came to nothing. Write in the conversation's language, in short
paragraphs, without an introduction."""


class TenantToCompact(TenantWithSessions, Protocol):
    @property
    def events(self) -> TenantEvents: ...


class BeforeCompaction(Protocol):
    """Something that must happen while the whole conversation is still there: a memory flush."""

    async def before_compaction(
        self, tenant: TenantToCompact, caller: Caller, key: SessionKey, /
    ) -> None: ...


class Progress(Protocol):
    """Who is told that a compaction begins and ends."""

    def compaction(self, phase: str, *, will_retry: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class Compaction:
    """What became of it. ``summary`` is empty if there was nothing to replace."""

    summary: str
    replaced: int  # messages
    tokens_before: int
    tokens_after: int

    @property
    def happened(self) -> bool:
        return self.replaced > 0


class Compactor:
    def __init__(
        self,
        calls: ModelCalls,
        *,
        clock: Callable[[], datetime],
        before_compaction: Sequence[BeforeCompaction] = (),
    ) -> None:
        self._calls = calls
        self._clock = clock
        self._before = tuple(before_compaction)

    async def compact(
        self,
        tenant: TenantToCompact,
        caller: Caller,
        key: SessionKey,
        instructions: str | None = None,
        *,
        model: str | None = None,
        progress: Progress | None = None,
        will_retry: bool = False,
    ) -> Compaction:
        """Summarise all but the latest part of the conversation.

        To be called by whoever holds the session's turn. Cancelled or failed,
        it leaves the session as it was; what the model call cost is settled.
        Raises what a model call raises, and :exc:`UpstreamFailed` if the model
        has nothing to say.
        """
        store = await tenant.sessions()
        model = model_of(tenant, key.agent, model)
        if progress is not None:
            progress.compaction("start")
        try:
            for hook in self._before:
                await hook.before_compaction(tenant, caller, key)
            context = store.context(key, limit_tokens=_EVERYTHING)
            keep = min(
                tenant.config.defaults.session.compaction.keep_recent_tokens,
                history_budget(tenant.config, model) // 2,
            )
            older, recent = split(context.lines, keep_tokens=keep)
            if not older:
                return Compaction("", 0, context.tokens, context.tokens)
            summary = await self._summary(tenant, caller, key, model, context, older, instructions)
            kept_from = recent[0].seq if recent else older[-1].seq + 1
            store.compact(
                key,
                summary=summary,
                kept_from=kept_from,
                tokens_before=context.tokens,
                now=self._clock(),
            )
            await tenant.meter.durable()
            await store.durable()
            after = sum(line.tokens for line in recent) + -(-len(summary) // _BYTES_A_TOKEN)
            publish_changed(tenant.events, key, reason="compact", now=self._clock())
            return Compaction(summary, len(older), context.tokens, after)
        finally:
            if progress is not None:
                progress.compaction("end", will_retry=will_retry)

    async def _summary(
        self,
        tenant: TenantToCompact,
        caller: Caller,
        key: SessionKey,
        model: str,
        context: Context,
        older: Sequence[ContextLine],
        instructions: str | None,
    ) -> str:
        wanted = [tenant.config.defaults.session.compaction.instructions, instructions]
        task = "\n\n".join([_TASK, *(f"Above all: {text}" for text in wanted if text)])
        window = context_window(tenant.config, model)
        output = min(_LONGEST_SUMMARY, max(64, window // 4))
        piece_bytes = max(512, (window - output) // 2 * _BYTES_A_TOKEN)
        summary = context.summary or ""
        for piece in pieces([spoken(line) for line in older], limit_bytes=piece_bytes):
            before = f"What was before, as you wrote it down:\n{summary}\n\n" if summary else ""
            said = f"{before}The conversation:\n{piece}\n\nWrite the memory of all of it."
            summary = await self._ask(tenant, caller, key, model, task, said, output)
        return summary

    async def _ask(
        self,
        tenant: TenantToCompact,
        caller: Caller,
        key: SessionKey,
        model: str,
        task: str,
        said: str,
        output_limit: int,
    ) -> str:
        messages = [{"role": "system", "content": task}, {"role": "user", "content": said}]
        body = {"messages": msgspec.json.encode(messages), "stream": b"true"}
        asked = CallRequest(
            model=model,
            body=body,
            stream=True,
            prompt_bytes=prompt_size(body),
            output_limit=output_limit,
            kind="compaction",
            session=key.text,
            agent=key.agent,
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
        return summary


def is_full(
    tenant: TenantWithSessions,
    session: Session | None,
    *,
    context_tokens: Callable[[], int],
    said_tokens: int,
    model: str,
) -> bool:
    """Whether the conversation should be compacted before its next turn.

    ``context_tokens`` estimates all of it, which means reading all of it: only
    asked where the provider's own count does not settle it.
    """
    limits = tenant.config.defaults.session.compaction
    if session is None or not limits.enabled:
        return False
    window = context_window(tenant.config, model)
    room = window - min(limits.reserve_tokens, window // 2) - said_tokens
    if session.context_tokens > room:
        return True
    if 0 < session.context_tokens < room // 2:
        return False
    return context_tokens() > room


def split(
    lines: Sequence[ContextLine], *, keep_tokens: int
) -> tuple[Sequence[ContextLine], Sequence[ContextLine]]:
    """What to summarise and what to keep: whole turns, the latest of ``keep_tokens`` at most."""
    at = len(lines)
    left = keep_tokens
    for number in range(len(lines) - 1, -1, -1):
        left -= lines[number].tokens
        if left < 0:
            break
        starts_turn = number == 0 or lines[number].run is None
        if starts_turn or lines[number - 1].run != lines[number].run:
            at = number
    return lines[:at], lines[at:]


def pieces(texts: Sequence[str], *, limit_bytes: int) -> list[str]:
    """``texts`` joined into as few pieces as the limit allows; what is longer alone is cut."""
    found: list[str] = []
    current: list[str] = []
    size = 0
    for text in texts:
        cut = text.encode(errors="replace")[:limit_bytes].decode(errors="ignore")
        length = len(cut.encode())
        if current and size + length > limit_bytes:
            found.append("\n".join(current))
            current, size = [], 0
        current.append(cut)
        size += length
    if current:
        found.append("\n".join(current))
    return found


def spoken(line: ContextLine) -> str:
    """A message as somebody would read it out."""
    content = line.message.get("content")
    if isinstance(content, list):
        content = " ".join(_part_text(part) for part in content)
    said = content if isinstance(content, str) else ""
    calls = line.message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        match call:
            case {"function": {"name": name, "arguments": arguments}}:
                said += f" [calls {name} with {arguments}]"
    return f"{line.message.get('role', '')}: {said}"


def _part_text(part: object) -> str:
    if isinstance(part, dict):
        text = part.get("text")
        return text if isinstance(text, str) else f"[{part.get('type', 'something')}]"
    return ""
