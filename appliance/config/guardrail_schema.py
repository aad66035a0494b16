"""The keys of ``config.yaml`` about what requests and answers may hold."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import re2
from msgspec import Meta

from appliance.config.checking import find_problems
from appliance.config.fields import Count, Label
from appliance.config.section import Section
from appliance.model.errors import FieldError

LONGEST_PATTERN = 1000  # characters
MOST_PATTERNS = 300  # of all rules together: each is looked for in every piece of an answer
_PATTERN_MEMORY = 1024 * 1024  # bytes that one compiled pattern may take


# RE2, because a pattern may be a tenant's: its time is linear in the text
# whatever the pattern is, and Python's own engine can be made to take for ever.
def compile_pattern(text: str) -> Any:
    """Compile a pattern; raise :exc:`ValueError` saying what is wrong with it."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    options.never_capture = True
    try:
        return re2.compile(text, options)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else b""
        shown = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"not a pattern: {shown[:200]}") from None


def check_pattern(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError("expected text; put it in quotes")  # noqa: TRY004 - one error type for one cause
    if not 1 <= len(value) <= LONGEST_PATTERN:
        raise ValueError(f"a pattern has 1 to {LONGEST_PATTERN} characters")
    if compile_pattern(value).search("") is not None:
        raise ValueError("a pattern that matches nothing at all would match everywhere")


Pattern = Annotated[str, Meta(extra={"check": check_pattern, "remedy": "write it as RE2 does"})]
PiiKind = Literal["email", "phone", "card", "iban", "ssn", "ip"]
AttachmentKind = Literal["image", "file", "audio"]
Action = Literal["redact", "block", "flag"]


class Guardrail(Section, frozen=True, kw_only=True):
    """One rule. What it looks for is ``pii``, ``deny`` and ``unseen``; the rest it limits.

    ``unseen`` are attachments of a request that nobody can look through.
    """

    name: Label
    on: Literal["request", "answer", "both"] = "both"
    pii: Annotated[list[PiiKind], Meta(max_length=6)] = []
    deny: Annotated[list[Pattern], Meta(max_length=100)] = []
    unseen: Annotated[list[AttachmentKind], Meta(max_length=3)] = []
    action: Action = "block"
    max_input_tokens: Count | None = None
    max_output_tokens: Count | None = None


_Rules = Annotated[list[Guardrail], Meta(max_length=50)]


def _problems(raw: object, path: str) -> Iterator[FieldError]:
    yield from find_problems(raw, _Rules, path=path)
    rules = raw if isinstance(raw, list) else []
    patterns = [rule.get("deny") for rule in rules if isinstance(rule, dict)]
    count = sum(len(each) for each in patterns if isinstance(each, list))
    if count > MOST_PATTERNS:
        yield FieldError(
            path,
            f"the rules hold at most {MOST_PATTERNS} patterns together, not {count}",
            "join words to one pattern: 'this|that'",
        )


Guardrails = Annotated[_Rules, Meta(extra={"problems": _problems})]
