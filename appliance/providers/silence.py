"""The patience with an answer that comes in pieces: one timer for all of it.

A cancel scope around each read costs 10 µs, more than all else that is done
for an event in Python. This one stands around the whole answer, and its
deadline is only moved when it has come near.
"""

import math
from types import TracebackType
from typing import Self

import trio

_SLACK = 1 / 8  # of the patience, by which it may be exceeded


class SilenceWatch:
    """Ends the block it stands around once nothing has moved for ``patience`` seconds.

    :meth:`expect` is called before and after each read, so that whoever handles
    a piece has as much time for it as the next one has to come. Silence lasts an
    eighth longer at most. Nothing is watched before the first :meth:`expect`
    and after :meth:`rest`.
    """

    __slots__ = ("_patience", "_scope")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._scope = trio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._scope.__exit__(exc_type, exc, traceback)
        return self.was_silent  # with nothing raised there is nothing to withhold

    @property
    def was_silent(self) -> bool:
        """Whether the block was ended."""
        return self._scope.cancelled_caught

    def expect(self) -> None:
        """Something has moved, or is to move from now on."""
        now = trio.current_time()
        deadline = self._scope.deadline
        if deadline < now + self._patience or deadline == math.inf:
            self._scope.deadline = now + self._patience * (1 + _SLACK)

    def rest(self) -> None:
        """It has come to its end."""
        self._scope.deadline = math.inf
