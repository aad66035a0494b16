"""What a message may be besides a message: a command, or a word that stops what runs.

Only what stands in :data:`COMMANDS` is a command; any other text that begins
with a slash is a message like the rest (a path, for instance).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class CommandName(StrEnum):
    NEW = "new"
    RESET = "reset"
    STOP = "stop"
    STATUS = "status"
    MODEL = "model"
    USAGE = "usage"
    COMPACT = "compact"
    THINK = "think"
    QUEUE = "queue"
    HELP = "help"


class Thinking(StrEnum):
    """How long a model may think, in OpenClaw's words."""

    OFF = "off"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    ADAPTIVE = "adaptive"
    MAX = "max"

    @property
    def effort(self) -> str | None:
        """The same as ``reasoning_effort``; None where nothing is to be asked for."""
        return _EFFORTS[self]


_EFFORTS: dict[Thinking, str | None] = {
    Thinking.OFF: None,
    Thinking.MINIMAL: "minimal",
    Thinking.LOW: "low",
    Thinking.MEDIUM: "medium",
    Thinking.HIGH: "high",
    Thinking.XHIGH: "high",
    Thinking.ADAPTIVE: "medium",
    Thinking.MAX: "high",
}


class UsageFooter(StrEnum):
    """What is said of the cost below each answer."""

    OFF = "off"
    TOKENS = "tokens"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Argument:
    name: str
    description: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    name: CommandName
    description: str
    category: str
    argument: Argument | None = None

    @property
    def usage(self) -> str:
        if self.argument is None:
            return f"/{self.name}"
        shown = "|".join(self.argument.choices) or self.argument.name
        return f"/{self.name} [{shown}]"


_QUEUE_WORDS = ("steer", "followup", "collect", "interrupt", "steer-backlog", "default")

COMMANDS: tuple[Command, ...] = (
    Command(
        CommandName.NEW,
        "Begin the session anew; a model or a first message may follow",
        "session",
        Argument("message", "a model's name, or what to say first"),
    ),
    Command(
        CommandName.RESET,
        "Begin the session anew",
        "session",
        Argument("message", "what to say first"),
    ),
    Command(CommandName.STOP, "Stop what runs in this session", "session"),
    Command(CommandName.STATUS, "Show the session's model, context and settings", "status"),
    Command(
        CommandName.MODEL,
        "Show the session's model, or use another",
        "options",
        Argument("model", "provider/model, an alias, or default"),
    ),
    Command(
        CommandName.USAGE,
        "Show what the session used, or a line of it below each answer",
        "options",
        Argument("mode", "what each answer ends with", tuple(UsageFooter)),
    ),
    Command(
        CommandName.COMPACT,
        "Replace the older part of the conversation by a summary",
        "session",
        Argument("instructions", "what the summary must keep"),
    ),
    Command(
        CommandName.THINK,
        "Show or set how long the model may think",
        "options",
        Argument("level", "how long", tuple(Thinking)),
    ),
    Command(
        CommandName.QUEUE,
        "Show or set what becomes of messages that come while the agent works",
        "options",
        Argument("mode", "what becomes of them", _QUEUE_WORDS),
    ),
    Command(CommandName.HELP, "List the commands", "status"),
)
_BY_NAME = {command.name.value: command for command in COMMANDS}
_ALIASES = {"thinking": "think", "t": "think", "commands": "help", "models": "model"}


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command as it was given; ``rest`` is what followed it, without blanks around it."""

    command: Command
    rest: str


_COMMAND = re.compile(r"/([A-Za-z]+)(?::|\s|$)\s*(.*)", re.DOTALL)

# Said alone, they mean the work and not its subject.
_STOP_WORDS = frozenset(
    {
        # English
        "stop", "abort", "esc", "wait", "exit", "interrupt", "halt", "cancel",
        "stop run", "stop agent", "stop it", "stop now", "please stop",
        # German, French, Spanish, Italian, Portuguese, Dutch
        "stopp", "anhalten", "abbrechen", "arrête", "arrete", "arrêter", "stoppe",
        "para", "detente", "detén", "detener", "cancelar", "fermati", "ferma", "basta",
        "pare", "parar", "stoppen",
        # Russian, Ukrainian, Polish, Turkish
        "стоп", "остановись", "останови", "зупинись", "zatrzymaj", "przestań", "dur",
        # Chinese, Japanese, Korean, Hindi, Arabic
        "停止", "停", "停下", "止めて", "やめて", "ストップ", "멈춰", "중지", "रुको", "توقف", "قف",
    }
)  # fmt: skip


def parse_command(text: str, *, resets: Sequence[str] = ()) -> Invocation | None:
    """The command that ``text`` is, None for a message.

    ``resets`` are further texts that begin a session anew, such as ``/fresh``.
    """
    said = text.strip()
    lowered = said.lower()
    for trigger in resets:
        if lowered == trigger.lower() or lowered.startswith(f"{trigger.lower()} "):
            name = CommandName.NEW if trigger.lower() == "/new" else CommandName.RESET
            return Invocation(_BY_NAME[name], said[len(trigger) :].strip())
    match = _COMMAND.fullmatch(said)
    if match is None:
        return None
    name_given = match[1].lower()
    command = _BY_NAME.get(_ALIASES.get(name_given, name_given))
    return None if command is None else Invocation(command, match[2].strip())


def is_stop(text: str) -> bool:
    """Whether ``text`` asks to stop what runs: ``/stop``, or such a word and nothing else."""
    said = " ".join(text.strip().lower().split())
    if said == "/stop" or said.startswith("/stop "):
        return True
    return said.rstrip(".!…。") in _STOP_WORDS


def help_text() -> str:
    return "\n".join(f"{command.usage}: {command.description}" for command in COMMANDS)
