"""Which schemas the embedded models can be held to, or be told of.

llama.cpp makes a grammar of a schema. It skips without a word what it cannot
say in one, and a small schema can make a grammar that takes minutes and
gigabytes: alternatives of alternatives, nested repetitions, long counts. All
tenants share the process, so neither reaches it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from appliance.model.errors import Fault, InvalidRequest
from appliance.model.prompts import Json

# A schema of this size takes seconds at worst; twice the alternatives, twice the time.
MOST_PLACES = 500  # subschemas and values, those that are referred to counted each time
_DEEPEST = 64
_LARGEST_COUNT = 2000  # llama.cpp repeats nothing more often
_LARGEST_NUMBER = 10**12
_COUNTS_OF_A_PLACE = 20  # what a length costs in comparison
_LONGEST_PATTERN = 100  # characters
_LONGEST_PATH = 200

_SUBSCHEMAS = ("additionalProperties", "items")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_LEAST = frozenset({"minItems", "minLength"})
_MOST = frozenset({"maxItems", "maxLength"})
_COUNTS = _LEAST | _MOST
_LIMITS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"})
_FORMATS = frozenset(("format", name) for name in ("date", "date-time", "time", "uuid"))
_REMARKS = frozenset(
    {
        "$comment",
        "$defs",  # it counts where it is referred to
        "$id",
        "$schema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "examples",
        "title",
    }
)
# What stands alone in a grammar: of its neighbours only these are kept to.
_TYPED = _REMARKS | {"type"}
_ALONE = {
    "$ref": _REMARKS,
    "anyOf": _REMARKS,
    "oneOf": _REMARKS,
    "const": _TYPED,
    "enum": _TYPED,
    "prefixItems": _TYPED,
}
_OF_OBJECTS_AND_LISTS = frozenset({"additionalProperties", "items", "properties", "required"})
_KEPT = _OF_OBJECTS_AND_LISTS | _COUNTS | _ALONE.keys() | _TYPED


def require_possible(schema: Json, *, field: str) -> None:
    """Raise :exc:`InvalidRequest` for a schema that an answer would not keep to.

    ``field`` is what the caller calls the thing that holds it.
    """
    _Measure(schema, field).check()


def require_bounded(schema: Json, *, field: str) -> None:
    """Raise :exc:`InvalidRequest` for the schema of a tool's arguments that costs too much.

    Whoever runs the tool checks them anyway: what no grammar keeps may stand in it.
    """
    _ToolMeasure(schema, field).check()


class _Measure:
    """Counts the places of one schema, each definition once."""

    def __init__(self, schema: Json, field: str) -> None:
        self._schema = schema
        self._field = field
        self._definitions: dict[str, int] = {}
        self._open: set[str] = set()

    def check(self) -> None:
        if self._places(self._schema, "schema", depth=0) > MOST_PLACES:
            raise self._refused("schema", "is too large")

    def _places(self, schema: object, at: str, *, depth: int) -> int:
        if isinstance(schema, bool):
            return 1
        if not isinstance(schema, Mapping):
            raise self._refused(at, "is no schema")
        if depth > _DEEPEST:
            raise self._refused("schema", f"is deeper than {_DEEPEST} levels")
        self._check_words(schema, at)
        places = 1 + len(_list(schema.get("enum"))) + self._counts(schema, at)
        if "$ref" in schema:
            places += self._referred(schema["$ref"], f"{at}.$ref", depth=depth + 1)
        for name, inner in _inner(schema):
            places += self._places(inner, f"{at}.{name}", depth=depth + 1)
            if places > MOST_PLACES:
                raise self._refused("schema", "is too large")
        return places

    def _check_words(self, schema: Json, at: str) -> None:
        whole = schema.get("type") == "integer"
        for name, value in schema.items():
            if name in _LIMITS and whole:
                self._check_limit(value, f"{at}.{name}")
            elif name not in _KEPT and (name, str(value)) not in _FORMATS:
                raise self._refused(f"{at}.{name[:60]}", "cannot be kept to by this model")
        for alone, beside in _ALONE.items():
            if alone in schema and (others := schema.keys() - beside - {alone}):
                raise self._refused(f"{at}.{min(others)}", f"is not seen beside {alone}")
        for name in _list(schema.get("required")):
            if name not in (schema.get("properties") or {}):
                raise self._refused(f"{at}.required", "names what is not among the properties")

    def _check_limit(self, value: object, at: str) -> None:
        if type(value) is not int or abs(value) > _LARGEST_NUMBER:
            raise self._refused(at, "is no whole number of a usual size")

    def _counts(self, schema: Json, at: str) -> int:
        total = 0
        for name in _COUNTS & schema.keys():
            value = schema[name]
            if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
                raise self._refused(f"{at}.{name}", f"must lie between 0 and {_LARGEST_COUNT}")
            total += value
        return total // _COUNTS_OF_A_PLACE

    def _referred(self, name: object, at: str, *, depth: int) -> int:
        if not isinstance(name, str) or not name.startswith("#/"):
            raise self._refused(at, "must refer to a definition of the same schema")
        if name in self._open:
            raise self._refused(at, "refers to itself")
        if name not in self._definitions:
            self._open.add(name)
            self._definitions[name] = self._places(self._found(name, at), at, depth=depth)
            self._open.discard(name)
        return self._definitions[name]

    def _found(self, name: str, at: str) -> object:
        found: Any = self._schema
        for step in name.removeprefix("#/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise self._refused(at, "refers to nothing")
            found = found[key]
        return found

    def _refused(self, at: str, reason: str) -> InvalidRequest:
        return InvalidRequest.at(
            self._field,
            f"{at[:_LONGEST_PATH]} {reason}",
            "change the schema, or use another model",
            fault=Fault.UNSUPPORTED,
        )


class _ToolMeasure(_Measure):
    """The same where a schema is advice but for what it costs."""

    def _check_words(self, schema: Json, at: str) -> None:
        pattern = schema.get("pattern")
        if pattern is not None and not (isinstance(pattern, str) and _is_plain(pattern)):
            raise self._refused(f"{at}.pattern", "repeats by numbers, or is long")
        if schema.get("type") == "integer":
            for name in _LIMITS & schema.keys():
                self._check_limit(schema[name], f"{at}.{name}")

    def _counts(self, schema: Json, at: str) -> int:
        # What may be longer than llama.cpp counts may be of any length to it.
        least = {name: schema[name] for name in _LEAST & schema.keys()}
        most = {n: v for n in _MOST & schema.keys() if (v := schema[n]) in range(_LARGEST_COUNT)}
        return super()._counts(least | most, at)


def _is_plain(pattern: str) -> bool:
    return len(pattern) <= _LONGEST_PATTERN and "{" not in pattern


def _inner(schema: Json) -> Iterator[tuple[str, object]]:
    """The subschemas that a grammar is made of, by where they stand."""
    for name in _SUBSCHEMAS:
        if name in schema:
            yield name, schema[name]
    for name in _LISTS:
        for i, inner in enumerate(_list(schema.get(name))):
            yield f"{name}[{i}]", inner
    if isinstance(schema.get("properties"), Mapping):
        for name, inner in schema["properties"].items():
            yield f"properties.{name[:60]}", inner


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
