"""Ways to cut bytes into pieces."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from hypothesis import strategies as st


def at_every_position(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for place in range(len(data) + 1):
        yield data[:place], data[place:]


@st.composite
def pieces(draw: Callable[[st.SearchStrategy[list[int]]], list[int]], data: bytes) -> list[bytes]:
    """``data`` in pieces, none of them empty."""
    places = draw(st.lists(st.integers(1, max(1, len(data) - 1)), unique=True))
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
