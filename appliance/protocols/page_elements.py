"""What single HTML elements become in Markdown: links, lists, tables, quotes, code."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from appliance.protocols.markdown_writer import MarkdownWriter

Attributes = Mapping[str, str]

_LONGEST_TITLE = 300
_LONGEST_LINK = 2000
_BLOCKS = frozenset(
    {
        "p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "figure",
        "figcaption", "address", "form", "fieldset", "details", "summary", "dl", "hgroup",
        "center", "hr",
    }
)  # fmt: skip
_LINES = frozenset({"dt", "dd", "legend", "caption", "tr"})
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}


class PageElements:
    """Writes what a page shows, element by element. ``url`` is what links are relative to."""

    def __init__(self, url: str, writer: MarkdownWriter) -> None:
        self.writer = writer
        self._title: list[str] = []
        self._url = url
        self._has_base = False
        self._in_title = False
        self._title_ended = False
        self._link: str | None = None
        self._lists: list[int | None] = []  # the next number, None for bullets
        self._tables: list[_Table] = []

    @property
    def title(self) -> str:
        return " ".join("".join(self._title).split())[:_LONGEST_TITLE]

    def begin(self, tag: str, attributes: Attributes) -> None:
        if tag in _HEADINGS:
            self._begin_heading(tag)
        elif tag in _BLOCKS:
            self._block(2)
        elif tag in _LINES:
            self._block(1)
        if (begin := _BEGINNINGS.get(tag)) is not None:
            begin(self, attributes)

    def end(self, tag: str) -> None:
        if tag in _HEADINGS:
            self.writer.unmark()
            self._block(2)
        elif tag in _BLOCKS:
            self._block(2)
        elif tag in _LINES:
            self._block(1)
        if (finish := _ENDINGS.get(tag)) is not None:
            finish(self)

    def text(self, data: str) -> None:
        if not self._in_title:
            self.writer.text(data)
        elif not self._title_ended and len(self._title) < _LONGEST_TITLE:
            self._title.append(data[: 2 * _LONGEST_TITLE])

    def _block(self, line_ends: int) -> None:
        if self._tables and self._tables[-1].in_cell:
            self.writer.space()
        else:
            self.writer.block(line_ends)

    def _begin_heading(self, tag: str) -> None:
        self._block(2)
        if not (self._tables and self._tables[-1].in_cell):
            self.writer.mark(_HEADINGS[tag])

    def begin_title(self, _: Attributes) -> None:
        self._in_title = True

    def end_title(self) -> None:
        self._in_title = False
        self._title_ended = self._title_ended or bool("".join(self._title).strip())

    def set_base(self, attributes: Attributes) -> None:
        if not self._has_base and (address := self._absolute(attributes.get("href", ""))):
            self._url, self._has_base = address, True

    def begin_link(self, attributes: Attributes) -> None:
        href = attributes.get("href", "").strip()
        self._link = "" if href.startswith("#") else self._absolute(href)
        self.writer.begin_link()

    def end_link(self) -> None:
        if self._link is not None:
            self.writer.end_link(self._link)
            self._link = None

    def show_image(self, attributes: Attributes) -> None:
        says = " ".join(attributes.get("alt", "").split())[:_LONGEST_LINK]
        address = self._absolute(attributes.get("src", ""))
        if not says or not self.writer.with_marks:
            return
        self.writer.text(f"![{says}]({address})" if address and self._link is None else says)

    def begin_list(self, _: Attributes) -> None:
        self._block(1 if self._lists else 2)
        self._lists.append(None)

    def begin_numbers(self, attributes: Attributes) -> None:
        self._block(1 if self._lists else 2)
        start = attributes.get("start", "")
        self._lists.append(int(start) if start.isascii() and start[:9].isdigit() else 1)

    def end_list(self) -> None:
        if self._lists:
            self._lists.pop()
        self._block(1 if self._lists else 2)

    def begin_item(self, _: Attributes) -> None:
        self._block(1)
        number = self._lists[-1] if self._lists else None
        mark = "- "
        if number is not None:
            mark = f"{number}. "
            self._lists[-1] = number + 1
        self.writer.indent(" " * len(mark), starts_here=False)
        self.writer.bullet(mark)

    def end_item(self) -> None:
        self.writer.unmark()
        self.writer.outdent()
        self._block(1)

    def begin_quote(self, _: Attributes) -> None:
        self._block(2)
        self.writer.indent("> ", starts_here=True)

    def end_quote(self) -> None:
        self.writer.outdent()
        self._block(2)

    def begin_literal(self, _: Attributes) -> None:
        self.writer.begin_literal()

    def end_literal(self) -> None:
        self.writer.end_literal()

    def begin_code(self, _: Attributes) -> None:
        if not self.writer.is_literal:
            self.writer.begin_code()

    def end_code(self) -> None:
        if not self.writer.is_literal:
            self.writer.end_code()

    def break_line(self, _: Attributes) -> None:
        if self._tables and self._tables[-1].in_cell:
            self.writer.space()
        else:
            self.writer.line()

    def begin_table(self, _: Attributes) -> None:
        # One within a cell means that the outer one only places things.
        self.writer.block(2)
        self._tables.append(_Table())

    def end_table(self) -> None:
        if self._tables:
            self._tables.pop()
        self._block(2)

    def begin_row(self, _: Attributes) -> None:
        if self._tables:
            self._tables[-1].begin_row()

    def end_row(self) -> None:
        if self._tables:
            table = self._tables[-1]
            table.in_cell = False
            if table.rows == 1 and table.has_headings:
                self.writer.row_rule(table.cells)
            self.writer.block(1)

    def begin_cell(self, _: Attributes) -> None:
        if self._tables:
            table = self._tables[-1]
            if table.cells and not self.writer.is_literal:
                self.writer.text(" | ")
            table.cells += 1
            table.in_cell = True

    def begin_heading_cell(self, attributes: Attributes) -> None:
        self.begin_cell(attributes)
        if self._tables:
            self._tables[-1].has_headings = True

    def end_cell(self) -> None:
        if self._tables:
            self._tables[-1].in_cell = False

    def _absolute(self, href: str) -> str:
        """The address that ``href`` means, "" for what cannot be followed."""
        href = href.strip()
        if not href or len(href) > _LONGEST_LINK:
            return ""
        try:
            address = urljoin(self._url, href)
        except ValueError:
            return ""
        followed = address.startswith(("http://", "https://", "mailto:"))
        address = re.sub(r"[\s()<>\x00-\x20]", _escaped, address)
        return address if followed and len(address) <= _LONGEST_LINK else ""


@dataclass(slots=True)
class _Table:
    rows: int = 0
    cells: int = 0  # of this row
    in_cell: bool = False
    has_headings: bool = False

    def begin_row(self) -> None:
        self.rows += 1
        self.cells, self.in_cell, self.has_headings = 0, False, False


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="replace"))


_BEGINNINGS: dict[str, Callable[[PageElements, Attributes], None]] = {
    "title": PageElements.begin_title,
    "base": PageElements.set_base,
    "a": PageElements.begin_link,
    "img": PageElements.show_image,
    "ul": PageElements.begin_list,
    "menu": PageElements.begin_list,
    "ol": PageElements.begin_numbers,
    "li": PageElements.begin_item,
    "blockquote": PageElements.begin_quote,
    "pre": PageElements.begin_literal,
    "code": PageElements.begin_code,
    "br": PageElements.break_line,
    "table": PageElements.begin_table,
    "tr": PageElements.begin_row,
    "td": PageElements.begin_cell,
    "th": PageElements.begin_heading_cell,
}
_ENDINGS: dict[str, Callable[[PageElements], None]] = {
    "title": PageElements.end_title,
    "a": PageElements.end_link,
    "ul": PageElements.end_list,
    "menu": PageElements.end_list,
    "ol": PageElements.end_list,
    "li": PageElements.end_item,
    "blockquote": PageElements.end_quote,
    "pre": PageElements.end_literal,
    "code": PageElements.end_code,
    "table": PageElements.end_table,
    "tr": PageElements.end_row,
    "td": PageElements.end_cell,
    "th": PageElements.end_cell,
}
