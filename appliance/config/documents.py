"""YAML text to plain values and back, with the dangers left out.

A config is a tree of mappings, lists and scalars. So this reads YAML 1.2's
core schema (``yes`` is text, ``010`` is ten, ``12:30`` is text) and refuses
what a config has no use for: tags, keys that are not text, keys given twice,
NaN and infinity, more than one document, depth, and aliases that would expand
into more than a person ever wrote. The parser's events are read in a loop, so
that no input decides how deep our stack goes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from appliance.model.errors import ConfigInvalid, FieldError

LARGEST = 1024 * 1024  # bytes; a config of a thousand templates has about half of that
DEEPEST = 32  # levels of nesting
MOST_VALUES = 50_000  # with every alias written out
MOST_PROBLEMS = 100  # after so many, reading ends
MOST_REPORTED = 20  # problems named in one message

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_DECIMAL = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_LONGEST_NUMBER = 40  # characters; beyond, it is not a setting
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML text as plain values, and the line on which each key was written."""

    value: Any
    lines: Mapping[str, int]


def read_document(text: str, *, name: str) -> Document:
    """Read one YAML document.

    Raises :exc:`ConfigInvalid` naming ``name``, and for each problem its line,
    the key, the reason and the way out. The text itself is never quoted: what
    stands beside a mistake may be a secret.
    """
    document, problems = scan_document(text, name=name)
    if problems:
        raise invalid(name, problems, document.lines)
    return document


def scan_document(text: str, *, name: str) -> tuple[Document, list[FieldError]]:
    """As :func:`read_document`, but hand back the problems after which reading could go on."""
    if len(text) > LARGEST or len(text.encode("utf-8", "surrogatepass")) > LARGEST:
        raise invalid(name, [FieldError("", f"larger than {LARGEST} bytes", "split it up")])
    if _SURROGATE.search(text):
        raise invalid(name, [FieldError("", "not valid Unicode text", "save it as UTF-8")])
    reader = _Reader()
    try:
        reader.read(text)
    except (yaml.YAMLError, _Refused) as exc:
        raise invalid(name, [*reader.problems, _fatal(exc, text)], reader.lines) from exc
    return Document(reader.value, reader.lines), reader.problems


def _fatal(exc: Exception, text: str) -> FieldError:
    """Why reading could not go on."""
    match exc:
        case _Refused():
            return exc.problem
        case yaml.MarkedYAMLError():
            mark = exc.problem_mark or exc.context_mark
            where = f"line {mark.line + 1}: " if mark else ""
            return FieldError("", f"{where}not YAML: {exc.problem}", "check the syntax")
        case yaml.reader.ReaderError():
            line = text.count("\n", 0, int(exc.position)) + 1
            return FieldError("", f"line {line}: a control character", "save it as plain text")
        case _:
            return FieldError("", "not YAML", "check the syntax")


def write_document(value: object) -> str:
    """Write plain values so that :func:`read_document` reads the same again."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def invalid(
    name: str, problems: Sequence[FieldError], lines: Mapping[str, int] | None = None
) -> ConfigInvalid:
    """One failure that names every problem (the first twenty in its text)."""
    told = [_sentence(problem, lines or {}) for problem in problems[:MOST_REPORTED]]
    if len(problems) > MOST_REPORTED:
        told.append(f"and {len(problems) - MOST_REPORTED} more")
    prefix = f"{name}: " if name else ""
    return ConfigInvalid(prefix + "; ".join(told), fields=problems)


def child(path: str, key: str) -> str:
    """The path of ``key`` below ``path``, fit to be shown whatever the key holds."""
    key = key if len(key) <= 80 else f"{key[:80]}…"
    key = key if key.isprintable() else ascii(key)
    return f"{path}.{key}" if path else key


def _sentence(problem: FieldError, lines: Mapping[str, int]) -> str:
    line = lines.get(problem.field)
    where = f"line {line}: " if line is not None else ""
    what = f"{problem.field}: {problem.reason}" if problem.field else problem.reason
    return f"{where}{what} ({problem.remedy})" if problem.remedy else f"{where}{what}"


class _Refused(Exception):
    """Reading cannot go on after this problem."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.problem = FieldError(field, reason, remedy)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read yet."""

    value: dict[str, Any] | list[Any]
    path: str
    anchor: str | None
    values: int = 1  # in here, aliases written out
    key: str | None = None  # read, and waiting for its value


@dataclass(slots=True)
class _Reader:
    value: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[FieldError] = field(default_factory=list)
    _stack: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    _total: int = 0
    _documents: int = 0

    def read(self, text: str) -> None:
        for event in _events(text):
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise _Refused("", f"line {_line(event)}: a second document", "keep one")
                case yaml.ScalarEvent():
                    self._scalar(event)
                case yaml.MappingStartEvent():
                    self._open(event, {})
                case yaml.SequenceStartEvent():
                    self._open(event, [])
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._close()
                case yaml.AliasEvent():
                    self._alias(event)
                case _:
                    pass  # start and end of stream, end of document

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        plain = event.implicit[0] and not event.style
        if self._expects_key():
            self._take_key(event, plain=plain)
            return
        path = self._place(_line(event))
        value: object = event.value
        if event.tag is not None:
            self._problem(path, "tags are not supported", "write the value plainly")
        elif plain:
            try:
                value = _plain(event.value)
            except ValueError as exc:
                self._problem(path, str(exc), "write a number that a setting can have")
        self._finish(value, 1, event.anchor)

    def _take_key(self, event: yaml.ScalarEvent, *, plain: bool) -> None:
        top, key = self._stack[-1], event.value
        path = child(top.path, key)
        top.key = key
        if event.tag is not None or event.anchor is not None:
            self._problem(path, "a key is plain text", "drop the tag or anchor")
        elif plain and key == "<<":
            self._problem(path, "merge keys are not supported", "repeat the settings")
        elif plain and not _is_text(key):
            self._problem(path, "a key must be text", "put it in quotes")
        elif key in top.value:
            first = self.lines.get(path)
            self._problem(path, f"given twice, first on line {first}", "keep one of them")
        self.lines[path] = _line(event)

    def _open(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        if self._expects_key():
            raise _Refused(self._stack[-1].path, "a key must be text", "put it in quotes")
        path = self._place(_line(event))
        if event.tag is not None:
            self._problem(path, "tags are not supported", "write the value plainly")
        if len(self._stack) >= DEEPEST:
            raise _Refused(path, f"nested more than {DEEPEST} levels deep", "flatten it")
        self._stack.append(_Open(value, path, event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        self._finish(done.value, done.values, done.anchor)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._expects_key():
            raise _Refused(self._stack[-1].path, "a key must be text", "write it out")
        path = self._place(_line(event))
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise _Refused(path, "an alias of something not finished above", "define it first")
        self._finish(*known, None)

    def _finish(self, value: Any, values: int, anchor: str | None) -> None:
        """Put a complete value where it belongs."""
        self._total += 1
        if not self._stack:
            self.value = value
            return
        top = self._stack[-1]
        top.values += values
        if max(top.values, self._total) > MOST_VALUES:
            raise _Refused(top.path, f"more than {MOST_VALUES} values", "do not multiply aliases")
        if anchor is not None:
            self._anchors[anchor] = (value, values)
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None

    def _expects_key(self) -> bool:
        return (
            bool(self._stack)
            and isinstance(self._stack[-1].value, dict)
            and (self._stack[-1].key is None)
        )

    def _place(self, line: int) -> str:
        """The path of the value about to be read."""
        if not self._stack:
            return ""
        top = self._stack[-1]
        if isinstance(top.value, dict):
            return child(top.path, top.key or "")
        path = f"{top.path}[{len(top.value)}]"
        self.lines[path] = line
        return path

    def _problem(self, path: str, reason: str, remedy: str) -> None:
        self.problems.append(FieldError(path, reason, remedy))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _Refused("", "too many problems", "mend these first")


def _events(text: str) -> Iterator[Any]:
    yield from yaml.parse(text, Loader=_LOADER)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _plain(text: str) -> object:
    """What an unquoted scalar means; raise :exc:`ValueError` for a number that is none."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("not a finite number")
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            return int(_short(text), base)
    if _FLOAT.fullmatch(text):
        value = float(_short(text))
        if value in {float("inf"), float("-inf")}:
            raise ValueError("not a finite number")
        return value
    return text


def _short(number: str) -> str:
    if len(number) > _LONGEST_NUMBER:
        raise ValueError(f"a number of more than {_LONGEST_NUMBER} digits")
    return number


def _is_text(plain: str) -> bool:
    """Whether an unquoted scalar reads as text."""
    try:
        return isinstance(_plain(plain), str)
    except ValueError:
        return False


class _Dumper(yaml.SafeDumper):
    """Quotes what would read as something other than text, and never writes an alias."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.split("\n")
    style = "|" if len(lines) > 1 else None
    if not all(line.isprintable() for line in lines) or not _is_text(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    text = repr(number)
    if "." not in text:  # YAML 1.1, which decides whether a tag is written, wants a point
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)
