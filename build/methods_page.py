"""Write ``docs/methods.md`` from the gateway's table of methods: ``make docs``.

The table is what authorises and answers requests, so the page cannot promise
anything else. ``openclawmu methods --json`` has the same for programs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from appliance.cli.methods import described
from appliance.transports.rpc.method import Method, Who
from appliance.transports.rpc.table import METHODS

TARGET = Path(__file__).parent.parent / "docs" / "methods.md"

Schema = Mapping[str, Any]

# What a method that is not available yet waits for; the longest prefix counts.
FEATURES = {
    "admin.sandboxes.": "sandboxes",
    "agents.workspace.": "sandboxes",
    "artifacts.": "tools",
    "browser.": "tools",
    "channels.": "channels",
    "config.openFile": "a later release",
    "cron.": "cron",
    "diagnostics.": "a later release",
    "doctor.memory.": "memory",
    "exec.": "tools",
    "gateway.identity.": "a later release",
    "hooks.": "hooks",
    "memory.": "memory",
    "secrets.": "a later release",
    "skills.": "skills",
    "talk.": "speech",
    "tasks.": "background tasks",
    "tenants.backup": "backups",
    "tenants.restore": "backups",
    "terminal.": "terminals",
    "tools.": "tools",
    "tts.": "speech",
    "update.": "upgrades",
    "wake": "heartbeats",
    "web.login.": "channels",
    "wizard.": "channels",
}

_HEAD = """\
# Methods

What a client may call over the Gateway's WebSocket; [gateway.md](gateway.md) says how to
connect and what the words mean. This page is written by `make docs` from the table that
authorises and answers the requests. `openclawmu methods --json` prints that table with a JSON
Schema of everything a method takes and returns, and `hello-ok` names those that its own
connection may call.

Each method says who may call it, which *operator scope* the connection needs, what the *token*
must cover, and under which action it is *audited*. Names, types and limits below are checked;
unknown parameters are refused unless a method says otherwise. `?` marks what may be left out.
Times that end in `Ms`, and `ts`, are milliseconds (since 1970 where they are moments).
"""

_NAMES = {"string": "text", "object": "object", "array": "list", "null": "null"}


def render() -> str:
    """The whole page."""
    known = sorted(METHODS, key=lambda method: method.name)
    page = described(known)
    shapes = Shapes(page["components"]["schemas"])
    groups = [(name, list(each)) for name, each in groupby(known, key=_group)]
    sections = [_section(name, methods, page, shapes) for name, methods in groups]
    contents = "\n".join(
        f"- **{name}**: " + ", ".join(_link(method.name) for method in methods)
        for name, methods in groups
    )
    return "\n".join([_HEAD, contents, "", *sections, shapes.section()])


class Shapes:
    """JSON Schemas in words, and which of the named ones were spoken of."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components
        self._mentioned: set[str] = set()

    def fields(self, schema: Schema) -> Iterator[tuple[str, bool, Schema]]:
        """Name, whether it has to be there, and schema of each member."""
        schema = self.resolved(schema)
        required = set(schema.get("required", ()))
        properties: Mapping[str, Schema] = schema.get("properties", {})
        for name, inner in properties.items():
            yield name, name in required, inner

    def resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        return schema if reference is None else self._components[_name_of(reference)]

    def type(self, schema: Schema, *, optional: bool = False) -> str:
        """The type with its limits. An ``optional`` one need not say that null is nothing too."""
        if "$ref" in schema:
            return self._named(schema)
        if "anyOf" in schema:
            kinds = [each for each in schema["anyOf"] if not (optional and _is_null(each))]
            return " or ".join(dict.fromkeys(self.type(each) for each in kinds))
        if "enum" in schema:
            return " or ".join(f"`{_json(value)}`" for value in schema["enum"])
        kind = schema.get("type")
        if kind == "array":
            count = _limits(schema, "Items").removeprefix(", ")
            return f"list{count and f' ({count})'}{self._of(schema.get('items'))}"
        if kind == "object":
            return f"object{self._of(schema.get('additionalProperties'))}"
        if kind is None:
            return "anything"
        unit = "Length" if kind == "string" else ""
        return f"{_NAMES.get(kind, kind)}{_limits(schema, unit)}"

    def section(self) -> str:
        """What the named shapes that were spoken of hold, and those that they name."""
        lines = ["## Shapes", "", "What several answers have in common, or what is long.", ""]
        told: dict[str, str] = {}
        while left := sorted(self._mentioned - told.keys()):
            for name in left:
                told[name] = self.members(self._components[name])
        for name, members in sorted(told.items()):
            lines += [f"### {name}", "", members, ""]
        return "\n".join(lines)

    def members(self, schema: Schema) -> str:
        """The members of an answer, in one line."""
        parts = [
            f"`{name}{'' if required else '?'}` {self.type(inner, optional=not required)}"
            + _said(inner)
            for name, required, inner in self.fields(schema)
        ]
        return "; ".join(parts) + "." if parts else "Nothing that is promised."

    def _of(self, inner: object) -> str:
        """What a list or an object is made of, if anything is said of that."""
        if not isinstance(inner, dict) or not inner.keys() - {"description"}:
            return ""
        return f" of {self.type(inner)}"

    def _named(self, schema: Schema) -> str:
        resolved = self.resolved(schema)
        if "properties" not in resolved:
            return self.type(resolved)
        name = _name_of(schema["$ref"])
        self._mentioned.add(name)
        return f"[{name}](#{name.lower()})"


def feature(method: Method) -> str:
    """What a method that cannot be called yet comes with."""
    fitting = [prefix for prefix in FEATURES if method.name.startswith(prefix)]
    if not fitting:
        raise KeyError(f"say in FEATURES what {method.name} comes with")
    return FEATURES[max(fitting, key=len)]


def _section(name: str, methods: Sequence[Method], page: Mapping[str, Any], shapes: Shapes) -> str:
    by_name = {each["name"]: each for each in page["methods"]}
    entries = [_entry(method, by_name[method.name], shapes) for method in methods]
    return "\n".join([f"## {name}", "", *entries])


def _entry(method: Method, entry: Mapping[str, Any], shapes: Shapes) -> str:
    lines = [f"### `{method.name}`", "", f"{method.summary}.", "", f"{_terms(method)}.", ""]
    lines += [*_parameters(entry["params"], shapes), ""]
    if method.is_available:
        lines += [f"Answers {_answer(entry['result'], shapes)}", ""]
    return "\n".join(lines)


def _terms(method: Method) -> str:
    terms = [
        str(method.who),
        "any operator scope" if method.scope is None else f"`{method.scope}`",
        "any token" if method.needs is None else f"token `{method.needs}`",
    ]
    if method.who is Who.NODE:
        terms[1] = "role `node`"
    if method.audited:
        terms.append(f"audited as `{method.audited}`")
    if not method.is_available:
        terms.append(f"with {feature(method)}; until then `METHOD_UNAVAILABLE`")
    else:
        terms.append("available, but not advertised" if method.hidden else "available")
    text = " · ".join(terms)
    return text[0].upper() + text[1:]


def _parameters(schema: Schema, shapes: Shapes) -> Iterator[str]:
    fields = list(shapes.fields(schema))
    takes_others = shapes.resolved(schema).get("additionalProperties", True) is not False
    if not fields:
        yield "Takes any object." if takes_others else "Takes nothing."
        return
    yield "| parameter | type | |"
    yield "| --- | --- | --- |"
    for name, required, inner in fields:
        kind = shapes.type(inner, optional=not required).replace("|", "\\|")
        notes = "; ".join(filter(None, (_default(inner), _description(inner))))
        yield f"| `{name}{'' if required else '?'}` | {kind} |{notes and f' {notes}'} |"
    if takes_others:
        yield "| … | anything | others are passed over |"


def _answer(schema: Schema | None, shapes: Shapes) -> str:
    if schema is None:
        return "an object whose members depend on what was asked."
    resolved = shapes.resolved(schema)
    if "properties" in resolved:
        return shapes.members(resolved)
    return f"{shapes.type(schema)}."


def _default(schema: Schema) -> str:
    """The value of what is left out, if it says more than that it is nothing."""
    value = schema.get("default")
    if not isinstance(value, int | float | str) or value == "":
        return ""
    return f"default `{_json(value)}`"


def _json(value: object) -> str:
    """A value as a client writes it, without the quotes of a text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _description(schema: Schema) -> str:
    """What is said of a member; of one that may be null, beside its type."""
    places: list[Schema] = [schema, *schema.get("anyOf", ())]
    said: str = next((each["description"] for each in places if "description" in each), "")
    return said.rstrip(".")


def _said(schema: Schema) -> str:
    description = "" if "$ref" in schema else _description(schema)
    return f" ({description[0].lower()}{description[1:]})" if description else ""


def _limits(schema: Schema, unit: str) -> str:
    least = schema.get(f"min{unit}" if unit else "minimum", schema.get("exclusiveMinimum"))
    most = schema.get(f"max{unit}" if unit else "maximum")
    if unit and not least:
        least = None
    noun = {"Length": " characters", "Items": "", "": ""}[unit]
    if least is not None and least == most:
        return f", {least:,}{noun}"
    if least is not None and most is not None:
        return f", {least:,} to {most:,}{noun}"
    if most is not None:
        return f", at most {most:,}{noun}"
    return "" if least is None else f", at least {least:,}{noun}"


def _is_null(schema: Schema) -> bool:
    return schema.get("type") == "null"


def _name_of(reference: str) -> str:
    return reference.rsplit("/", 1)[1]


def _group(method: Method) -> str:
    return method.name.partition(".")[0]


def _link(name: str) -> str:
    # As GitHub makes anchors of headings: letters, digits, hyphens and underscores stay.
    anchor = "".join(char for char in name.lower() if char.isalnum() or char in "-_")
    return f"[{name}](#{anchor})"


if __name__ == "__main__":
    text = render()
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.name}: {len(METHODS)} methods, {len(text.encode())} bytes")
