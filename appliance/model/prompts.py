"""A request to a language model in no dialect: every dialect is read into it and written from it.

It holds whatever two dialects can both express. What only one has a word for is
kept under its own name in :attr:`Prompt.others`, and whoever writes another
dialect refuses it by that name. ``at`` says where a thing stands in the
caller's request, for complaints; it plays no part in comparisons.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from appliance.model.calls import Dialect
from appliance.model.errors import InvalidRequest

Json = Mapping[str, Any]


class Role(StrEnum):
    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"  # its blocks are Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str
    cache: Json | None = None  # Anthropic's cache_control: the prompt up to here is kept
    breakpoint: Json | None = None  # OpenAI's prompt_cache_breakpoint, which says the same
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What the model said instead of an answer."""

    text: str
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A picture, a document or sound: base64 ``data`` of a ``media_type``, or where it is.

    Exactly one of ``data``, ``url``, ``file_id`` and ``text`` is given.
    """

    kind: Literal["image", "file", "audio"]
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""  # a file that the provider keeps
    text: str = ""  # a document of plain text
    name: str = ""
    detail: str = ""  # how closely to look at a picture: low, high, auto
    cache: Json | None = None
    breakpoint: Json | None = None
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinking:
    """What a model thought before it answered, to be sent back to it unchanged.

    ``signature`` proves to its provider that the text is its own; ``hidden`` is
    thought that only the provider can read. Both mean nothing to another one,
    so ``dialect`` says whose they are, where that is known.
    """

    text: str = ""
    signature: str = ""
    hidden: str = ""
    dialect: Dialect | None = field(default=None, compare=False)
    id: str = field(default="", compare=False)
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool that the model called.

    ``arguments`` are the text of a JSON object, of a custom tool any text.
    """

    id: str
    name: str
    arguments: str
    is_custom: bool = False
    cache: Json | None = None
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a call."""

    call_id: str
    parts: tuple["Text | Attachment", ...]
    is_error: bool = False
    cache: Json | None = None
    at: str = field(default="", compare=False)


Block = Text | Refusal | Attachment | Thinking | Call | Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """``name`` tells apart several who speak in one role."""

    role: Role
    blocks: tuple[Block, ...]
    name: str = ""
    phase: str = ""  # of an assistant's message: commentary or final_answer
    at: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        return "\n\n".join(block.text for block in self.blocks if isinstance(block, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that the caller runs. ``parameters`` is a JSON schema, None: it takes none."""

    name: str
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None
    cache: Json | None = None
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What the input of a custom tool has to look like."""

    syntax: str  # lark, regex
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomTool:
    """A tool that the caller runs and that is called with a text. ``grammar`` None: any text."""

    name: str
    description: str | None = None
    grammar: Grammar | None = None
    cache: Json | None = None
    at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """``auto``, ``none``, ``required``, or ``named``: the one tool of ``names``.

    With ``auto`` and ``required``, ``names`` are the tools to choose among; none: all.
    """

    mode: Literal["auto", "none", "required", "named"]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What the answer has to look like; ``schema`` with ``json_schema`` only."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str = ""
    schema: Json | None = None
    strict: bool | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How much to think. ``budget`` in tokens; ``mode`` as Anthropic's ``thinking.type``."""

    effort: str | None = None  # none, minimal, low, medium, high, xhigh, max
    budget: int | None = None
    mode: Literal["enabled", "adaptive", "disabled"] | None = None
    display: str | None = None  # Anthropic: whether the thinking is shown
    summary: str | None = None  # OpenAI: auto, concise, detailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The whole request, without the model's name and how its answer is to travel.

    ``hints`` change nothing about an answer (user, metadata, …): those that a
    dialect has no word for are left out. ``others`` do: they are refused.
    Both are under the names of the dialect they were read in; one that stands
    deeper than the top level has its path for a name, ``tools[2].type``.
    """

    dialect: Dialect  # whose words the caller used
    messages: tuple[Message, ...]
    tools: tuple[Tool | CustomTool, ...] = ()
    choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    output_limit: int | None = None  # tokens
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    top_logprobs: int | None = None  # None: no logprobs are wanted
    answers: int = 1
    format: Format | None = None
    reasoning: Reasoning | None = None
    verbosity: str | None = None
    user: str | None = None
    hints: Json = field(default_factory=dict)
    others: Json = field(default_factory=dict)
    # The names of the caller's dialect for the attributes above, where they differ.
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    def named(self, attribute: str) -> str:
        """What the caller calls ``attribute``."""
        return self.names.get(attribute, attribute)

    def refuse(self, *attributes: str, remedy: str = "leave it out, or use another model") -> None:
        """Raise :exc:`InvalidRequest` for the first that is set: nobody has a word for it there."""
        for attribute in attributes:
            value = getattr(self, attribute)
            if value is None or value in ((), {}, _USUAL.get(attribute, 0)):
                continue
            raise InvalidRequest.at(self.named(attribute), CANNOT, remedy)

    def refuse_others(self) -> None:
        """Raise :exc:`InvalidRequest` for what only the caller's dialect has a word for."""
        for name in self.others:
            raise InvalidRequest.at(name, CANNOT, "leave it out, or use another model")

    @property
    def custom_names(self) -> frozenset[str]:
        """Those of the custom tools: a choice of one says so."""
        return frozenset(tool.name for tool in self.tools if isinstance(tool, CustomTool))

    def require_functions(self) -> tuple[Tool, ...]:
        """The tools, for who knows functions only.

        Raises :exc:`InvalidRequest` for a custom tool, and for a call of one.
        """
        functions = []
        for tool in self.tools:
            if isinstance(tool, CustomTool):
                raise _no_function(tool.at)
            functions.append(tool)
        for message in self.messages:
            for block in message.blocks:
                if isinstance(block, Call) and block.is_custom:
                    raise _no_function(block.at)
        return tuple(functions)

    def require_choice(self) -> None:
        """Raise :exc:`InvalidRequest` for a choice of tools that are not there.

        Whoever writes only tools that are there would leave it out.
        """
        choice = self.choice
        if choice is None or choice.mode == "none":
            return
        known = {tool.name for tool in self.tools}
        for name in choice.names:
            if name not in known:
                reason = f"{name[:64]!r} is not among the tools"
                raise InvalidRequest.at(self.named("choice"), reason)
        if choice.mode != "auto" and not known:
            raise InvalidRequest.at(
                self.named("choice"), "requires a tool, and there are none in tools"
            )

    def with_speakers(self) -> "Prompt":
        """The same for those who have no names: who speaks is said in the text.

        Only where several speak in one role. One name alone tells nobody apart.
        """
        names: dict[Role, set[str]] = {}
        for message in self.messages:
            names.setdefault(message.role, set()).add(message.name)
        if all(len(found) < 2 for found in names.values()):
            return self
        messages = (
            _introduced(each) if each.name and len(names[each.role]) > 1 else each
            for each in self.messages
        )
        return replace(self, messages=tuple(messages))

    def with_short_user(self, longest: int) -> "Prompt":
        """The same with a ``user`` of at most ``longest`` characters (64 or more).

        It only tells users apart, which a digest of it does as well.
        """
        if self.user is None or len(self.user) <= longest:
            return self
        return replace(self, user=hashlib.sha256(self.user.encode()).hexdigest())


def _no_function(at: str) -> InvalidRequest:
    return InvalidRequest.at(
        f"{at}.type",
        f"a custom tool {CANNOT}",
        "send functions, or use another model",
    )


def _introduced(message: Message) -> Message:
    blocks = list(message.blocks)
    for i, block in enumerate(blocks):
        if isinstance(block, Text):
            blocks[i] = replace(block, text=f"{message.name}: {block.text}")
            break
    else:
        if message.role is not Role.ASSISTANT:  # calls alone are said by nobody
            blocks.insert(0, Text(text=f"{message.name}:", at=message.at))
    return replace(message, blocks=tuple(blocks))


# What asks for nothing beyond the usual, where that is not 0.
_USUAL: Json = {"answers": 1, "top_logprobs": None, "parallel_tools": True}

CANNOT = "cannot be expressed to this model's provider"
