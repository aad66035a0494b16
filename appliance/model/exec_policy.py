"""May this command line run: at once, after somebody agreed, or not at all.

A line is covered if every program it runs is. What cannot be understood, what
writes files by redirection, and what is run with variables that may change what
a program does is never covered: the allow-list says what may run unseen.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from posixpath import normpath

from appliance.model.shell_lines import Invocation, NotUnderstood, Word
from appliance.model.shell_wrappers import (
    SYSTEM_DIRECTORIES,
    needs_arguments_named,
    read_commands,
    system_name,
)


class Security(StrEnum):
    """What may run. In the order of how much that is."""

    DENY = "deny"
    ALLOWLIST = "allowlist"
    FULL = "full"


class Ask(StrEnum):
    """Who is asked. In the order of how often that happens."""

    OFF = "off"
    ON_MISS = "on-miss"
    ALWAYS = "always"


class Verdict(StrEnum):
    RUN = "run"
    ASK = "ask"
    REFUSE = "refuse"


_SECURITY = list(Security)
_ASK = list(Ask)

# They change how a program speaks, not what it does.
_HARMLESS_VARIABLES = frozenset({
    "CI", "COLUMNS", "FORCE_COLOR", "LANG", "LANGUAGE", "LINES", "NO_COLOR", "NODE_ENV",
    "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "TERM", "TZ",
})  # fmt: skip
_LOCALE = re.compile(r"LC_[A-Z]+", re.ASCII)

# The shell itself does them, and nothing comes of it but text or an exit code.
_HARMLESS = frozenset({
    ":", "cd", "echo", "exit", "false", "printf", "pwd", "test", "true", "wait", "[",
})  # fmt: skip
_MOVES = frozenset({"cd", "pushd", "popd"})
_WILD = re.compile(r"[*?]")
_LONGEST_GLOB = 512  # characters, with * or ? in it
_LONGEST_MATCHED = 4_096
_SHELL_OPTION = re.compile(r"[-+][eux]*o?|pipefail")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOrder:
    """Exactly what is to be run. An approval holds for one of these and no other."""

    command: str
    directory: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        said = [self.command, self.directory, sorted(self.environment.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRules:
    """What an agent may run.

    ``allowlist`` holds patterns: ``git`` (a program of the system),
    ``/workspace/tools/*`` (by its path; ``**`` crosses directories), or with
    arguments, ``npm run *`` (a last ``*`` is any number of them). ``exact``
    are digests of orders that may run as they are.
    """

    security: Security = Security.FULL
    ask: Ask = Ask.OFF
    fallback: Security = Security.DENY  # where nobody can be asked
    allowlist: tuple[str, ...] = ()
    exact: frozenset[str] = frozenset()

    def tightened(self, security: Security | None, ask: Ask | None) -> "ExecRules":
        """With what a call asks for, as far as that allows less."""
        return replace(
            self,
            security=self.security if security is None else stricter(self.security, security),
            ask=self.ask if ask is None else more_asking(self.ask, ask),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """``patterns`` would cover the line if they were in the allow-list; empty if none could."""

    verdict: Verdict
    is_covered: bool
    reason: str = ""
    patterns: tuple[str, ...] = ()


def stricter(one: Security, other: Security) -> Security:
    return min(one, other, key=_SECURITY.index)


def more_asking(one: Ask, other: Ask) -> Ask:
    return max(one, other, key=_ASK.index)


def judge(rules: ExecRules, order: ExecOrder, *, trusts_path: bool = True) -> Judgement:
    """What becomes of ``order``.

    Unless ``trusts_path`` (somebody else chose the PATH), a name without a
    directory may be any program.
    """
    if rules.security is Security.DENY:
        return Judgement(
            verdict=Verdict.REFUSE, is_covered=False, reason="running commands is turned off"
        )
    coverage = _coverage(rules, order, trusts_path=trusts_path)
    if rules.ask is Ask.ALWAYS:
        verdict = Verdict.ASK
    elif rules.security is Security.FULL or coverage.is_covered:
        verdict = Verdict.RUN
    else:
        verdict = Verdict.ASK if rules.ask is Ask.ON_MISS else Verdict.REFUSE
    reason = coverage.reason
    if rules.ask is Ask.ALWAYS and coverage.is_covered:
        reason = "every command needs approval"
    return replace(coverage, verdict=verdict, reason=reason)


def unasked(rules: ExecRules, judgement: Judgement) -> bool:
    """Whether a line that needs approval may run though nobody can be asked."""
    if rules.fallback is Security.ALLOWLIST:
        return judgement.is_covered
    return rules.fallback is Security.FULL


def programs_of(command: str) -> tuple[str, ...] | None:
    """The programs a line runs, each once; None if that cannot be told."""
    try:
        commands = read_commands(command)
    except NotUnderstood:
        return None
    return tuple(dict.fromkeys(each.program for each in commands if each.words))


# -- what covers what ---------------------------------------------------------


def _coverage(rules: ExecRules, order: ExecOrder, *, trusts_path: bool) -> Judgement:
    if order.digest in rules.exact:
        return Judgement(verdict=Verdict.RUN, is_covered=True)
    try:
        commands = read_commands(order.command)
    except NotUnderstood as error:
        return Judgement(
            verdict=Verdict.ASK,
            is_covered=False,
            reason=f"it is not clear what it would run ({error})",
        )
    changed = [name for name in order.environment if not _is_harmless_variable(name)]
    place = _Place(
        directory=None if any(each.program in _MOVES for each in commands) else order.directory,
        trusts_path=trusts_path and "PATH" not in order.environment,
    )
    missed = [each for each in commands if not _is_covered(each, rules.allowlist, place)]
    if not missed and not changed:
        return Judgement(verdict=Verdict.RUN, is_covered=True)
    reasons = [f"it sets {', '.join(sorted(changed)[:5])}"] if changed else []
    reasons += list(dict.fromkeys(_why_missed(each) for each in missed))
    patterns = [_pattern_for(each, place) for each in missed]
    return Judgement(
        verdict=Verdict.ASK,
        is_covered=False,
        reason="; ".join(reasons[:5]),
        patterns=() if changed or None in patterns else _named(patterns),
    )


def _named(patterns: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for each in patterns if each is not None))


@dataclass(frozen=True, slots=True)
class _Place:
    """``directory`` is None where the line goes elsewhere before it runs things."""

    directory: str | None
    trusts_path: bool


def _is_covered(command: Invocation, allowlist: Sequence[str], place: _Place) -> bool:
    if command.writes or not all(map(_is_harmless_variable, command.variables)):
        return False
    if not command.words or _is_harmless(command):
        return True
    names = frozenset(_names_of(command.program, place))
    return any(_matches(pattern, command, names) for pattern in allowlist)


def _is_harmless_variable(name: str) -> bool:
    return name in _HARMLESS_VARIABLES or _LOCALE.fullmatch(name) is not None


def _is_harmless(command: Invocation) -> bool:
    if command.program == "set":
        arguments = command.arguments
        return all(word.is_fixed and _SHELL_OPTION.fullmatch(word.text) for word in arguments)
    return command.program in _HARMLESS and not needs_arguments_named(command)


def _names_of(program: str, place: _Place) -> Iterator[str]:
    """Everything by which a pattern may mean ``program``."""
    if "/" not in program:
        if place.trusts_path:
            yield program
            yield from (f"{directory}/{program}" for directory in SYSTEM_DIRECTORIES)
        return
    if not program.startswith("/"):
        if place.directory is None:
            return
        program = f"{place.directory.rstrip('/')}/{program.removeprefix('./')}"
    # Where ``..`` leads depends on links, and they on whoever writes there.
    if normpath(program) != program:
        return
    yield program
    name = system_name(program)
    if name:
        yield name


def _matches(pattern: str, command: Invocation, names: Collection[str]) -> bool:
    parts = pattern.split()
    if not parts:
        return False
    if len(parts) == 1 and needs_arguments_named(command):
        return False
    if not any(_glob(parts[0], name) for name in names):
        return False
    return len(parts) == 1 or _arguments_match(parts[1:], command.arguments)


def _arguments_match(parts: Sequence[str], arguments: Sequence[Word]) -> bool:
    if parts[-1] == "*":
        parts, arguments = parts[:-1], arguments[: len(parts) - 1]
    return len(parts) == len(arguments) and all(
        # What is not fixed may become anything, and any number of words.
        word.is_fixed and _glob(part, word.text, crosses=True)
        for part, word in zip(parts, arguments, strict=True)
    )


def _glob(pattern: str, text: str, *, crosses: bool = False) -> bool:
    """``*`` and ``?`` stay within a directory, ``**`` does not; ``crosses`` has no directories."""
    if pattern.startswith("~/"):
        pattern = "/workspace" + pattern[1:]
    if not _WILD.search(pattern):
        return pattern == text
    if crosses and not pattern.strip("*"):
        return True
    if len(pattern) > _LONGEST_GLOB or len(text) > _LONGEST_MATCHED:
        return False  # somebody is asked; the gateway's other tenants do not wait
    return _compiled(pattern, crosses=crosses).fullmatch(text) is not None


@lru_cache(maxsize=2_000)
def _compiled(pattern: str, *, crosses: bool) -> re.Pattern[str]:
    """Both pattern and text may be an attacker's: what matched once is not tried again (``?>``)."""
    one = "." if crosses else "[^/]"
    runs = re.split(r"(\*\*/?)", pattern)
    found = ""
    for at in range(0, len(runs), 2):
        is_last = at == len(runs) - 1
        run = _run_of(runs[at], one, is_last=is_last)
        if at:
            run = f"(?:.*?/)??{run}" if runs[at - 1].endswith("/") else f".*?{run}"
        found += run if is_last else f"(?>{run})"
    return re.compile(found, re.DOTALL)


def _run_of(run: str, one: str, *, is_last: bool) -> str:
    """What stands between two ``**``."""
    first, *others = [re.escape(part).replace(r"\?", one) for part in run.split("*")]
    end = f"{one}*{others.pop()}" if is_last and others else ""
    return first + "".join(f"(?>{one}*?{other})" for other in others) + end


def _why_missed(command: Invocation) -> str:
    if command.writes:
        return f"it writes to {command.writes[0][:80]!r}"
    changed = [name for name in command.variables if not _is_harmless_variable(name)]
    if changed:
        return f"it sets {changed[0][:80]}"
    return f"{command.text[:80]!r} is not in the allow-list"


def _pattern_for(command: Invocation, place: _Place) -> str | None:
    """What to add to the allow-list so that ``command`` is covered, if that can be said."""
    pattern = next(iter(_names_of(command.program, place)), None)
    if pattern is None or not _is_covered(command, (pattern,), place):
        return None
    return pattern
