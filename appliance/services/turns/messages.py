"""The messages of a turn: what is new in a request, and what a round leaves behind. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from appliance.model.errors import Fault, InvalidRequest
from appliance.model.untrusted import MARK
from appliance.protocols.chat_request import ChatRequest
from appliance.protocols.openai_prompts import HARMLESS, HINTS
from appliance.services.tools.base import ToolResult
from appliance.services.tools.runner import RequestedCall
from appliance.services.turns.call_ids import MODEL_ID, as_model_called, new_call_id
from appliance.services.turns.requests import Message, TurnRequest
from appliance.storage.session_context import call_ids

# Passed on to the model as the caller sent them.
_SAMPLING = (
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "thinking",
    "top_k",
    "top_p",
    "verbosity",
)
# What is read of a request before its model is called, and what changes no answer.
_KNOWN = frozenset(
    {
        *_SAMPLING,
        *HINTS,
        "messages",
        "model",
        "n",
        "parallel_tool_calls",
        "stream",
        "stream_options",
        "tool_choice",
        "tools",
        "user",
    }
)

_KEPT_WHOLE = 3  # results of tools, the latest
_TRIM_OVER = 4_000  # characters of an older one
_TRIM_TO = 1_500  # at either end
CLEARED = "[this result was left out to make room; call the tool again if it is needed]"
_NOT_SHOWN = "[The picture is not shown beside a call of another kind of tool; look again.]"


@dataclass(frozen=True, slots=True)
class Step:
    """One answer of the model, read to its end."""

    text: str
    calls: tuple[RequestedCall, ...] = ()
    was_cut: bool = False  # by the limit of its length


def refuse_unsupported(chat: ChatRequest) -> None:
    """Raise :exc:`InvalidRequest` for what an agent cannot do, and for what nobody here knows."""
    for name, value in chat.body.items():
        if name in _KNOWN or value in (b"null", b"[]") or value in HARMLESS.get(name, ()):
            continue
        raise InvalidRequest.at(
            name[:80],
            "an agent does not take this",
            "name a model as provider/model instead",
            fault=Fault.UNSUPPORTED,
        )
    if chat.choices != 1:
        raise InvalidRequest.at(
            "n", "an agent gives one answer", "send n=1", fault=Fault.UNSUPPORTED
        )


def new_messages(turn: TurnRequest) -> list[Message]:
    """What the session does not hold yet.

    OpenAI clients send the whole conversation each time; a session that keeps
    its own history takes what follows the last answer.
    """
    messages = [m for m in turn.messages if m.get("role") not in {"system", "developer"}]
    if turn.keeps_history:
        for position in range(len(messages) - 1, -1, -1):
            if messages[position].get("role") == "assistant":
                messages = messages[position + 1 :]
                break
    if not any(m.get("role") in {"user", "tool"} for m in messages):
        raise InvalidRequest.at(
            turn.field, "nothing new was said", "end the list with a message of the role user"
        )
    return messages


def check_results(
    before: Sequence[Mapping[str, object]], said: Sequence[Message], *, field: str = "messages"
) -> None:
    """See that results of the caller's tools answer calls that wait for them, all of them.

    ``before`` is the conversation so far. Raises :exc:`InvalidRequest` of ``field``.
    """
    waiting: dict[str, None] = {}
    answers = any(m.get("role") == "tool" for m in said)
    for number, message in enumerate((*before, *said)):
        is_new = number >= len(before)
        role = message.get("role")
        if role == "tool":
            call = message.get("tool_call_id")
            if isinstance(call, str) and call in waiting:
                del waiting[call]
            elif is_new:
                raise InvalidRequest.at(
                    field, f"no call waits for the result of {str(call)[:64]!r}"
                )
            continue
        if is_new and waiting and answers:
            break
        waiting = dict.fromkeys(call_ids(dict(message)) if role == "assistant" else ())
    if waiting and answers:
        raise InvalidRequest.at(
            field,
            f"the call {next(iter(waiting))[:64]!r} has no result",
            "answer every call, if only with an empty text",
        )


def holds_marks(conversation: Sequence[Mapping[str, object]]) -> bool:
    """Whether a tool has told the model, in any turn, what strangers wrote.

    A caller that sends the whole conversation each time has no session to remember it.
    """
    return any(
        message.get("role") == "tool" and MARK in str(message.get("content"))
        for message in conversation
    )


def system_texts(chat: ChatRequest, *, field: str = "messages") -> list[str]:
    """What the request says in the system's name, be it as one text or in parts.

    Raises :exc:`InvalidRequest` of ``field`` for what is no text.
    """
    found: list[str] = []
    for message in chat.messages():
        if message.get("role") in {"system", "developer"}:
            content = message.get("content")
            parts = content if isinstance(content, list) else [content]
            found += [_system_text(part, field) for part in parts if part is not None]
    return [text for text in found if text]


def _system_text(part: object, field: str) -> str:
    match part:
        case str():
            return part
        case {"type": "text", "text": str(text)}:
            return text
    raise InvalidRequest.at(field, "a system message holds texts only", "leave the rest out")


def request_body(
    chat: ChatRequest,
    system: str,
    conversation: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[Mapping[str, object]] = (),
    choice: object = "auto",
    is_parallel: bool = True,
) -> dict[str, bytes]:
    messages = as_model_called(conversation)
    if system:
        messages.insert(0, {"role": "system", "content": system})
    body = {name: chat.body[name] for name in _SAMPLING if name in chat.body}
    body["messages"] = msgspec.json.encode(messages)
    body["stream"] = b"true"
    if tools:
        body["tools"] = msgspec.json.encode(tools)
        if choice != "auto":
            body["tool_choice"] = msgspec.json.encode(choice)
        if not is_parallel:
            body["parallel_tool_calls"] = b"false"
    return body


def said_by_model(step: Step) -> Message:
    """An answer with calls in it, as it is kept and sent again."""
    calls: list[dict[str, object]] = []
    for call in step.calls:
        function = {"name": call.name, "arguments": _sendable(call.arguments)}
        said: dict[str, object] = {"id": call.id, "type": "function", "function": function}
        calls.append({**said, MODEL_ID: call.model_id} if call.model_id else said)
    return {"role": "assistant", "content": step.text or None, "tool_calls": calls}


def results_for_model(
    calls: Sequence[RequestedCall], results: Sequence[ToolResult]
) -> list[Message]:
    """What the tools brought. Pictures follow in a message of their own: a result is text."""
    found: list[Message] = []
    pictures: list[Mapping[str, object]] = []
    for call, result in zip(calls, results, strict=True):
        found.append(
            {
                "role": "tool",
                "tool_call_id": call.id,
                "name": call.name,
                "content": result.text or "(nothing)",
            }
        )
        pictures += result.parts
    if pictures:
        note = {"type": "text", "text": "[The pictures that the tools above brought.]"}
        found.append({"role": "user", "content": [note, *pictures]})
    return found


def without_pictures(results: Sequence[ToolResult]) -> list[ToolResult]:
    """The results where others are still to come: no message may stand between them."""
    return [
        replace(result, parts=(), text=f"{result.text}\n{_NOT_SHOWN}".strip())
        if result.parts
        else result
        for result in results
    ]


def trimmed(rounds: Sequence[Message], *, hard: bool = False) -> list[Message]:
    """The rounds with older results shortened; ``hard`` leaves all but the latest out."""
    results = [number for number, m in enumerate(rounds) if m.get("role") == "tool"]
    old = set(results[: -(1 if hard else _KEPT_WHOLE)])
    return [_trim(m, hard=hard) if number in old else m for number, m in enumerate(rounds)]


def unique_ids(calls: Sequence[RequestedCall]) -> tuple[RequestedCall, ...]:
    """The same calls, each with an id, and no two with the same."""
    seen: set[str] = set()
    found = []
    for call in calls:
        call_id = call.id
        if not call_id or call_id in seen:
            call_id = new_call_id()
        seen.add(call_id)
        found.append(RequestedCall(call_id, call.name, call.arguments))
    return tuple(found)


def _trim(message: Message, *, hard: bool) -> Message:
    content = message.get("content")
    if not isinstance(content, str):
        return message
    if hard:
        return {**message, "content": CLEARED}
    if len(content) <= _TRIM_OVER:
        return message
    left_out = len(content) - 2 * _TRIM_TO
    short = f"{content[:_TRIM_TO]}\n[… {left_out} characters left out …]\n{content[-_TRIM_TO:]}"
    return {**message, "content": short}


def _sendable(arguments: str) -> str:
    """Providers refuse a conversation with arguments in it that are no JSON object."""
    try:
        value = msgspec.json.decode(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        value = None
    return arguments if isinstance(value, dict) and arguments.strip() else "{}"
