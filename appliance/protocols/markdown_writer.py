"""Writes Markdown, or text without its marks, as the parts of a page come along.

Marks are written with the text they stand before (``opening``), so that what
holds no text leaves none behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

_DEEPEST = 8  # quotes and lists that are indented; further ones are not
_LONGEST_OPENING = 64


class WriterFull(Exception):
    """As much was written as was wanted."""


@dataclass(slots=True)
class MarkdownWriter:
    limit: int  # characters; a little more may be written
    with_marks: bool = True
    pieces: list[str] = field(default_factory=list)
    size: int = 0  # characters of text, without gaps and marks
    is_literal: bool = False  # within a preformatted block

    _written: int = 0
    _opening: str = ""
    _gap: int = 0  # line ends before the next text
    _space: bool = False
    _indents: list[str] = field(default_factory=list)
    _first_indent: str | None = None  # of the next line alone
    _last_indents: list[str] = field(default_factory=list)  # of the line before
    _link_at: int | None = None  # the piece whose text is a link's mark
    _broke: bool = False  # since the link began

    def text(self, data: str) -> None:
        if self.is_literal:
            self._literal(data)
            return
        words = data.split()
        if not words:
            self._space = self._space or bool(data)
            return
        self._space = self._space or data[0].isspace()
        self._put(" ".join(words))
        self._space = data[-1].isspace()

    def block(self, line_ends: int = 2) -> None:
        """What follows begins on a line of its own."""
        # A mark that waits for its text takes whatever comes first.
        if not self._opening or self._opening.endswith(("[", "`")):
            self._gap = max(self._gap, line_ends)
            self._space = False

    def space(self) -> None:
        self._space = True

    def line(self) -> None:
        """A line end within a block."""
        if self.is_literal:
            self._literal("\n")
        else:
            self.block(1)

    def mark(self, text: str) -> None:
        """Put ``text`` before what comes next, if marks are wanted."""
        if self.with_marks:
            self.bullet(text)

    def bullet(self, text: str) -> None:
        if len(self._opening) < _LONGEST_OPENING:
            self._opening += text

    def unmark(self) -> None:
        """Forget marks that nothing came for."""
        self._opening = ""

    # Inline

    def begin_code(self) -> None:
        self.mark("`")

    def end_code(self) -> None:
        if self._opening.endswith("`"):
            self._opening = self._opening[:-1]
        elif self.with_marks:
            self._append("`")

    def begin_link(self) -> None:
        self._link_at, self._broke = None, False
        self.mark("[")

    def end_link(self, url: str) -> None:
        """``url`` may be empty: then the text stays and the link goes."""
        at, self._link_at = self._link_at, None
        if "[" in self._opening:
            self._opening = self._opening.replace("[", "", 1)
        if at is None:
            return
        inner = self.pieces[at + 1 :]
        if not url or self._broke or (len(inner) == 1 and inner[0] == url):
            self.pieces[at] = self.pieces[at].replace("[", "", 1)
            if url and self._broke:
                self._append(f" ({url})")
        else:
            self._append(f"]({url})")

    # Blocks

    def indent(self, text: str, *, starts_here: bool) -> None:
        """Put ``text`` before each line from the next on, or from the one after it."""
        if not starts_here and self._first_indent is None:
            self._first_indent = self._indent
        self._indents.append(text)

    def outdent(self) -> None:
        self._indents.pop()
        self._first_indent = None

    def begin_literal(self) -> None:
        self.block()
        self.mark("```\n")
        self.is_literal = True

    def end_literal(self) -> None:
        self.is_literal = False
        if self._opening.endswith("```\n"):
            self._opening = ""
        elif self.with_marks:
            self._gap, self._space = 1, False
            self._put("```")
        self.block()

    def row_rule(self, cells: int) -> None:
        if self.with_marks and cells > 1:
            self.block(1)
            self._put(" | ".join(["---"] * min(cells, 100)))

    # Putting it there

    @property
    def _indent(self) -> str:
        return "".join(self._indents[:_DEEPEST])

    def _literal(self, data: str) -> None:
        data = data.replace("\r\n", "\n")
        if not self._opening or data.strip():
            self._put(data.replace("\n", "\n" + self._indent))

    def _put(self, text: str) -> None:
        if self._gap:
            self._break()
        elif self._space and self._written:
            self._append(" ")
        self._space = False
        if self._opening:
            opening, self._opening = self._opening, ""
            if "[" in opening:
                self._link_at = len(self.pieces)
            if opening.endswith("```\n"):
                opening = opening[:-1] + "\n" + self._indent
            self._append(opening)
        self.size += len(text)
        self._append(text)

    def _break(self) -> None:
        if self._link_at is not None:
            self._broke = True
        if self._written:
            # A quote's mark stands on empty lines within it, not on those around it.
            empty = "\n" + _shared(self._indents, self._last_indents).rstrip()
            self._append(empty * (self._gap - 1) + "\n")
        first = self._indent if self._first_indent is None else self._first_indent
        self._last_indents = self._indents.copy()
        if first:
            self._append(first)
        self._gap, self._first_indent = 0, None

    def _append(self, text: str) -> None:
        self.pieces.append(text)
        self._written += len(text)
        if self._written > self.limit:
            raise WriterFull


def _shared(one: Sequence[str], other: Sequence[str]) -> str:
    """What both begin with."""
    pairs = zip(one[:_DEEPEST], other, strict=False)
    return "".join(mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
