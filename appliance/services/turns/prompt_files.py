"""An agent's workspace files as they were last read, kept while its tenant is awake."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Signature = tuple[tuple[str, int, int, int], ...]  # name, inode, time of change, size


@dataclass(slots=True)
class PromptFiles:
    signature: Signature = ()
    texts: Mapping[str, str] = field(default_factory=dict)
