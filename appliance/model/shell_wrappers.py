"""Programs whose arguments are another program: what they really run.

``nice make`` is to be judged as ``make``, and ``sh -c 'a; b'`` as ``a`` and
``b``. A wrapper with options that are not known here is not seen through.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from appliance.model.shell_lines import (
    Invocation,
    NotUnderstood,
    Word,
    fixed_words,
    read_line,
    require_program,
)

SYSTEM_DIRECTORIES = (
    "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
)  # fmt: skip

SHELLS = frozenset({
    "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh",
})  # fmt: skip

# They run what they are given as text, start others in ways that are not read
# here, or change how the rest of the line is understood. A name in an
# allow-list never covers them, only a pattern with their arguments does.
_LAUNCHERS = frozenset({
    ".", "alias", "at", "batch", "builtin", "capsh", "chroot", "chrt", "command", "compgen",
    "complete", "coproc", "crontab", "declare", "doas", "enable", "entr", "env", "eval", "exec",
    "expect", "export", "flock", "gdb", "getopts", "hash", "history", "ionice", "let", "local",
    "ltrace", "mapfile", "nice", "nohup", "nsenter", "numactl", "parallel", "perf", "popd",
    "prlimit", "pushd", "read", "readarray", "readonly", "rlwrap", "runuser", "script", "set",
    "setpriv", "setsid", "shopt", "source", "ssh", "start-stop-daemon", "stdbuf", "strace", "su",
    "sudo", "systemd-run", "taskset", "time", "timeout", "trap", "typeset", "unalias", "unbuffer",
    "unset", "unshare", "watch", "xargs", "xvfb-run", "bind", "fc", "jobs", "disown", "suspend",
    "times", "ulimit", "umask",
})  # fmt: skip
_RUNNING_FINDS = re.compile(r"-(exec|execdir|ok|okdir|delete|fprint0?|fprintf|fls)")

_DURATION = re.compile(r"[0-9]+(\.[0-9]+)?[smhd]?", re.ASCII)
_SIGNAL = re.compile(r"[A-Z0-9]+", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=", re.ASCII | re.DOTALL)
_SHELL_FLAGS = re.compile(r"-[eux]+|-[eux]*o")
_SHELL_COMMAND = re.compile(r"-[eux]*c")
_MARK = re.compile(r"\{\}|%|@@?")
_DEEPEST = 8
_MOST = 200  # commands of one line


def read_commands(line: str) -> tuple[Invocation, ...]:
    """What ``line`` runs, behind every wrapper. Raises :exc:`NotUnderstood`."""
    found = tuple(_all_behind(read_line(line), depth=0))
    if len(found) > _MOST:
        raise NotUnderstood(f"it runs more than {_MOST} commands")
    return found


def system_name(program: str) -> str:
    """What a program of the system is called, "" for one that lies elsewhere."""
    directory, slash, name = program.rpartition("/")
    return name if not slash or directory in SYSTEM_DIRECTORIES else ""


def needs_arguments_named(command: Invocation) -> bool:
    """Whether knowing the program says too little about what ``command`` does."""
    name, arguments = system_name(command.program), command.arguments
    if name in SHELLS or name in _LAUNCHERS:
        return True
    fixed = list(fixed_words(arguments))
    match name:
        case "find":
            is_open = len(fixed) < len(arguments)
            return is_open or any(_RUNNING_FINDS.fullmatch(text) for text in fixed)
        case "printf":  # -v sets a variable, PATH for one
            return bool(arguments) and (not fixed or fixed[0].startswith("-v"))
        case "test" | "[":  # -v may evaluate what it is given
            return len(fixed) < len(arguments) or "-v" in fixed
        case "wait":  # -p evaluates what it is given, as the index of an array for one
            return len(fixed) < len(arguments) or any(text.startswith("-") for text in fixed)
        case _:
            return False


def _all_behind(commands: tuple[Invocation, ...], *, depth: int) -> Iterator[Invocation]:
    if depth > _DEEPEST:
        raise NotUnderstood("too many wrappers in each other")
    for command in commands:
        behind = _behind(command)
        if behind is None:
            yield command
        else:
            # What was set for the wrapper is set for what it runs.
            inner = tuple(
                replace(
                    each,
                    variables=(*command.variables, *each.variables),
                    writes=(*command.writes, *each.writes),
                )
                for each in behind
            )
            yield from _all_behind(inner, depth=depth + 1)


def _behind(command: Invocation) -> tuple[Invocation, ...] | None:
    """What a wrapper runs, None for what is none."""
    name = system_name(command.program)
    words = list(command.arguments)
    match name:
        case "nohup" | "setsid" | "time" | "exec" | "command" | "builtin":
            return _run(words)
        case "env":
            return _behind_env(words)
        case "nice":
            _pass_options(words, {"-n": _NUMBER})
            return _run(words)
        case "timeout":
            _pass_options(words, {"-k": _DURATION, "-s": _SIGNAL, "--preserve-status": None})
            if words:
                _require(words.pop(0), _DURATION)
            return _run(words)
        case "xargs":
            return _behind_xargs(words)
        case "sh" | "bash" | "dash":
            return _behind_shell(words)
        case _:
            return None


def _run(words: list[Word], variables: tuple[str, ...] = ()) -> tuple[Invocation, ...] | None:
    if not words:
        return None
    if words[0].text in {"-v", "-V"}:  # of ``command``: only tells
        return None
    require_program(words[0])
    if words[0].text.startswith("-"):
        raise NotUnderstood(f"the option {words[0].text!r} of a program that runs another")
    return (Invocation(tuple(words), variables),)


def _behind_env(words: list[Word]) -> tuple[Invocation, ...] | None:
    variables = []
    while words and (match := _VARIABLE.match(words[0].text)) is not None:
        if not words.pop(0).is_fixed:
            raise NotUnderstood("a variable that may become several words")
        variables.append(match[1])
    return _run(words, tuple(variables))


def _behind_xargs(words: list[Word]) -> tuple[Invocation, ...] | None:
    mark = ""
    options: dict[str, re.Pattern[str] | None] = {
        "-0": None, "-r": None, "-t": None,
        "-n": _NUMBER, "-P": _NUMBER, "-L": _NUMBER, "-I": _MARK,
    }  # fmt: skip
    for option, value in _pass_options(words, options):
        mark = value if option == "-I" else mark
    if words and mark and mark in words[0].text:
        raise NotUnderstood("the program is what xargs reads")
    # With -I what is read stands where the mark is, else at the end.
    words = [Word(w.text, w.is_fixed and not (mark and mark in w.text)) for w in words]
    return _run([*words, Word("…", is_fixed=False)] if words and not mark else words)


def _behind_shell(words: list[Word]) -> tuple[Invocation, ...] | None:
    while words:
        option = words.pop(0)
        if not option.is_fixed:
            return None
        if _SHELL_COMMAND.fullmatch(option.text):
            if not words or not words[0].is_fixed:
                raise NotUnderstood("what a shell is told to run is not known before")
            return read_line(words[0].text)
        if not _SHELL_FLAGS.fullmatch(option.text):
            return None
        if option.text.endswith("o") and (not words or words.pop(0) != Word("pipefail")):
            return None
    return None


def _pass_options(
    words: list[Word], known: dict[str, re.Pattern[str] | None]
) -> list[tuple[str, str]]:
    """Take the options off ``words``; raise :exc:`NotUnderstood` for an unknown one."""
    found = []
    while words and words[0].text.startswith("-"):
        option = words.pop(0)
        if not option.is_fixed or option.text not in known:
            raise NotUnderstood(f"the option {option.text!r} of a program that runs another")
        pattern = known[option.text]
        value = ""
        if pattern is not None:
            value = _require(words.pop(0), pattern) if words else ""
        found.append((option.text, value))
    return found


def _require(word: Word, pattern: re.Pattern[str]) -> str:
    if (not word.is_fixed and pattern is not _MARK) or pattern.fullmatch(word.text) is None:
        raise NotUnderstood(f"{word.text!r} as the option of a program that runs another")
    return word.text
