"""Finds everything that is wrong with a document.

msgspec stops at the first mistake, and whoever mends a config wants to hear of
all of them at once. So this walks the document beside the schema and lets
msgspec judge each leaf on its own.
"""

import math
import types
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from appliance.config.documents import MOST_PROBLEMS, child
from appliance.model.errors import FieldError
from appliance.model.spelling import nearest

Check = Callable[[object], None]

_IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A type annotation, taken apart."""

    base: Any
    leaf: Any  # the annotation with its bounds, for msgspec
    optional: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    fewest: int | None = None  # members of a mapping or list
    most: int | None = None


def find_problems(
    raw: object, annotation: Any, *, path: str = "", partial: bool = False
) -> Iterator[FieldError]:
    """Yield what keeps ``raw`` from being an ``annotation``, document order.

    ``partial`` is for what will lie on top of something else: required keys
    may be missing, and null (which removes a key) may stand anywhere.
    """
    yield from _problems(raw, kind_of(annotation), path, partial=partial)


def first_problems(raw: object, annotation: Any, *, partial: bool = False) -> list[FieldError]:
    """The first hundred: more would help nobody, and cost whoever has to find them."""
    return list(islice(find_problems(raw, annotation, partial=partial), MOST_PROBLEMS))


def _problems(raw: object, kind: Kind, path: str, *, partial: bool) -> Iterator[FieldError]:
    if raw is None and (partial or kind.optional):
        return
    if "problems" in kind.extra:
        yield from kind.extra["problems"](raw, path)
    elif "check" in kind.extra:
        yield from _checked(raw, kind, path)
    elif is_section(kind.base):
        yield from _section(raw, kind.base, path, partial=partial)
    elif get_origin(kind.base) is dict:
        yield from _mapping(raw, kind, path, partial=partial)
    elif get_origin(kind.base) is list:
        yield from _list(raw, kind, path)
    elif get_origin(kind.base) is Literal:
        yield from _choice(raw, kind, path)
    else:
        yield from _leaf(raw, kind, path)


def kind_of(annotation: Any) -> Kind:
    """Take ``Annotated`` and ``| None`` off a type."""
    extra: dict[str, Any] = {}
    optional = False
    fewest = most = None
    leaf = annotation
    while True:
        if hasattr(annotation, "__metadata__"):
            for meta in annotation.__metadata__:
                extra.update(meta.extra or {})
                fewest, most = meta.min_length, meta.max_length
            annotation = annotation.__origin__
        elif get_origin(annotation) in {Union, types.UnionType}:
            optional = True
            (annotation,) = (arg for arg in get_args(annotation) if arg is not type(None))
            leaf = annotation
        else:
            return Kind(annotation, leaf, optional, extra, fewest, most)


@cache
def keys_of(section: type[msgspec.Struct]) -> Mapping[str, FieldInfo]:
    return {info.encode_name: info for info in msgspec.structs.fields(section)}


@cache
def _kinds_of(section: type[msgspec.Struct]) -> Mapping[str, Kind]:
    return {key: kind_of(info.type) for key, info in keys_of(section).items()}


def default_of(info: FieldInfo) -> object:
    """The value of a key that is not written; :data:`msgspec.NODEFAULT` for a required one."""
    if info.default_factory is not msgspec.NODEFAULT:
        return info.default_factory()
    return info.default


def is_section(base: Any) -> bool:
    return isinstance(base, type) and issubclass(base, msgspec.Struct)


def unknown_key(path: str, key: str, known: Mapping[str, object]) -> FieldError:
    near = nearest(key, known)
    if near is not None:
        remedy = f"did you mean {near!r}?"
    elif known:
        remedy = f"valid keys: {', '.join(known)}"
    else:
        remedy = "no keys are defined here yet"
    return FieldError(child(path, key), "unknown key", remedy)


def _section(
    raw: object, section: type[msgspec.Struct], path: str, *, partial: bool
) -> Iterator[FieldError]:
    if not isinstance(raw, Mapping):
        yield _mismatch(path, "a mapping", raw)
        return
    known, kinds = keys_of(section), _kinds_of(section)
    for key, value in raw.items():
        if not isinstance(key, str):
            yield FieldError(path, "a key must be text", "put it in quotes")
        elif key not in known:
            yield unknown_key(path, key, known)
        else:
            yield from _problems(value, kinds[key], child(path, key), partial=partial)
    for key, info in known.items():
        if info.required and key not in raw and not partial:
            yield FieldError(child(path, key), "missing", "it has no default")


def _mapping(raw: object, kind: Kind, path: str, *, partial: bool) -> Iterator[FieldError]:
    if not isinstance(raw, Mapping):
        yield _mismatch(path, "a mapping", raw)
        return
    if (problem := _wrong_size(raw, kind, path)) is not None:
        yield problem
        return
    key_kind, value_kind = (kind_of(below) for below in get_args(kind.base))
    for key, value in raw.items():
        if not isinstance(key, str):
            yield FieldError(path, "a key must be text", "put it in quotes")
            continue
        below = child(path, key)
        yield from _problems(key, key_kind, below, partial=False)
        yield from _problems(value, value_kind, below, partial=partial)


def _list(raw: object, kind: Kind, path: str) -> Iterator[FieldError]:
    if not isinstance(raw, list):
        yield _mismatch(path, "a list", raw)
        return
    if (problem := _wrong_size(raw, kind, path)) is not None:
        yield problem
        return
    (item_kind,) = (kind_of(below) for below in get_args(kind.base))
    for index, item in enumerate(raw):
        # An item is replaced with its list, never removed by null: not partial.
        yield from _problems(item, item_kind, f"{path}[{index}]", partial=False)


def _wrong_size(raw: Sized, kind: Kind, path: str) -> FieldError | None:
    """Looked at before the members, of which there may be too many to look at."""
    if kind.fewest is not None and len(raw) < kind.fewest:
        return FieldError(path, f"needs at least {kind.fewest}")
    if kind.most is not None and len(raw) > kind.most:
        return FieldError(path, f"holds at most {kind.most}, not {len(raw)}")
    return None


def _checked(raw: object, kind: Kind, path: str) -> Iterator[FieldError]:
    try:
        kind.extra["check"](raw)
    except ValueError as exc:
        yield FieldError(path, str(exc), kind.extra.get("remedy", ""))


def _choice(raw: object, kind: Kind, path: str) -> Iterator[FieldError]:
    choices = [str(choice) for choice in get_args(kind.base)]
    if not isinstance(raw, str):
        yield _mismatch(path, f"one of {', '.join(choices)}", raw)
    elif raw not in choices:
        near = nearest(raw, choices)
        remedy = f"did you mean {near!r}?" if near else ""
        yield FieldError(path, f"must be one of {', '.join(choices)}", remedy)


def _leaf(raw: object, kind: Kind, path: str) -> Iterator[FieldError]:
    # JSON and YAML as we read them hold none; a caller of this module might.
    if isinstance(raw, float) and not math.isfinite(raw):
        yield FieldError(path, "not a finite number")
        return
    try:
        msgspec.convert(raw, kind.leaf)
    except msgspec.ValidationError as exc:
        yield FieldError(path, _reason(str(exc)))


def _reason(message: str) -> str:
    """msgspec's message in the words of someone who writes YAML."""
    message = message.partition(" - at `")[0]
    for name, words in _IN_WORDS.items():
        message = message.replace(f"`{name}`", words)
    message = message.replace("`", "")
    return message[:1].lower() + message[1:]


def _mismatch(path: str, expected: str, raw: object) -> FieldError:
    return FieldError(path, f"expected {expected}, got {_name(raw)}")


def _name(raw: object) -> str:
    match raw:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case _:
            return "a list"
