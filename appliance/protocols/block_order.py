"""Deltas in an order in which every tool call is whole before anything else comes.

Some providers send the arguments of several calls by turns; callers who get
one block after the other cannot be told that way. What comes while a call is
unfinished is held back until it is finished, or until the answer ends.
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from appliance.model.calls import Delta, Finished, ToolCallDelta
from appliance.model.errors import UpstreamFailed

_MOST_HELD = 2_000  # deltas
# Looking whether arguments are complete takes as long as they are.
_MOST_LOOKS = 100
_MIXED_UP = "the model's provider mixed up the arguments of its tool calls"


class BlockOrder:
    """Orders the deltas of one answer; nearly always they leave as they came."""

    __slots__ = ("_arguments", "_begun", "_call", "_held", "_looks")

    def __init__(self) -> None:
        self._call: int | None = None  # the tool call that may get more arguments
        self._arguments: list[str] = []
        self._begun: set[int] = set()
        self._held: list[Delta] = []
        self._looks = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a call may still get more arguments."""
        return self._call is not None

    def order(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """What may leave now. Raise :exc:`UpstreamFailed` for what nobody can put in order."""
        if self._call is None and ToolCallDelta not in map(type, deltas):
            return deltas
        ordered: list[Delta] = []
        coming = deque(deltas)
        while coming:
            delta = coming.popleft()
            if self._belongs(delta):
                ordered.append(self._note(delta))
                if self._held and self._is_complete():
                    coming.extendleft(reversed(self._held))
                    self._held = []
            elif isinstance(delta, ToolCallDelta) and delta.index in self._begun:
                _refuse_late(delta)
            elif isinstance(delta, Finished) and self._held:
                # Nothing more will come: what is unfinished stays so.
                ordered += [each for each in self._held if self._belongs(each)]
                rest = [each for each in self._held if not self._belongs(each)]
                coming.extendleft([delta, *reversed(rest)])
                self._held, self._call = [], None
            elif isinstance(delta, Finished) or (not self._held and self._is_complete()):
                ordered.append(self._note(delta))
            else:
                self._hold(delta)
        return ordered

    def _belongs(self, delta: Delta) -> bool:
        return (
            self._call is not None
            and isinstance(delta, ToolCallDelta)
            and delta.index == self._call
        )

    def _note(self, delta: Delta) -> Delta:
        if not isinstance(delta, ToolCallDelta):
            self._call = None
        elif delta.index == self._call:
            self._arguments.append(delta.arguments)
        else:
            self._call, self._arguments, self._looks = delta.index, [delta.arguments], 0
            self._begun.add(delta.index)
        return delta

    def _is_complete(self) -> bool:
        """Whether what is under way, if anything, cannot go on."""
        if self._call is None:
            return True
        last = next((text for text in reversed(self._arguments) if text.strip()), "")
        if not last.rstrip().endswith("}") or self._looks >= _MOST_LOOKS:
            return False
        self._looks += 1
        self._arguments = ["".join(self._arguments)]
        try:
            msgspec.json.decode(self._arguments[0])
        except (ValueError, RecursionError):
            return False
        return True

    def _hold(self, delta: Delta) -> None:
        if len(self._held) >= _MOST_HELD:
            raise UpstreamFailed(_MIXED_UP)
        self._held.append(delta)


def _refuse_late(piece: ToolCallDelta) -> None:
    """Of a call that is complete there can be white space left at most."""
    if piece.arguments.strip():
        raise UpstreamFailed(_MIXED_UP)
