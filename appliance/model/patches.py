"""Patches in the form that models write them: ``*** Begin Patch`` to ``*** End Patch``.

A patch is parsed as a whole, then tried as a whole against what the files
hold; only the outcome is written, so a patch that does not fit changes nothing.
Places are found by their lines, not by numbers: exactly, then without regard
to space at the ends of lines, then to space on both sides, then to typographic
characters. Lines that a patch only quotes stay as the file has them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from appliance.model.patch_lines import Fuzz, Line, LineSearch, join_lines, split_lines

MOST_FILES = 500
MOST_HUNKS = 1000  # of one file

_BEGIN, _END = "*** Begin Patch", "*** End Patch"
_ADD, _DELETE, _UPDATE = "*** Add File: ", "*** Delete File: ", "*** Update File: "
_MOVE, _END_OF_FILE = "*** Move to: ", "*** End of File"
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?\s*$")
_QUOTED = 160  # characters of a line in a message


class PatchRefused(ValueError):
    """A patch cannot be read, or does not fit. The message may quote a file."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """One place: ``lines`` are (``' '``, ``'-'`` or ``'+'``, text)."""

    lines: Sequence[tuple[str, str]]
    anchors: Sequence[str] = ()  # lines that come before it, each after the other
    at_end: bool = False

    @property
    def old(self) -> list[str]:
        return [text for sign, text in self.lines if sign != "+"]


@dataclass(frozen=True, slots=True)
class AddFile:
    path: str
    content: str


@dataclass(frozen=True, slots=True)
class DeleteFile:
    path: str


@dataclass(frozen=True, slots=True)
class UpdateFile:
    path: str
    hunks: Sequence[Hunk]
    move_to: str | None = None


Change = AddFile | DeleteFile | UpdateFile


@dataclass(slots=True)
class Outcome:
    """What the files will hold; None where one is gone. In the order of the patch."""

    contents: dict[str, str | None] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    fuzz: Fuzz = Fuzz.EXACT  # of the place that fits least


# -- reading -----------------------------------------------------------------


def parse_patch(text: str) -> list[Change]:
    """Raises :exc:`PatchRefused`, which names the line."""
    return _Reader(_bare(text)).changes()


def _bare(text: str) -> list[str]:
    """The lines of a patch, without what some models wrap it in."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    heredoc = _HEREDOC.search(lines[0])
    ending = heredoc[1] if heredoc is not None else "```"
    if (heredoc or lines[0].startswith("```")) and len(lines) > 1 and lines[-1].strip() == ending:
        lines = lines[1:-1]
    return lines


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def changes(self) -> list[Change]:
        if not self._lines or self._lines[0].strip() != _BEGIN:
            raise PatchRefused(f"a patch begins with the line '{_BEGIN}'")
        if self._lines[-1].strip() != _END:
            raise PatchRefused(f"a patch ends with the line '{_END}'")
        self._lines.pop()
        self._at = 1
        changes: list[Change] = []
        while self._at < len(self._lines):
            if not self._lines[self._at].strip():
                self._at += 1
                continue
            changes.append(self._change())
            if len(changes) > MOST_FILES:
                raise PatchRefused(f"a patch changes at most {MOST_FILES} files")
        if not changes:
            raise PatchRefused("the patch changes nothing")
        return changes

    def _change(self) -> Change:
        line = self._take()
        if line.startswith(_ADD):
            return AddFile(self._path(line, _ADD), self._content())
        if line.startswith(_DELETE):
            return DeleteFile(self._path(line, _DELETE))
        if line.startswith(_UPDATE):
            return self._update(self._path(line, _UPDATE))
        raise self._wrong(
            f"begins no change; it has to be '{_ADD}', '{_DELETE}' or '{_UPDATE}' and a path", line
        )

    def _content(self) -> str:
        lines = []
        while (line := self._peek()) is not None and line.startswith("+"):
            lines.append(self._take()[1:])
        return "".join(f"{line}\n" for line in lines)

    def _update(self, path: str) -> UpdateFile:
        move_to = None
        line = self._peek()
        if line is not None and line.startswith(_MOVE):
            move_to = self._path(self._take(), _MOVE)
        hunks = list(self._hunks())
        if len(hunks) > MOST_HUNKS:
            raise PatchRefused(f"{path} is changed in more than {MOST_HUNKS} places; send less")
        if not hunks and move_to is None:
            raise self._wrong("is followed by no lines to change", f"{_UPDATE}{path}")
        return UpdateFile(path, hunks, move_to)

    def _hunks(self) -> Iterator[Hunk]:
        while (line := self._peek()) is not None and not _begins_change(line):
            anchors = []
            while (line := self._peek()) is not None and line.startswith("@@"):
                # "@@ -1,3 +1,4 @@" is a range of a unified diff: a place by number is none.
                anchor = re.sub(r"^@@ -\d\S* \+\d\S* @@ ?", "@@ ", self._take())[2:]
                if anchor.strip():
                    anchors.append(anchor.removeprefix(" "))
            yield self._hunk(anchors)

    def _hunk(self, anchors: list[str]) -> Hunk:
        lines: list[tuple[str, str]] = []
        while (line := self._peek()) is not None:
            if line.strip() == _END_OF_FILE:
                self._take()
                return Hunk(self._some(lines, line), anchors, at_end=True)
            if line.startswith("@@") or _begins_change(line):
                break
            lines.append(self._line())
        # Space between two changes is no line of the file.
        while lines and lines[-1] == (" ", "") and self._at_blank_end():
            lines.pop()
        return Hunk(self._some(lines, line or ""), anchors)

    def _line(self) -> tuple[str, str]:
        line = self._take()
        if not line:
            return " ", ""  # an empty line of the file, whose leading space got lost
        if line[0] not in " +-":
            raise self._wrong("is no line of a change; begin it with ' ', '+' or '-'", line)
        return line[0], line[1:]

    def _some(self, lines: list[tuple[str, str]], line: str) -> list[tuple[str, str]]:
        if not lines:
            raise self._wrong("comes where lines with ' ', '+' or '-' should", line)
        return lines

    def _at_blank_end(self) -> bool:
        return not self._lines[self._at - 1] and self._peek() is not None

    def _path(self, line: str, marker: str) -> str:
        path = line.removeprefix(marker).strip()
        if not path:
            raise self._wrong("names no file", line)
        return path

    def _peek(self) -> str | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _take(self) -> str:
        line = self._lines[self._at]
        self._at += 1
        return line

    def _wrong(self, why: str, line: str) -> PatchRefused:
        return PatchRefused(f"line {self._at} of the patch, {line[:_QUOTED]!r}, {why}")


def _begins_change(line: str) -> bool:
    return line.startswith((_ADD, _DELETE, _UPDATE))


# -- applying ----------------------------------------------------------------


def apply_patch(changes: Sequence[Change], read: Callable[[str], str | None]) -> Outcome:
    """Try ``changes`` one after the other on what ``read`` returns (None: no such file).

    Nothing is written. Raises :exc:`PatchRefused` for the first that does not fit.
    """
    files = _Files(read)
    for change in changes:
        match change:
            case AddFile(path, content):
                files.add(path, content)
            case DeleteFile(path):
                files.delete(path)
            case UpdateFile():
                files.update(change)
    return files.outcome


class _Files:
    """The files as the changes so far have left them."""

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read = read
        self.outcome = Outcome()

    def add(self, path: str, content: str) -> None:
        if self._now(path) is not None:
            raise PatchRefused(f"{path} is there already; use '{_UPDATE.strip()}'")
        self.outcome.contents[path] = content
        self.outcome.added.append(path)

    def delete(self, path: str) -> None:
        self._require(path)
        self.outcome.contents[path] = None
        self.outcome.deleted.append(path)

    def update(self, change: UpdateFile) -> None:
        text, fuzz = _changed(change.path, self._require(change.path), change.hunks)
        self.outcome.fuzz = max(self.outcome.fuzz, fuzz)
        target = change.move_to
        if target is None or target == change.path:
            self.outcome.contents[change.path] = text
            self.outcome.changed.append(change.path)
            return
        if self._now(target) is not None:
            raise PatchRefused(f"{change.path} cannot be moved: {target} is there already")
        self.outcome.contents[change.path] = None
        self.outcome.contents[target] = text
        self.outcome.moved.append((change.path, target))

    def _require(self, path: str) -> str:
        text = self._now(path)
        if text is None:
            raise PatchRefused(f"{path} does not exist")
        return text

    def _now(self, path: str) -> str | None:
        known: Mapping[str, str | None] = self.outcome.contents
        return known[path] if path in known else self._read(path)


def _changed(path: str, text: str, hunks: Sequence[Hunk]) -> tuple[str, Fuzz]:
    lines = split_lines(text)
    search = LineSearch([line.text for line in lines])
    made: list[Line] = []
    done = 0
    worst = Fuzz.EXACT
    for number, hunk in enumerate(hunks):
        label = path if len(hunks) == 1 else f"{path}, change {number + 1}"
        start, fuzz = _place(search, hunk, done, label)
        worst = max(worst, fuzz)
        made += lines[done:start]
        done = start
        for sign, new in hunk.lines:
            if sign == "+":
                made.append(Line(new))
                continue
            if sign == " ":
                made.append(lines[done])
            done += 1
    made += lines[done:]
    return join_lines(made, like=text), worst


def _place(lines: LineSearch, hunk: Hunk, start: int, label: str) -> tuple[int, Fuzz]:
    worst = Fuzz.EXACT
    for anchor in hunk.anchors:
        found = lines.find([anchor], start)
        if found is None:
            raise PatchRefused(f"{label}: there is no line {anchor[:_QUOTED]!r} after line {start}")
        start, worst = found[0] + 1, max(worst, found[1])
    old = hunk.old
    if not old:  # only new lines: where the anchor says, or at the end
        return (start if hunk.anchors and not hunk.at_end else len(lines)), worst
    found = None
    if hunk.at_end and len(lines) - len(old) >= start:
        found = lines.find(old, len(lines) - len(old))
    found = found or lines.find(old, start)
    if found is None and hunk.anchors:
        # Some quote the anchor again as the first line of the place.
        found = lines.find(old, start - 1)
    if found is None:
        quoted = "\n".join(line[:_QUOTED] for line in old[:8])
        raise PatchRefused(
            f"{label}: these lines are not in the file after line {start}; read it again:\n{quoted}"
        )
    return found[0], max(worst, found[1])
