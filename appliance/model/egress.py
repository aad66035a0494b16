"""What a sandbox may reach: rules for host, port, method and bytes.

A host is compared as ASCII text in lower case. International names are
written as they travel, in Punycode (``xn--…``): so a rule means exactly one
name, and none that only looks like it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter, so no spelling of an address is a name:
# not 127.0.0.1, not 127.1, not 0x7f.1, not 2130706433.
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?=[a-z]){_LABEL}", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
# What travels in a header; a line end in it would begin another one.
_SECRET = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,16000}[\x21-\x7e])?", re.ASCII)
# A server repeats a TRACE's headers, the credential among them; a CONNECT is
# a tunnel nobody could look into.
_NEVER_INSPECTED = frozenset({"TRACE", "TRACK", "CONNECT"})


def parse_host(text: str) -> str:
    """A host name in the one spelling that rules are compared with.

    Raises :exc:`ValueError` for what is not a name of at least two labels:
    addresses in any notation, user names, ports, characters beyond ASCII.
    """
    # Checked before anything is made lower case: "K" (Kelvin) would become a "k".
    if not text.isascii():
        raise ValueError("a host beyond ASCII is written in Punycode (xn--…)")
    host = text.lower().removesuffix(".")
    if _HOST.fullmatch(host) is None:
        raise ValueError("not a host name; addresses cannot be reached, only names")
    return host


def parse_authority(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """``HOST:PORT`` as it stands in a request; raise :exc:`ValueError` for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon:
        if default_port is None:
            raise ValueError("the port is missing")
        return parse_host(text), default_port
    if _PORT.fullmatch(port) is None or not 0 < int(port) <= 65_535:
        raise ValueError("not a port")
    return parse_host(host), int(port)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """``api.example.org``, or ``*.example.org`` for all names below it (not itself)."""

    text: str

    @property
    def is_suffix(self) -> bool:
        return self.text.startswith("*.")

    def matches(self, host: str) -> bool:
        """``host`` is as :func:`parse_host` returns it."""
        return host.endswith(self.text[1:]) if self.is_suffix else host == self.text

    def covers(self, other: "HostPattern") -> bool:
        """Whether every host of ``other`` is one of this."""
        if other == self:
            return True
        # Below *.b.a lies only what is below *.a as well, and never a.b itself.
        return self.is_suffix and other.text.removeprefix("*").endswith(self.text[1:])

    def within(self, other: "HostPattern") -> "HostPattern | None":
        """The hosts of both; None if there are none."""
        if other.covers(self):
            return self
        return other if self.covers(other) else None


@dataclass(frozen=True, slots=True)
class Injection:
    """A stored credential that is added to requests on their way out."""

    credential: str  # its name
    header: str = "authorization"
    prefix: str = "Bearer "

    def value(self, secret: str) -> str:
        """What the header says; raise :exc:`ValueError` if it cannot travel in one."""
        text = f"{self.prefix}{secret}"
        if _SECRET.fullmatch(text) is None:
            raise ValueError("a credential in a header is printable ASCII text")
        return text

    def replaces(self, header: str) -> bool:
        """Whether a header of this name must not come from inside.

        Some servers read ``x_api_key`` as ``x-api-key``.
        """
        return header.lower().replace("_", "-") == self.header.lower().replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """Allows requests to a host; the limits are of one sandbox."""

    host: HostPattern
    ports: frozenset[int] = frozenset({443})
    methods: frozenset[str] | None = None  # None: all
    injection: Injection | None = None
    max_bytes: int | None = None  # both ways together

    @property
    def is_inspected(self) -> bool:
        """Whether its requests must be seen, so that a tunnel will not do."""
        return self.injection is not None or self.methods is not None

    def allows(self, method: str) -> bool:
        if method.upper() in _NEVER_INSPECTED:
            return False
        return self.methods is None or method in self.methods


@dataclass(frozen=True, slots=True)
class EgressRules:
    """A list of rules. The most exact host decides; of those, the first that fits."""

    rules: Sequence[EgressRule] = field(default=())

    def bounded(self, only: Iterable[HostPattern] | None) -> "EgressRules":
        """What is left within the operator's bound; None is no bound, an empty one allows nothing.

        A rule that reaches further is narrowed, not dropped.
        """
        if only is None:
            return self
        bounds = tuple(only)
        return EgressRules(
            tuple(
                replace(rule, host=host)
                for rule in self.rules
                for host in dict.fromkeys(rule.host.within(bound) for bound in bounds)
                if host is not None
            )
        )

    def matching(self, host: str, port: int) -> Sequence[EgressRule]:
        """The rules that decide about ``host`` at ``port``, in their order; empty: not allowed."""
        found = [rule for rule in self.rules if port in rule.ports and rule.host.matches(host)]
        if not found:
            return ()
        most_exact = max(map(_exactness, found))
        return tuple(rule for rule in found if _exactness(rule) == most_exact)

    @property
    def is_empty(self) -> bool:
        return not self.rules


def _exactness(rule: EgressRule) -> tuple[bool, int]:
    return not rule.host.is_suffix, len(rule.host.text)


def are_inspected(rules: Iterable[EgressRule]) -> bool:
    """Whether requests under these rules must be seen."""
    return any(rule.is_inspected for rule in rules)


def allowing(rules: Iterable[EgressRule], method: str) -> EgressRule | None:
    """The first rule that allows ``method``."""
    return next((rule for rule in rules if rule.allows(method)), None)
