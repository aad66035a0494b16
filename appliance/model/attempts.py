"""Who was asked before somebody answered, in a form that may be shown."""

from dataclasses import dataclass, field
from urllib.parse import quote

_MOST_SHOWN = 8  # of those that did not answer
COOLING = "cooling"  # not asked, because it failed a short while ago


@dataclass(slots=True)
class Trail:
    """``attempts`` counts what was really asked, each key of a provider by itself.

    ``missed`` are the targets that did not answer, or were passed over, each
    with the code of its failure.
    """

    attempts: int = 0
    missed: list[tuple[str, str]] = field(default_factory=list)

    def miss(self, target: str, reason: str) -> None:
        if len(self.missed) < _MOST_SHOWN and (target, reason) not in self.missed:
            self.missed.append((target, reason))

    def header(self) -> str:
        """``provider/model;reason=code, …`` in ASCII."""
        return ", ".join(f"{header_safe(name)};reason={why}" for name, why in self.missed)


def header_safe(name: str) -> str:
    """A model's name as a header can carry it."""
    return quote(name, safe="/:.@+*!~()[]'")[:200]
