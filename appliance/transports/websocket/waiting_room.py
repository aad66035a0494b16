"""Connections that have not said who they are yet: few, and shared out fairly.

Ten thousand sockets that open and say nothing must not keep one honest client
out. When the room is full, whoever has most in it loses the one that waited
longest.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class WaitingRoom:
    def __init__(self, *, most: int) -> None:
        self._most = most
        self._by_address: dict[str, OrderedDict[int, Callable[[], None]]] = {}
        self._count = 0
        self._next = 0

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def waiting(self, address: str, send_away: Callable[[], None]) -> Iterator[None]:
        """Wait in here; ``send_away`` is called, at once, if the place is needed."""
        if self._count >= self._most:
            self._make_room()
        number = self._next = self._next + 1
        self._by_address.setdefault(address, OrderedDict())[number] = send_away
        self._count += 1
        try:
            yield
        finally:
            self._leave(address, number)

    def send_all_away(self) -> None:
        while self._by_address:
            self._make_room()

    def _leave(self, address: str, number: int) -> None:
        those = self._by_address.get(address)
        if those is None or those.pop(number, None) is None:
            return
        self._count -= 1
        if not those:
            del self._by_address[address]

    def _make_room(self) -> None:
        # Only when the room is full, and over addresses, not connections.
        address = max(self._by_address, key=lambda each: len(self._by_address[each]))
        number, send_away = next(iter(self._by_address[address].items()))
        self._leave(address, number)
        send_away()
