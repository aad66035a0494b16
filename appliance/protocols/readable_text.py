"""What a person would read of an HTML page, as Markdown or as text.

The page is read as a stream of tags and never becomes a tree: a hostile page
costs no memory that way, and can be left at any point. Depth, tags and
characters are bounded, since a parser looks through all open elements for the
one that an end tag means.

What cannot be seen is left out, comments and hidden elements above all: that
is where texts stand that are meant for machines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.protocols.markdown_writer import MarkdownWriter, WriterFull
from appliance.protocols.page_elements import PageElements

LARGEST_PAGE = 2 * 1024 * 1024  # characters that are looked at
DEEPEST = 500  # elements within each other; browsers stop there as well
MOST_EVENTS = 250_000  # tags and pieces of text
_PIECE = 32 * 1024  # bytes that are parsed at a time
_ROOM = 200_000  # characters around what is wanted: it may stand behind them
_LEAST = 100  # characters; a page with less lost what it says to our choice
_MUCH = 4  # times as long: what stands around a page can be all of it
_LEAST_MAIN = 200

_DROPPED = frozenset(
    {
        "script", "style", "noscript", "template", "svg", "iframe", "object", "embed", "canvas",
        "audio", "video", "map", "button", "input", "select", "textarea", "option", "datalist",
        "frameset", "frame", "noframes", "applet",
    }
)  # fmt: skip
_AROUND = frozenset({"nav", "aside"})
_AROUND_UNLESS_WITHIN = frozenset({"header", "footer"})
_AROUND_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary"})
_HIDDEN_STYLE = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0*)?\s*(?:;|$|!)"
    r"|font-size\s*:\s*0(?:px|pt|em|rem|%)?\s*(?:;|$|!))",
    re.IGNORECASE,
)
# Invisible: direction overrides, tags and controls. Joiners stay, scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)


@dataclass(frozen=True, slots=True)
class ReadablePage:
    title: str
    text: str
    is_cut: bool  # there is more than this


def _etree() -> Any:
    from lxml import etree  # here, because most gateways never read a page

    return etree


def read_html(html: str, *, url: str, limit: int, with_marks: bool = True) -> ReadablePage:
    """At most ``limit`` characters of what the page at ``url`` says. Raises nothing; blocks.

    The main part is chosen where the page says which it is; links become
    absolute.
    """
    page, chose = _read(html, url, limit, with_marks, is_choosy=True)
    if chose and len(page.text) < _LEAST:
        whole, _ = _read(html, url, limit, with_marks, is_choosy=False)
        page = whole if len(whole.text) > _MUCH * len(page.text) else page
    return page


def visible(text: str) -> str:
    """``text`` without characters that nobody sees."""
    return _INVISIBLE.sub("", text)


def _read(
    html: str,
    url: str,
    limit: int,
    with_marks: bool,  # noqa: FBT001 - passed on
    *,
    is_choosy: bool,
) -> tuple[ReadablePage, bool]:
    """The page, and whether anything was left out that may have been the page."""
    etree = _etree()
    reader = _Reader(url, limit + _ROOM, with_marks=with_marks, is_choosy=is_choosy)
    parser = etree.HTMLParser(
        target=reader,
        encoding="utf-8",
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    data = html[:LARGEST_PAGE].replace("\0", "\ufffd").encode(errors="replace")
    is_cut = len(html) > LARGEST_PAGE
    try:
        for at in range(0, len(data), _PIECE):
            parser.feed(data[at : at + _PIECE])
        parser.close()
    except (WriterFull, _TooMuch):
        is_cut = True
    except etree.LxmlError:
        pass  # nothing that could be read, or no more of it
    text = visible(reader.chosen())
    title = visible(reader.elements.title)
    page = ReadablePage(title, text[:limit], is_cut or len(text) > limit)
    return page, reader.chose


class _TooMuch(Exception):
    """The page is nested too deep, or does not end."""


@dataclass(slots=True)
class _Region:
    """A part of the page that says what it is."""

    tag: str
    depth: int
    begin: int  # pieces
    size_before: int
    end: int = 0
    size: int = 0


class _Reader:
    """What lxml tells of the tags."""

    def __init__(self, url: str, limit: int, *, with_marks: bool, is_choosy: bool) -> None:
        self.chose = False  # what stands around the page was left out
        self._writer = MarkdownWriter(limit, with_marks=with_marks)
        self.elements = PageElements(url, self._writer)
        self._is_choosy = is_choosy
        self._open: list[str] = []
        self._skipping = 0  # the depth of what is left out; 0 is nothing
        self._events = 0
        self._regions: list[_Region] = []
        self._in_regions: list[_Region] = []

    def close(self) -> None:
        """What lxml asks for at the end."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._count()
        self._open.append(tag)
        if len(self._open) > DEEPEST:
            raise _TooMuch
        if self._skipping:
            return
        if self._is_left_out(tag, attributes):
            self._skipping = len(self._open)
            return
        self._note_region(tag, attributes)
        self.elements.begin(tag, attributes)

    def end(self, tag: str) -> None:
        if self._open:
            self._open.pop()
        if self._skipping:
            if len(self._open) < self._skipping:
                self._skipping = 0
            return
        if self._in_regions and len(self._open) < self._in_regions[-1].depth:
            region = self._in_regions.pop()
            region.end = len(self._writer.pieces)
            region.size = self._writer.size - region.size_before
        self.elements.end(tag)

    def data(self, text: str) -> None:
        self._count()
        if not self._skipping:
            self.elements.text(text)

    def chosen(self) -> str:
        """The text of the main part, or all."""
        pieces, size = self._writer.pieces, self._writer.size
        for region in self._in_regions:  # it never came to their ends
            region.end, region.size = len(pieces), size - region.size_before
        for tag, least in (("main", min(_LEAST_MAIN, size // 4)), ("article", size // 2)):
            found = max(
                (region for region in self._regions if region.tag == tag),
                key=lambda region: region.size,
                default=None,
            )
            if self._is_choosy and found is not None and found.size > least:
                self.chose = True
                return "".join(pieces[found.begin : found.end]).strip()
        return "".join(pieces).strip()

    def _count(self) -> None:
        self._events += 1
        if self._events > MOST_EVENTS:
            raise _TooMuch

    def _is_left_out(self, tag: str, attributes: Mapping[str, str]) -> bool:
        if tag in _DROPPED:
            return True
        if self._is_choosy and (
            tag in _AROUND
            or (tag in _AROUND_UNLESS_WITHIN and not self._in_regions)
            or attributes.get("role", "").lower() in _AROUND_ROLES
        ):
            self.chose = True
            return True
        # Some pages hide all of themselves until their script has run.
        return tag not in {"html", "body"} and _is_hidden(tag, attributes)

    def _note_region(self, tag: str, attributes: Mapping[str, str]) -> None:
        kind = "main" if attributes.get("role", "").lower() == "main" else tag
        if kind in {"main", "article"} and len(self._regions) < 1000:
            begin, size = len(self._writer.pieces), self._writer.size
            region = _Region(kind, len(self._open), begin, size)
            self._regions.append(region)
            self._in_regions.append(region)


def _is_hidden(tag: str, attributes: Mapping[str, str]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden", "").lower() == "true"
        or (tag == "dialog" and "open" not in attributes)
        or ("style" in attributes and bool(_HIDDEN_STYLE.search(attributes["style"][:2000])))
    )
