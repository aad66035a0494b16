"""A failure on its way to a client of a raw route, in whatever form its API has."""

from collections.abc import Callable
from dataclasses import dataclass

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Failure:
    """``stream`` says it where the answer had begun as a stream: whole events, to its end.

    ``waited`` are the seconds of it that were providers' and tools'.
    """

    status: int
    body: bytes
    headers: tuple[Header, ...]
    stream: bytes = b""
    waited: float = 0.0


# How one API describes a failure; the request's id is the second argument.
FailureForm = Callable[[BaseException, str], Failure]
