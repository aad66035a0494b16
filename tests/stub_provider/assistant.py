"""A model that behaves: it calls tools, answers in a schema, sees images and remembers.

Deterministic, and the same in every dialect, so that a client's test can say
what has to come out at the other end of a translation.

* asked for the weather with a fitting tool on offer, or told which tool to
  use, it calls it; given results, it tells them;
* a custom tool it calls with what was said, or with the definition of its grammar;
* given a JSON schema for its answer, it answers the least value that fits;
* "reply with exactly: X" gives X, and "count from A to B" counts;
* "what is my name", "the code word", "my favourite ..." are answered from the
  conversation, and "your instructions" are repeated;
* images, files and sounds are mentioned;
* everything else is said back.
"""

import json
import re
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from tests.stub_provider.conversation import Conversation, Tool
from tests.stub_provider.instances import instance

MODEL = "assistant"
THOUGHT = "Let me think about it."

_PLACE = re.compile(r"\b(?:in|for|of) ([A-Z][\w-]+(?: [A-Z][\w-]+)*)")
_EXACTLY = re.compile(r"exactly:? [\"']?([^\"'\n]+?)[\"']?[.]?$", re.IGNORECASE | re.MULTILINE)
_COUNT = re.compile(r"count from (\d+) to (\d+)", re.IGNORECASE)
_FACTS = (
    (re.compile(r"what(?:'s| is) my name", re.I), re.compile(r"my name is (\w+)", re.I), "name"),
    (
        re.compile(r"what(?:'s| is| was) the (?:\w+ )?code word", re.I),
        re.compile(r"code word(?: is|:) (\w+)", re.I),
        "code word",
    ),
    (re.compile(r"the number", re.I), re.compile(r"number is (\w+)", re.I), "number"),
)


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    arguments: str  # JSON; of a custom tool any text
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class Speech:
    """What the model says in one answer."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    thought: str = ""
    finish: str = "stop"  # or length, tool_calls
    stopped_by: str | None = None  # the caller's stop sequence

    @property
    def words(self) -> list[str]:
        return re.findall(r"\s*\S+\s*?|\s+$", self.text)

    @property
    def tokens(self) -> int:
        thought = len(self.thought.split())
        return len(self.text.split()) + 10 * len(self.calls) + thought


def seal(thought: str) -> str:
    """The signature of a thought; who sends the thought back must send it too."""
    return "sig-" + sha256(thought.encode()).hexdigest()[:24]


def speak(conversation: Conversation, limit: int | None) -> Speech:
    """The answer, cut off at ``limit`` words. Raises ValueError for a broken conversation."""
    _check(conversation)
    thought = THOUGHT if conversation.thinks else ""
    if calls := _calls(conversation):
        return Speech(calls=calls, thought=thought, finish="tool_calls")
    said = Speech(_text(conversation), thought=thought)
    for mark in conversation.stop:
        if mark in said.text:
            said = replace(said, text=said.text.partition(mark)[0], stopped_by=mark)
    if limit is None:
        return said
    # Thinking counts, too; a word is left in any case, or nothing of the answer would show.
    left = max(1, limit - len(thought.split()))
    if len(said.words) > left:
        said = replace(said, text="".join(said.words[:left]), finish="length", stopped_by=None)
    return said


def _check(conversation: Conversation) -> None:
    """As the real ones do: each result answers a call, and seals are genuine."""
    made = {each for turn in conversation.turns for each in turn.calls}
    for turn in conversation.turns:
        if turn.answers and turn.answers not in made:
            raise ValueError(f"no call has the id {turn.answers}")
        for each in turn.seals:
            if each != seal(THOUGHT):
                raise ValueError(f"the signature {each} is not one of ours")


def _calls(conversation: Conversation) -> tuple[Call, ...]:
    last = conversation.last
    tool = _wanted(conversation)
    if tool is None or not conversation.may_call or last.role == "tool":
        return ()
    call_id = f"call_{sum(len(turn.calls) for turn in conversation.turns)}_{tool.name}"
    if tool.is_custom:
        return (Call(call_id, tool.name, tool.grammar or last.text, is_custom=True),)
    return (Call(call_id, tool.name, _arguments(tool, last.text)),)


def _wanted(conversation: Conversation) -> Tool | None:
    by_name = {tool.name: tool for tool in conversation.tools}
    if conversation.forced is not None:
        return by_name.get(conversation.forced) or next(iter(conversation.tools), None)
    if "weather" not in conversation.last.text.lower():
        return None
    return next((tool for name, tool in by_name.items() if "weather" in name.lower()), None)


def _arguments(tool: Tool, text: str) -> str:
    arguments: dict[str, Any] = instance(tool.schema) or {}
    place = _PLACE.search(text)
    for name in ("location", "city", "place"):
        if place and name in arguments:
            arguments[name] = place[1]
    return json.dumps(arguments)


def _text(conversation: Conversation) -> str:
    last = conversation.last
    if conversation.schema is not None:
        return json.dumps(instance(conversation.schema) or {"answer": "some text"})
    if last.role == "tool":
        results = [turn.text for turn in conversation.turns if turn.role == "tool"]
        return f"The tool says: {results[-1]}"
    if last.media:
        return f"I was given {' and '.join(f'an {each}' for each in last.media)}."
    if exactly := _EXACTLY.search(last.text):
        return exactly[1]
    if count := _COUNT.search(last.text):
        return ", ".join(str(each) for each in range(int(count[1]), int(count[2]) + 1))
    if "your instructions" in last.text:
        return f"My instructions: {conversation.instructions}"
    earlier = "\n".join(turn.text for turn in conversation.turns)
    for question, fact, name in _FACTS:
        if question.search(last.text) and (found := fact.search(earlier)):
            return f"The {name} is {found[1]}."
    return f"You said: {last.text}"
