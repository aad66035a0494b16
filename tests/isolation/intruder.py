"""What a hostile tenant hands in where a request names something, and how answers are compared."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_ELSEWHERE = {"acme": "acne", "USER.md": "SOUL.md"}
_NEXT_DIGIT = str.maketrans("0123456789abcdef", "123456789abcdef0")

_VARYING = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b[a-z]+_[0-9a-f]{24}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{24,64}\b"), "<hex>"),
    (re.compile(r"\b1[0-9]{12}\b"), "<time>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)"), "<time>"),
    (re.compile(r"\b[\w-]{43}\b"), "<secret>"),
    (re.compile(r'"(durationMs|uptimeMs|ms|age)":[\d.]+'), '"<duration>"'),
    # Books and databases grow by themselves, and are measured now and then.
    (re.compile(r'"(diskUsage|workspace|agentData)Bytes":\d+'), '"<size>"'),
    # A minute's requests are forgotten while the suite goes on.
    (re.compile(r'"(requests|tokens)This(Minute|Hour)":\d+'), '"<lately>"'),
)


@dataclass(frozen=True, slots=True)
class Guess:
    """A name that exists at the victim, and what looks just like it and exists nowhere."""

    real: str
    nowhere: str
    is_foreign_key: bool = False  # a session key that says whose it is


def elsewhere(value: str) -> str:
    """A value as well formed, and as long, that nobody has."""
    for own, other in _ELSEWHERE.items():
        if own in value:
            return value.replace(own, other)
    head, _, last = value.rpartition("_")
    return f"{head}_" * bool(head) + last.translate(_NEXT_DIGIT)


def guesses(kind: str, values: Sequence[str], *, own_tenant: str) -> Iterator[Guess]:
    """What to try for a parameter of ``kind`` when the victim has ``values``."""
    for value in values:
        yield Guess(value, elsewhere(value))
    if kind != "session-key":
        return
    first, *_ = values
    # The tenant may be there or not, and the session in it.
    named = f"tenant:acme:{first}"
    yield Guess(named, f"tenant:acme:{elsewhere(first)}", is_foreign_key=True)
    for form in (
        named,
        named.upper(),
        f" {named}",
        f"tenant:acme:tenant:{own_tenant}:{first}",
        f"tenant:{own_tenant}:{named}",
        f"agent:main:{named}",
    ):
        nowhere = form.replace("acme", "acne").replace("ACME", "ACNE")
        yield Guess(form, nowhere, is_foreign_key=True)


def unsaid(text: str, sent: Iterable[str]) -> str:
    """``text`` without what was sent."""
    for part in sorted({part for each in sent for part in _parts(each)}, key=len, reverse=True):
        text = text.replace(part, "<sent>")
    return text


def steady(text: str) -> str:
    """``text`` without ids and times that are new each time."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def _parts(sent: str) -> Iterator[str]:
    """A name, and the parts of it that an answer may repeat."""
    yield sent
    yield sent.strip().lower()
    *_, last = sent.split(":")
    yield last
    found = re.search(r"agent:([^:]+):", sent)
    if found is not None and found[1] != "main":
        yield found[1]
    if found is not None:
        yield sent[found.start() :]
