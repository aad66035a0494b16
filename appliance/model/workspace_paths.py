"""Paths in a workspace, as models, clients and people write them."""

import base64

from appliance.model.errors import InvalidRequest

WORKSPACE = "/workspace"  # what a workspace is called inside a sandbox
LONGEST = 4095  # bytes, the kernel's own limit
_LONGEST_NAME = 255  # bytes
_QUOTED = 120  # characters of a path in a message


def relative_path(path: str, *, field: str = "path") -> str:
    """Where ``path`` leads, below the workspace; "" is the workspace itself.

    Taken are relative paths and those below ``/workspace``. ``..`` is worked
    out from the text alone, which is what it means where no link is followed.
    Raises :exc:`InvalidRequest`, naming ``field``, for what leads elsewhere or
    can name no file.
    """
    if "\0" in path:
        raise InvalidRequest.at(field, "a path holds no NUL", "leave it out")
    if path == "~" or path.startswith("~/"):
        path = WORKSPACE + path[1:]  # it is the home directory inside
    if path.startswith("/"):
        if path != WORKSPACE and not path.startswith(f"{WORKSPACE}/"):
            raise _outside(path, field)
        path = path[len(WORKSPACE) :]
    parts: list[str] = []
    for part in path.split("/"):
        if part in {"", "."}:
            continue
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            raise _outside(path, field)
    _require_nameable(parts, field)
    return "/".join(parts)


def file_path(path: str, *, field: str = "path") -> str:
    """As :func:`relative_path`, for what cannot be the workspace itself."""
    relative = relative_path(path, field=field)
    if not relative:
        raise InvalidRequest.at(field, "names the workspace itself", "name something in it")
    return relative


def printable(name: str) -> str:
    """``name`` as it may stand in a message or a listing, whatever bytes it is made of.

    What is not UTF-8, and what would move a cursor or break a line, is shown
    as ``\\xNN``; such a name cannot be written back.
    """
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def is_text(name: str) -> bool:
    """Whether ``name`` is UTF-8, so that JSON can hold it."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def cursor_of(name: str) -> str:
    """What stands for ``name`` where a listing goes on, whatever bytes it is made of."""
    return base64.urlsafe_b64encode(name.encode(errors="surrogateescape")).decode().rstrip("=")


def name_of(cursor: str, *, field: str = "cursor") -> str:
    """The opposite of :func:`cursor_of`; raises :exc:`InvalidRequest`."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        name = base64.b64decode(padded, altchars=b"-_", validate=True)
    except ValueError:
        raise InvalidRequest.at(field, "is none of ours", "begin without one") from None
    return name.decode(errors="surrogateescape")


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _require_nameable(parts: list[str], field: str) -> None:
    try:
        lengths = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    except UnicodeEncodeError:
        raise InvalidRequest.at(field, "is not text a file can be named with") from None
    if any(length > _LONGEST_NAME for length in lengths):
        raise InvalidRequest.at(field, f"a name has at most {_LONGEST_NAME} bytes")
    if sum(lengths) + len(lengths) > LONGEST:
        raise InvalidRequest.at(field, f"a path has at most {LONGEST} bytes")


def _outside(path: str, field: str) -> InvalidRequest:
    shown = printable(path if len(path) <= _QUOTED else f"{path[:_QUOTED]}…")
    return InvalidRequest.at(
        field,
        f"{shown} is not in the workspace",
        f"name a path relative to it, or below {WORKSPACE}",
    )
