"""Which programs a shell's command line runs, as far as that can be told for certain.

This reads a part of the shell's language: simple commands, what joins them,
quotes, substitutions, subshells and redirections. The rest (loops, functions,
arithmetic, here-documents, …) raises :exc:`NotUnderstood`, and so does what is
plain in one shell and means something else in another. To find a program that
is not run costs a question; to overlook one that is run costs everything.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 16_000  # characters: all tenants wait while one's line is read
_DEEPEST = 16  # of substitutions and subshells
_BLANKS = " \t"
_ENDS_WORD = frozenset(" \t\n;|&()<>")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=", re.ASCII)
_ODD_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\[|\+=)", re.ASCII)
_BRACED = re.compile(r"\{#?[A-Za-z0-9_]+\}", re.ASCII)
_REDIRECTION = re.compile(r"&>>|&>|<<<|>>|>\||>&|<>|<&|<|>")
_OPERATOR = re.compile(r"&&|\|\||\|&|[;|&\n]")
_PROGRAM = re.compile(r"[A-Za-z0-9._/+@-]+|:|\[", re.ASCII)
_RESERVED = frozenset({
    "!", "[[", "]]", "{", "}", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for",
    "function", "if", "in", "select", "then", "until", "while",
})  # fmt: skip
_NOWHERE = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr"})


class NotUnderstood(Exception):
    """Nobody can say what the line would run. The text says at what the reader gave up."""


@dataclass(frozen=True, slots=True)
class Word:
    """``text`` is without quotes; unless ``is_fixed``, the shell makes something else of it.

    That may be several words, or none.
    """

    text: str
    is_fixed: bool = True


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command: a program and its arguments, or only variables and redirections."""

    words: tuple[Word, ...]
    variables: tuple[str, ...] = ()  # set for it
    writes: tuple[str, ...] = ()  # files that its redirections write

    @property
    def program(self) -> str:
        return self.words[0].text if self.words else ""

    @property
    def arguments(self) -> tuple[Word, ...]:
        return self.words[1:]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


def read_line(line: str, *, depth: int = 0) -> tuple[Invocation, ...]:
    """Every command of ``line``, those of its substitutions included.

    Raises :exc:`NotUnderstood`.
    """
    if len(line) > LONGEST:
        raise NotUnderstood("the line is too long")
    for character in line:
        if (character < " " and character not in "\t\n") or character == "\x7f":
            raise NotUnderstood("a control character")
    reader = _Reader(line, depth)
    reader.read_list(until="")
    return tuple(reader.found)


def require_program(word: Word) -> None:
    """Raise :exc:`NotUnderstood` unless ``word`` plainly names a program."""
    if not word.is_fixed or _PROGRAM.fullmatch(word.text) is None:
        raise NotUnderstood(f"the program is {word.text[:80]!r}")
    if word.text in _RESERVED:
        raise NotUnderstood(f"{word.text!r} begins a compound command")


@dataclass(slots=True)
class _Draft:
    """A word that is being read."""

    text: str = ""
    is_fixed: bool = True
    is_quoted: bool = False


class _Reader:
    def __init__(self, text: str, depth: int) -> None:
        self._text = text
        self._at = 0
        self._depth = depth
        self.found: list[Invocation] = []

    def read_list(self, *, until: str) -> None:
        """Read commands up to ``until`` ("" is the end of the text), which is passed."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NotUnderstood("it is nested too deeply")
        self._skip_lines()
        while not self._ends(until):
            self._read_command()
            operator = self._operator()
            self._skip_lines()
            if operator in {"&&", "||", "|", "|&"} and self._ends(until):
                raise NotUnderstood(f"nothing follows {operator!r}")
            if not operator and not self._ends(until):
                raise NotUnderstood(f"unexpected {self._here()!r}")
        self._at += len(until)
        self._depth -= 1

    def _ends(self, until: str) -> bool:
        if self._at >= len(self._text):
            if until:
                raise NotUnderstood(f"there is no closing {until!r}")
            return True
        return bool(until) and self._here() == until

    def _here(self, ahead: int = 0) -> str:
        return self._text[self._at + ahead : self._at + ahead + 1]

    def _starts(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _operator(self) -> str:
        match = _OPERATOR.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _skip_blanks(self) -> None:
        """Pass spaces, continued lines and a comment."""
        while True:
            if self._here() and self._here() in _BLANKS:
                self._at += 1
            elif self._starts("\\\n"):
                self._at += 2
            else:
                break
        if self._here() == "#":
            end = self._text.find("\n", self._at)
            self._at = len(self._text) if end < 0 else end

    def _skip_lines(self) -> None:
        self._skip_blanks()
        while self._here() == "\n":
            self._at += 1
            self._skip_blanks()

    # -- commands --------------------------------------------------------

    def _read_command(self) -> None:
        if self._here() == "(":
            if self._here(1) == "(":
                raise NotUnderstood("arithmetic")
            self._at += 1
            self.read_list(until=")")
            self._read_simple(is_subshell=True)
        else:
            self._read_simple(is_subshell=False)

    def _read_simple(self, *, is_subshell: bool) -> None:
        words: list[Word] = []
        variables: list[str] = []
        writes: list[str] = []
        is_closed = is_subshell  # whether another word would be misread by some shell
        start = self._at
        while True:
            self._skip_blanks()
            redirection = self._redirection()
            if redirection:
                writes += self._read_target(redirection)
                is_closed = is_closed or redirection.startswith("&")
                continue
            if not self._here() or (self._here() in _ENDS_WORD and not self._substitutes()):
                break
            name = None if words else self._assignment()
            draft = self._read_word()
            if self._is_descriptor(draft):
                continue
            if is_closed:
                raise NotUnderstood(f"a word after {'a subshell' if is_subshell else '&>'}")
            if name is not None:
                variables.append(name)
            else:
                words.append(Word(draft.text, draft.is_fixed))
        if self._at == start and not is_subshell:
            raise NotUnderstood(f"unexpected {self._here()!r}")
        if words:
            require_program(words[0])
        if words or variables or writes:
            self.found.append(Invocation(tuple(words), tuple(variables), tuple(writes)))

    def _assignment(self) -> str | None:
        if _ODD_ASSIGNMENT.match(self._text, self._at):
            raise NotUnderstood("an array, or an assignment that adds")
        match = _ASSIGNMENT.match(self._text, self._at)
        return None if match is None else match[1]

    def _is_descriptor(self, draft: _Draft) -> bool:
        """Whether it was the ``2`` of ``2>&1``."""
        is_number = draft.text.isdigit() and draft.is_fixed and not draft.is_quoted
        return is_number and self._here() in {"<", ">"}

    def _redirection(self) -> str:
        if self._substitutes() or (self._starts("<<") and not self._starts("<<<")):
            if self._starts("<<"):
                raise NotUnderstood("a here-document")
            return ""
        match = _REDIRECTION.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _read_target(self, redirection: str) -> list[str]:
        """The file that is written, if one is."""
        self._skip_blanks()
        if not self._here() or (self._here() in _ENDS_WORD and not self._substitutes()):
            raise NotUnderstood(f"nothing follows {redirection!r}")
        target = self._read_word()
        if redirection in {"<", "<&", "<<<"}:
            return []
        is_copy = redirection == ">&" and re.fullmatch(r"[0-9]+|-", target.text) is not None
        if target.is_fixed and (is_copy or target.text in _NOWHERE):
            return []
        return [target.text]

    # -- words -----------------------------------------------------------

    def _substitutes(self) -> bool:
        return self._starts("<(") or self._starts(">(")

    def _read_word(self) -> _Draft:
        draft = _Draft()
        if self._here() == "~":
            draft.is_fixed = False
        while (here := self._here()) and (here not in _ENDS_WORD or self._substitutes()):
            self._at += 1
            match here:
                case "'":
                    draft.text += self._read_until("'")
                    draft.is_quoted = True
                case '"':
                    self._read_double_quoted(draft)
                case "\\":
                    draft.text += self._escaped()
                    draft.is_quoted = True
                case "$" | "`":
                    self._read_expansion(here, draft, is_quoted=False)
                case "<" | ">":
                    self._at += 1
                    self.read_list(until=")")
                    draft.is_fixed = False
                case _:
                    draft.text += here
                    draft.is_fixed = draft.is_fixed and here not in "*?[{}"
        # Alone it is the other name of ``test``.
        draft.is_fixed = draft.is_fixed or draft.text == "[" == self._text[self._at - 1]
        return draft

    def _read_until(self, end: str) -> str:
        found = self._text.find(end, self._at)
        if found < 0:
            raise NotUnderstood(f"there is no closing {end}")
        text = self._text[self._at : found]
        self._at = found + 1
        return text

    def _escaped(self) -> str:
        if not self._here():
            raise NotUnderstood("it ends in a backslash")
        self._at += 1
        return "" if self._text[self._at - 1] == "\n" else self._text[self._at - 1]

    def _read_double_quoted(self, draft: _Draft) -> None:
        draft.is_quoted = True
        while (here := self._here()) != '"':
            if not here:
                raise NotUnderstood('there is no closing "')
            self._at += 1
            if here == "\\" and self._here() and self._here() in '$`"\\\n':
                draft.text += self._escaped()
            elif here in "$`":
                self._read_expansion(here, draft, is_quoted=True)
            else:
                draft.text += here
        self._at += 1

    def _read_expansion(self, sign: str, draft: _Draft, *, is_quoted: bool) -> None:
        start = self._at - 1
        if sign == "`":
            self._read_backquoted(is_quoted=is_quoted)
        elif self._starts("((") or self._here() == "[":
            raise NotUnderstood("arithmetic")
        elif self._here() == "(":
            self._at += 1
            self.read_list(until=")")
        elif self._here() == "{":
            braced = _BRACED.match(self._text, self._at)
            if braced is None:
                raise NotUnderstood("an expansion with braces")
            self._at = braced.end()
        elif match := _NAME.match(self._text, self._at):
            self._at = match.end()
        elif self._here() and self._here() in "?$#!*@-0123456789":
            self._at += 1
        elif not is_quoted and self._here() and self._here() in "'\"":
            raise NotUnderstood("quotes after a $")
        else:
            draft.text += sign
            return
        draft.is_fixed = False
        draft.text += self._text[start : self._at]

    def _read_backquoted(self, *, is_quoted: bool) -> None:
        inside = self._read_until("`")
        # What a backslash or a quote means in here depends on the shell.
        if "\\" in inside or (is_quoted and '"' in inside):
            raise NotUnderstood("quotes within backquotes")
        self.found += read_line(inside, depth=self._depth)


def fixed_words(words: tuple[Word, ...]) -> Iterator[str]:
    """The texts of words, up to the first one that is not fixed."""
    for word in words:
        if not word.is_fixed:
            return
        yield word.text
