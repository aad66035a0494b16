"""A request of any dialect as one list of turns: what the assistant answers to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.stub_provider.asked import Dialect

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    schema: Object = field(default_factory=dict)
    is_custom: bool = False
    grammar: str = ""  # of a custom tool


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, or one result of a tool (``role`` is tool)."""

    role: str
    text: str = ""
    media: tuple[str, ...] = ()  # what else was in it, in words
    calls: tuple[str, ...] = ()  # ids of the tool calls an assistant made
    answers: str = ""  # the id of the call a result belongs to
    seals: tuple[str, ...] = ()  # signatures of thoughts that were sent back


@dataclass(frozen=True, slots=True)
class Conversation:
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    forced: str | None = None  # a tool's name, or "" for any of them
    may_call: bool = True
    schema: Object | None = None  # the answer is JSON of this schema; {} is any object
    thinks: bool = False
    stop: tuple[str, ...] = ()
    options: Object = field(default_factory=dict)

    @property
    def instructions(self) -> str:
        return "\n".join(turn.text for turn in self.turns if turn.role in {"system", "developer"})

    @property
    def last(self) -> Turn:
        spoken = [turn for turn in self.turns if turn.role not in {"system", "developer"}]
        return spoken[-1] if spoken else Turn("user")

    @property
    def tokens(self) -> int:
        """A word is a token, and so is everything that is no word."""
        return sum(len(turn.text.split()) + len(turn.media) for turn in self.turns)


def read(dialect: Dialect, body: Object) -> Conversation:
    return _READERS[dialect](body)


def _chat(body: Object) -> Conversation:
    turns = [_chat_turn(message) for message in body.get("messages") or []]
    shape = body.get("response_format") or {}
    schema: Object | None = None
    if shape.get("type") == "json_object":
        schema = {}
    elif shape.get("type") == "json_schema":
        schema = shape["json_schema"]["schema"]
    choice = body.get("tool_choice")
    stop = body.get("stop") or ()
    return Conversation(
        tuple(turns),
        tools=tuple(
            _chat_tool(tool)
            for tool in body.get("tools") or []
            if tool.get("type", "function") in {"function", "custom"}
        ),
        forced=_forced(choice, name=_chat_choice(choice)),
        may_call=choice != "none",
        schema=schema,
        thinks=body.get("reasoning_effort") not in (None, "none"),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        options=body,
    )


def _chat_tool(tool: Object) -> Tool:
    if tool.get("type") != "custom":
        return Tool(tool["function"]["name"], tool["function"].get("parameters") or {})
    form = tool["custom"].get("format") or {}
    grammar = form["grammar"]["definition"] if form.get("type") == "grammar" else ""
    return Tool(tool["custom"]["name"], is_custom=True, grammar=grammar)


def _chat_choice(choice: object) -> str | None:
    if not isinstance(choice, dict) or choice.get("type") not in {"function", "custom"}:
        return None
    return str(choice[choice["type"]]["name"])


def _forced(choice: object, *, name: str | None) -> str | None:
    if name is not None:
        return name
    return "" if choice in {"required", "any"} else None


def _chat_turn(message: Object) -> Turn:
    text, media = _content(message.get("content"))
    return Turn(
        str(message["role"]),
        text,
        media=(*media, *("image" for _ in message.get("images") or [])),
        calls=tuple(str(call.get("id", "")) for call in message.get("tool_calls") or []),
        answers=str(message.get("tool_call_id") or ""),
    )


def _content(content: object) -> tuple[str, tuple[str, ...]]:
    """The text of ``content``, and a word for each part that is none."""
    if not isinstance(content, list):
        return str(content or ""), ()
    texts, media = [], []
    for part in content:
        kind = part.get("type", "text")
        if kind in {"text", "input_text", "output_text"}:
            texts.append(str(part.get("text", "")))
        elif kind in {"image_url", "input_image", "image"}:
            media.append("image")
        elif kind in {"file", "input_file", "document"}:
            media.append("file")
        elif kind == "input_audio":
            media.append("sound")
    return "\n".join(texts), tuple(media)


def _messages(body: Object) -> Conversation:
    system, _ = _content(body.get("system"))
    turns = [Turn("system", system)] if system else []
    for message in body.get("messages") or []:
        turns += _blocks(str(message["role"]), message["content"])
    choice = body.get("tool_choice") or {}
    output = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    thinking = (body.get("thinking") or {}).get("type")
    effort = (body.get("output_config") or {}).get("effort")
    return Conversation(
        tuple(turns),
        tools=tuple(
            Tool(tool["name"], tool.get("input_schema") or {})
            for tool in body.get("tools") or []
            if tool.get("type", "custom") == "custom"
        ),
        forced=_forced(choice.get("type"), name=choice.get("name")),
        may_call=choice.get("type") != "none",
        schema=output.get("schema") if output.get("type") == "json_schema" else None,
        thinks=thinking in {"enabled", "adaptive"} or (thinking is None and effort is not None),
        stop=tuple(body.get("stop_sequences") or ()),
        options=body,
    )


def _blocks(role: str, content: Any) -> Iterator[Turn]:
    if isinstance(content, str):
        yield Turn(role, content)
        return
    for block in content:
        if block.get("type") == "tool_result":
            text, media = _content(block.get("content"))
            yield Turn("tool", text, media, answers=block["tool_use_id"])
    text, media = _content(content)
    calls = tuple(block["id"] for block in content if block.get("type") == "tool_use")
    seals = tuple(block["signature"] for block in content if block.get("type") == "thinking")
    if text or media or calls or seals:
        yield Turn(role, text, media, calls=calls, seals=seals)


def _responses(body: Object) -> Conversation:
    turns = [Turn("system", str(body["instructions"]))] if body.get("instructions") else []
    given = body.get("input") or []
    items: Sequence[Object] = (
        [{"role": "user", "content": given}] if isinstance(given, str) else given
    )
    for item in items:
        turns += _item(item)
    shape = (body.get("text") or {}).get("format") or {}
    schema: Object | None = {} if shape.get("type") == "json_object" else None
    if shape.get("type") == "json_schema":
        schema = shape["schema"]
    choice = body.get("tool_choice")
    named = choice.get("name") if isinstance(choice, dict) else None
    reasoning = body.get("reasoning") or {}
    return Conversation(
        tuple(turns),
        tools=tuple(
            _response_tool(tool)
            for tool in body.get("tools") or []
            if tool.get("type") in {"function", "custom"}
        ),
        forced=_forced(choice if isinstance(choice, str) else None, name=named),
        may_call=choice != "none",
        schema=schema,
        thinks=reasoning.get("effort") not in (None, "none"),
        options=body,
    )


def _response_tool(tool: Object) -> Tool:
    if tool["type"] == "function":
        return Tool(tool["name"], tool.get("parameters") or {})
    form = tool.get("format") or {}
    return Tool(tool["name"], is_custom=True, grammar=form.get("definition", ""))


def _item(item: Object) -> Iterator[Turn]:
    match item.get("type", "message"):
        case "message":
            text, media = _content(item.get("content"))
            yield Turn(str(item["role"]), text, media)
        case "function_call":
            yield Turn("assistant", calls=(str(item["call_id"]),))
        case "function_call_output":
            text, media = _content(item.get("output"))
            yield Turn("tool", text, media, answers=str(item["call_id"]))
        # Marked, because what came of a call must be an item of the same kind.
        case "custom_tool_call":
            yield Turn("assistant", calls=(f"custom {item['call_id']}",))
        case "custom_tool_call_output":
            text, media = _content(item.get("output"))
            yield Turn("tool", text, media, answers=f"custom {item['call_id']}")
        case "reasoning" if item.get("encrypted_content"):
            yield Turn("assistant", seals=(str(item["encrypted_content"]),))


def _ollama(body: Object) -> Conversation:
    chat = _chat({**body, "response_format": None})
    shape = body.get("format")
    schema: Object | None = shape if isinstance(shape, dict) else None
    return Conversation(
        chat.turns,
        tools=chat.tools,
        schema={} if shape == "json" else schema,
        thinks=bool(body.get("think")),
        stop=tuple((body.get("options") or {}).get("stop") or ()),
        options=body,
    )


_READERS = {"openai": _chat, "anthropic": _messages, "ollama": _ollama, "responses": _responses}
