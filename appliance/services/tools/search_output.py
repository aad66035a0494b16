"""What ``find``, ``grep`` and ``rg`` print, as we ask them to: names end with a NUL."""

from collections.abc import Iterator
from dataclasses import dataclass

from appliance.model.workspace_paths import printable

LONGEST_LINE = 500  # characters of a line that is shown


@dataclass(frozen=True, slots=True)
class Match:
    """A line of a file. ``begins_group``: other lines lie between it and the one before."""

    path: str
    line: int
    text: str
    is_match: bool
    begins_group: bool = False

    @property
    def shown(self) -> str:
        mark = ":" if self.is_match else "-"
        return f"{printable(self.path)}{mark}{self.line}{mark} {_cut(self.text)}"


def parse_found(output: bytes, folder: str) -> list[str]:
    """The paths of ``%y%P`` records, in the workspace's own terms; ``/`` ends a directory's."""
    records = output.split(b"\0")
    records.pop()  # what follows the last NUL is cut off, or nothing
    found = []
    for record in records:
        path = _joined(folder, record[1:])
        found.append(f"{path}/" if record[:1] == b"d" else path)
    return found


def parse_matches(output: bytes, folder: str) -> list[Match]:
    """Lines ``path NUL number : text``, or ``-`` for lines around; a cut last one is left out."""
    return list(_matches(output, folder))


def _matches(output: bytes, folder: str) -> Iterator[Match]:
    at = 0
    previous: tuple[bytes, int] | None = None
    while (end := output.find(b"\0", at)) >= 0:
        stop = output.find(b"\n", end)
        if stop < 0:
            return
        name = output[at:end].removeprefix(b"--\n")
        at = stop + 1
        number, mark, text = _split(output[end + 1 : stop])
        if not mark:
            continue
        yield Match(
            path=_joined(folder, name.removeprefix(b"./")),
            line=number,
            text=text.decode(errors="replace"),
            is_match=mark == b":",
            begins_group=previous != (name, number - 1),
        )
        previous = (name, number)


def _split(rest: bytes) -> tuple[int, bytes, bytes]:
    digits = len(rest) - len(rest.lstrip(b"0123456789"))
    mark = rest[digits : digits + 1]
    if not 0 < digits < 19 or mark not in {b":", b"-"}:
        return 0, b"", b""
    return int(rest[:digits]), mark, rest[digits + 1 :]


def _joined(folder: str, name: bytes) -> str:
    path = name.decode(errors="surrogateescape")
    return f"{folder}/{path}" if folder else path


def _cut(text: str) -> str:
    text = text.rstrip("\r")
    if len(text) > LONGEST_LINE:
        text = f"{text[:LONGEST_LINE]} … ({len(text)} characters)"
    return text.replace("\0", "\ufffd")
