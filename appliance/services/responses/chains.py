"""What connections remember of responses that are not stored, for whoever continues them."""

from collections.abc import Sequence

from appliance.protocols.responses.items import Item


class _Place:
    """Where one chain stands on a shelf: nobody else can name it."""


class ChainShelf:
    """What all connections of a tenant remember together; the oldest is forgotten."""

    def __init__(self, *, most_bytes: int = 64 * 1024 * 1024) -> None:
        self._most_bytes = most_bytes
        self._chains: dict[_Place, tuple[Sequence[Item], int]] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes of JSON."""
        return self._size

    def find(self, place: _Place) -> Sequence[Item] | None:
        found = self._chains.get(place)
        return None if found is None else found[0]

    def keep(self, place: _Place, items: Sequence[Item], size: int) -> None:
        self.forget(place)
        self._chains[place] = (items, size)
        self._size += size
        while self._size > self._most_bytes:
            self.forget(next(iter(self._chains)))

    def forget(self, place: _Place) -> None:
        found = self._chains.pop(place, None)
        if found is not None:
            self._size -= found[1]


class ChainMemory:
    """What a connection remembers of responses that are not stored: the latest few.

    No connection finds what another one keeps, though they share a ``shelf``.
    """

    def __init__(self, shelf: ChainShelf | None = None, *, most: int = 8) -> None:
        self._shelf = ChainShelf() if shelf is None else shelf
        self._most = most
        self._kept: dict[str, _Place] = {}  # the oldest first

    def find(self, response_id: str) -> Sequence[Item] | None:
        place = self._kept.get(response_id)
        return None if place is None else self._shelf.find(place)

    def keep(self, response_id: str, items: Sequence[Item], size: int) -> None:
        """Remember all that whoever continues this response needs: ``size`` bytes of JSON."""
        self.forget(response_id)
        place = self._kept[response_id] = _Place()
        self._shelf.keep(place, items, size)
        while len(self._kept) > self._most:
            self.forget(next(iter(self._kept)))

    def forget(self, response_id: str) -> None:
        place = self._kept.pop(response_id, None)
        if place is not None:
            self._shelf.forget(place)

    def clear(self) -> None:
        """The connection has ended."""
        for response_id in list(self._kept):
            self.forget(response_id)
