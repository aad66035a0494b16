"""Turns that their caller's tools made wait: who may go on with one, and from where.

A caller who sends the whole conversation each time knows nothing of what the
agent itself did on the way to a call; that is put back where it was. Whoever
holds a call's id is not believed for that alone: it must be the credential that
was told of the call, and what was said before it the same. Anything else is
like a call of somebody else's model: the turn goes on with what its caller
sent, and nobody learns whether there is such a call.

A follow-up that comes again, because its answer was lost, is not acted on
again: it begins with what the first one did.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile

import msgspec

from appliance.model.callers import Caller
from appliance.model.session_keys import SessionKey
from appliance.services.tools.runner import MOST_SHOWN, cut_values
from appliance.services.turns.call_ids import may_be_ours, without_waiting
from appliance.services.turns.messages import new_messages
from appliance.services.turns.requests import Message, ToolActivity, TurnRequest
from appliance.storage.paused_calls import Line, PausedTurn, Resumption
from appliance.storage.session_context import call_ids, with_answered_calls
from appliance.storage.session_rows import Run
from appliance.storage.sessions import SessionStore

_SAMPLE = 32 * 1024  # characters at either end of a long text
_DEEPEST = 4  # levels of a part; what providers know has two


class Pauses:
    """The paused turns of one tenant that one credential may go on with."""

    def __init__(self, store: SessionStore, caller: Caller) -> None:
        self._store = store
        self._owner = f"{caller.kind}:{caller.credential}"

    def pause(self, turn: TurnRequest, run: Run, calls: Sequence[str], *, now: datetime) -> None:
        """Note that ``calls`` of this run wait for their results."""
        since = SinceUser()
        for message in turn.messages:
            since.add(message)
        self._store.pause(run, calls, owner=self._owner, digest=since.digest(), now=now)

    def line(self, turn: TurnRequest) -> SessionKey:
        """In whose line a turn waits: follow-ups of one paused turn come one by one."""
        paused = None if turn.keeps_history else self._paused(turn, new_messages(turn))
        agent = f"agent:{turn.key.agent}:"
        if paused is None or not paused.session.startswith(agent):
            return turn.key
        return replace(turn.key, rest=paused.session.removeprefix(agent))

    def standing(self, turn: TurnRequest) -> tuple[TurnRequest, Resumption | None]:
        """The turn as it is to be taken now that it is its turn, and what it goes on from.

        A session that has gone on since what the turn follows is not its own any
        more: it reads the conversation that came with it, and is remembered apart.
        """
        resumption = self._resumption(turn)
        if turn.follows is None:
            return turn, resumption
        but_run = None if resumption is None else resumption.supersedes
        if self._store.last_run(turn.key, but_run=but_run) == turn.follows:
            return turn, resumption
        key = replace(turn.key, rest=f"branch:{secrets.token_hex(12)}")
        apart = replace(turn, key=key, keeps_history=False, follows=None)
        return apart, self._resumption(apart)

    def with_own_rounds(self, said: Sequence[Message]) -> list[Message]:
        """The caller's conversation with what the agent itself did on the way to its calls."""
        paused = {
            number: turn
            for number, message in enumerate(said)
            if message.get("role") == "assistant" and (turn := self._find(call_ids(message)))
        }
        if not paused:
            return list(said)
        found: list[Message] = []
        since = SinceUser()
        for number, message in enumerate(said):
            turn = paused.get(number)
            rounds: list[Message] = []
            if turn is not None and turn.digest == since.digest():
                rounds = [own for own, _ in self._store.own_rounds(turn.run)]
            found += rounds or [message]
            since.add(message)
        return found

    def _resumption(self, turn: TurnRequest) -> Resumption | None:
        """What a turn goes on from that begins with results of a paused one's calls."""
        said = new_messages(turn)
        paused = self._paused(turn, said)
        if paused is None:
            return None
        answers = _answers(_since_answer(said))
        again = self._store.resumed(paused.run, answers)
        if again is None or (turn.keeps_history and self._store.last_run(turn.key) != again):
            return Resumption(paused.run, answers)
        rounds = _reusable(self._store.own_rounds(again))
        return Resumption(paused.run, answers, rounds, again if turn.keeps_history else None)

    def _paused(self, turn: TurnRequest, said: Sequence[Message]) -> PausedTurn | None:
        new = _since_answer(said)
        results = takewhile(lambda message: message.get("role") == "tool", new)
        found = self._find([str(message.get("tool_call_id")) for message in results])
        if found is None:
            return None
        if turn.keeps_history:
            return found if found.session == turn.key.short else None
        since = SinceUser()
        for message in said[: -len(new) - 1]:
            since.add(message)
        return found if found.digest == since.digest() else None

    def _find(self, calls: Sequence[str]) -> PausedTurn | None:
        if not calls or not all(map(may_be_ours, calls)):
            return None
        return self._store.paused(calls, owner=self._owner)


class SinceUser:
    """A digest of what was said since the user last spoke, in whatever form it comes.

    Clients drop old messages, move marks for caches and put the hour into system
    messages; what was asked, what the caller's tools found and which of their
    calls that answers stays as it was told.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, message: Mapping[str, object]) -> None:
        match message.get("role"):
            case "user":
                self._hash = hashlib.sha256()
                self._note("user", "", message.get("content"))
            case "tool":
                self._note("tool", str(message.get("tool_call_id")), message.get("content"))
            case "assistant" if calls := call_ids(dict(message)):
                self._note("assistant", ",".join(calls), None)

    def digest(self) -> bytes:
        return self._hash.digest()

    def _note(self, role: str, call: str, content: object) -> None:
        # ASCII, so that half a character is no failure here: it is refused elsewhere.
        form = json.dumps([role, call, _parts(content)], sort_keys=True)
        self._hash.update(b"%d:%b" % (len(form), form.encode()))


def retold(lines: Sequence[Line]) -> Iterator[ToolActivity]:
    """What tools did in rounds of before, for who watches now."""
    names: dict[str, str] = {}
    for message, meta in lines:
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            match call:
                case {"id": str(call_id), "function": {"name": str(name), "arguments": str(text)}}:
                    names[call_id] = name
                    arguments = cut_values(msgspec.json.decode(text))
                    yield ToolActivity(
                        phase="start", call_id=call_id, name=name, arguments=arguments
                    )
        match message:
            case {"role": "tool", "tool_call_id": str(call_id), "content": str(text)}:
                yield ToolActivity(
                    phase="result",
                    call_id=call_id,
                    name=names.get(call_id, ""),
                    text=text[:MOST_SHOWN],
                    is_error=bool((meta or {}).get("isError")),
                )


def _since_answer(said: Sequence[Message]) -> Sequence[Message]:
    """What was said after the assistant last spoke."""
    start = len(said)
    while start and said[start - 1].get("role") != "assistant":
        start -= 1
    return said[start:]


def _answers(new: Sequence[Message]) -> bytes:
    # Of results made side by side the order says nothing.
    told = sorted(
        json.dumps([m.get("tool_call_id"), _parts(m.get("content"))], sort_keys=True) for m in new
    )
    return hashlib.sha256("\n".join(told).encode()).digest()


def _parts(content: object) -> list[object]:
    """Texts as one, everything else without the marks that say what is to be cached."""
    if not isinstance(content, list):
        return [_form(content)] if isinstance(content, str) and content else []
    found: list[object] = []
    texts: list[str] = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
                continue
            case dict():
                found += _joined(texts)
                found.append(_form({name: part[name] for name in part if name != "cache_control"}))
            case _:
                found += [*_joined(texts), _form(part)]
        texts = []
    return [*found, *_joined(texts)]


def _joined(texts: Sequence[str]) -> list[object]:
    text = "".join(texts)
    return [_form(text)] if text else []


def _form(value: object, depth: int = 0) -> object:
    """What stands for a value: of megabytes their length, beginning and end, which take no time."""
    match value:
        case str() if len(value) > 2 * _SAMPLE:
            return [len(value), value[:_SAMPLE], value[-_SAMPLE:]]
        case dict() if depth < _DEEPEST:
            return {str(name): _form(each, depth + 1) for name, each in value.items()}
        case dict() | list():
            return type(value).__name__
    return value


def _reusable(lines: Sequence[Line]) -> list[Line]:
    """What a turn did before it answered, so that a model can answer anew.

    Nobody knows the outcome of a call that it was in when it was broken off; a
    call of the caller's tools is to be made again.
    """
    metas = {id(message): meta for message, meta in lines}
    messages = [message for message, _ in lines]
    while messages and messages[-1].get("role") == "assistant" and not call_ids(messages[-1]):
        messages.pop()
    kept = with_answered_calls(without_waiting(messages))
    return [(message, metas.get(id(message))) for message in kept]
