"""The responses of one tenant that run in the background, for as long as they do."""

from typing import Protocol

import trio

from appliance.model.errors import RateLimited
from appliance.services.responses.chains import ChainShelf


class Work(Protocol):
    def cancel(self) -> None: ...


class TooManyRuns(RateLimited):
    """As many responses run in the background as may."""

    code = "rate-limit-exceeded"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} responses run in the background at once at most; wait for one to end",
            retry_after=5 if limit else None,
            limit=limit,
        )


class LiveResponse:
    """A run in the background. ``news`` is set, and replaced, when there is more to read."""

    def __init__(self, response_id: str) -> None:
        self.id = response_id
        self.news = trio.Event()
        self.ended = trio.Event()
        self.is_cancelled = False  # somebody asked for it
        self._work: Work | None = None

    def started(self, work: Work) -> None:
        self._work = work
        if self.is_cancelled:
            work.cancel()

    def cancel(self) -> None:
        self.is_cancelled = True
        if self._work is not None:
            self._work.cancel()

    def tell(self) -> None:
        self.news.set()
        self.news = trio.Event()


class ResponseBook:
    """The runs of one tenant that nobody waits for, by the id of their response.

    ``chains`` is what its connections remember of responses that are not stored.
    """

    def __init__(self) -> None:
        self.chains = ChainShelf()
        self._live: dict[str, LiveResponse] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, response_id: str) -> bool:
        return response_id in self._live

    def find(self, response_id: str) -> LiveResponse | None:
        return self._live.get(response_id)

    def require_room(self, limit: int) -> None:
        """Raises :exc:`TooManyRuns`."""
        if len(self._live) >= limit:
            raise TooManyRuns(limit)

    def add(self, live: LiveResponse) -> None:
        self._live[live.id] = live

    def end(self, live: LiveResponse) -> None:
        self._live.pop(live.id, None)
        live.ended.set()
        live.tell()
