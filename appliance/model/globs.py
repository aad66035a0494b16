"""File patterns as people write them, as extended regular expressions.

The expression is matched by a program in a sandbox, against paths that begin
with ``./``: a pattern may be made to take for ever, and then it is not us who
wait for it.
"""

LONGEST = 1000  # characters

_SPECIAL = frozenset(".^$*+?()[]{}|\\")


def to_regex(glob: str) -> str:
    """A POSIX extended expression for what ``glob`` matches.

    Without a slash it is about names, at any depth; with one about paths from
    where the search begins. ``*`` and ``?`` stay within a name, ``**`` does
    not; ``[abc]``, ``[!abc]`` and ``{a,b}`` are known, ``\\`` takes a
    character as it is. Raises :exc:`ValueError` for what cannot be a pattern.
    """
    if not glob or len(glob) > LONGEST or "\0" in glob:
        raise ValueError(f"a file pattern has 1 to {LONGEST} characters and no NUL")
    pattern = glob.removeprefix("/workspace/").lstrip("/").removeprefix("./").lstrip("/")
    anywhere = "" if "/" in pattern.rstrip("/") else "(.*/)?"
    return rf"\./{anywhere}{_Translation(pattern.rstrip('/')).result}"


# These begin something else in an expression, or may one day.
_ODD_IN_SETS = ("[.", "[=", "[:", "--", "&&", "~~", "||")


class _Translation:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        parts = []
        while self._at < len(pattern):
            parts.append(self._next())
        # What a bracket swallowed may have been the end of an alternative.
        self.result = "".join(parts) + ")" * self._depth

    def _next(self) -> str:
        char = self._pattern[self._at]
        self._at += 1
        match char:
            case "*":
                return self._star()
            case "?":
                return "[^/]"
            case "[":
                return self._bracket()
            case "{" if self._closes():
                self._depth += 1
                return "("
            case "}" if self._depth:
                self._depth -= 1
                return ")"
            case "," if self._depth:
                return "|"
            case "\\" if self._at < len(self._pattern):
                self._at += 1
                return _literal(self._pattern[self._at - 1])
            case _:
                return _literal(char)

    def _star(self) -> str:
        if not self._pattern.startswith("*", self._at):
            return "[^/]*"
        while self._pattern.startswith("*", self._at):
            self._at += 1
        if self._pattern.startswith("/", self._at):
            self._at += 1
            return "(.*/)?"
        return ".*"

    def _bracket(self) -> str:
        """A set of characters, or the bracket itself if it is not closed."""
        start = self._at
        negated = self._pattern[start : start + 1] in {"!", "^"}
        first = start + negated
        # A bracket that comes first belongs to the set.
        end = self._pattern.find("]", first + 1)
        inside = self._pattern[first:end]
        if end < 0 or "/" in inside or any(odd in inside for odd in _ODD_IN_SETS):
            return r"\["
        if negated and inside[-1:] == "-":
            return r"\["  # together with the slash it would be a range
        self._at = end + 1
        return f"[^{inside}/]" if negated else f"[{inside}]"

    def _closes(self) -> bool:
        """Whether the brace just read is closed further on."""
        depth = 1
        at = self._at
        while at < len(self._pattern):
            char = self._pattern[at]
            at += 2 if char == "\\" else 1
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return True
        return False


def _literal(char: str) -> str:
    return f"\\{char}" if char in _SPECIAL else char
