"""Taking turns by weight, evenly: 3 to 1 is a a b a, not a a a b.

Each candidate gains its weight with every choice; who has most is chosen and
pays what all of them gained. That is nginx's smooth weighted round robin.
"""

from collections.abc import Callable, Sequence


class SmoothChoice:
    """Whose turn it is among candidates known by their number."""

    __slots__ = ("_credit", "_weights")

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._credit = [0] * len(self._weights)

    def order(self, usable: Callable[[int], bool] = lambda _: True) -> list[int]:
        """All candidates: whose turn it is, then those whose turn comes next.

        Those that are not usable come last and take part in no turn, unless
        nobody is usable. Asking again is another turn.
        """
        everyone = range(len(self._weights))
        ready = [number for number in everyone if usable(number)]
        turn = ready or list(everyone)
        gained = 0
        for number in turn:
            self._credit[number] += self._weights[number]
            gained += self._weights[number]
        # The sort is stable: the first of equals is who stands first.
        turn.sort(key=lambda number: -self._credit[number])
        self._credit[turn[0]] -= gained
        return turn + [number for number in everyone if ready and number not in ready]
