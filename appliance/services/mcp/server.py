"""One MCP server of one tenant: started when it is needed, ended when it is not, never trusted.

The connection itself is made elsewhere (``Connect``), so that the SDK is
loaded by whoever has a server and by nobody else.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from math import inf
from typing import Any, Protocol

import trio

from appliance.config.tool_schema import McpServerConfig
from appliance.model.errors import ApplianceError
from appliance.model.mcp_tools import RemoteTool

log = logging.getLogger(__name__)

IDLE = 600.0  # seconds without a call; then it is ended, and started again for the next one
_REFRESH_EVERY = 5.0  # seconds; who says that its tools changed is not asked more often
_FIRST_PAUSE = 1.0  # seconds after a failure; doubled for each further one in a row
_LONGEST_PAUSE = 300.0
_SHORT_PAUSE = 2.0  # whoever calls waits as long instead of being sent away
_HEALTHY = 60.0  # seconds; who ran as long has not failed in a row
_CLOSING = 10.0  # seconds


class ServerGone(Exception):
    """There is no connection (any more). The text is ours, and safe to show."""


class ServerRefused(Exception):
    """The server answered with an error; the text is the server's, so a stranger's."""


class CallTimedOut(Exception):
    """It did not answer in time; the connection goes on."""


class Link(Protocol):
    """A connection that works."""

    @property
    def changed(self) -> trio.Event:
        """Set when the server said that its tools are not the same any more; see :meth:`list`."""

    @property
    def ended(self) -> trio.Event: ...

    @property
    def reason(self) -> str:
        """Why it ended."""

    async def list(self) -> Sequence[RemoteTool]:
        """Raises :exc:`ServerGone` or :exc:`ServerRefused`. Makes a new ``changed``."""

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        limit: float,
        progress: Callable[[str], None],
    ) -> Mapping[str, Any]:
        """Raises :exc:`ServerGone`, :exc:`ServerRefused` or :exc:`CallTimedOut`.

        Cancelled or out of time, the server is told, and nothing else happens to it.
        """


Connect = Callable[[str, McpServerConfig], AbstractAsyncContextManager[Link]]


class _Run:
    """One connection: ``started`` when it works or never will, ``finished`` when it is closed."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.finished = trio.Event()
        self.reason = ""  # why it ended, where nobody wanted it to


class McpServer:
    """``settings`` is what it was made from, to be compared with what is wanted now."""

    def __init__(
        self, name: str, config: McpServerConfig, connect: Connect, *, settings: object
    ) -> None:
        self.name = name
        self.config = config
        self.settings = settings
        self.tools: Sequence[RemoteTool] = ()  # as listed last; kept when the connection ends
        self.is_listed = False
        self.failures = 0  # in a row
        self.problem = ""  # why there is no connection
        self._connect = connect
        self._link: Link | None = None
        self._run: _Run | None = None
        self._not_before = -inf  # on Trio's clock
        self._calls = 0
        self._last_used = trio.current_time()
        self._scope: trio.CancelScope | None = None
        self._is_retired = False

    @property
    def is_connected(self) -> bool:
        return self._link is not None and not self._link.ended.is_set()

    def retire(self) -> None:
        """End it; it is not started again."""
        self._is_retired = True
        if self._scope is not None:
            self._scope.cancel()

    async def ready(self, nursery: trio.Nursery) -> Link:
        """The connection, made in ``nursery`` if there is none. Raises :exc:`ServerGone`."""
        while True:
            if self._link is not None and not self._link.ended.is_set():
                return self._link
            run = self._run or self._begin(nursery)
            if run.started.is_set():
                await run.finished.wait()  # it is being closed
                continue
            await run.started.wait()
            if run.finished.is_set():
                raise ServerGone(self.problem)

    def nudge(self, nursery: trio.Nursery) -> None:
        """Try again if it is time for that, and let nobody wait for it."""
        is_due = trio.current_time() >= self._not_before
        if self._run is None and is_due and not self._is_retired:
            self._begin(nursery)

    def _begin(self, nursery: trio.Nursery) -> _Run:
        if self._is_retired:
            raise ServerGone("it is not configured any more")
        pause = self._not_before - trio.current_time()
        if pause > _SHORT_PAUSE:
            raise ServerGone(f"{self.problem}; it is tried again in {pause:.0f} s")
        run = self._run = _Run()
        nursery.start_soon(self._go, run, max(pause, 0.0))
        return run

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A call is under way, so it is not idle."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._last_used = trio.current_time()

    async def _go(self, run: _Run, pause: float) -> None:
        """One connection, from its beginning to its end; raises nothing of its own."""
        began = trio.current_time()
        failure = ""
        self._last_used = began
        try:
            with trio.CancelScope() as scope:
                self._scope = scope
                scope.deadline = began + self.config.startup_timeout
                await trio.sleep(pause)
                await self._live(run, scope)
            failure = run.reason
            if scope.cancelled_caught and not run.started.is_set():
                failure = f"it did not start within {self.config.startup_timeout:g} s"
        except* ApplianceError as group:
            failure = _first(group).detail
        except* ServerGone as group:
            failure = str(_first(group))
        except* ServerRefused:
            failure = "it refuses to be used"
        except* Exception as group:  # noqa: BLE001 - a hostile answer may make a library raise any
            # Not its text, which may be the server's.
            log.debug("an MCP connection broke", extra=_place(_first(group)))
            failure = f"the connection broke ({type(_first(group)).__name__})"
        finally:
            self._note_end(failure, ran=trio.current_time() - began)
            self._run = None
            run.finished.set()
            run.started.set()

    async def _live(self, run: _Run, scope: trio.CancelScope) -> None:
        async with self._connect(self.name, self.config) as link:
            await self._refresh(link)
            scope.deadline = inf
            self._link = link
            run.started.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_changes, link)
                nursery.start_soon(self._end_when_idle, nursery.cancel_scope)
                await link.ended.wait()
                nursery.cancel_scope.cancel()
            # Nobody shall be given a connection that is being closed.
            self._link = None
            run.reason = link.reason if link.ended.is_set() else ""
            # Only saying goodbye is left, which no server may draw out.
            scope.deadline = trio.current_time() + _CLOSING

    async def _refresh(self, link: Link) -> None:
        self.tools = await link.list()
        self.is_listed = True

    async def _follow_changes(self, link: Link) -> None:
        while True:
            await link.changed.wait()
            await trio.sleep(_REFRESH_EVERY)
            try:
                await self._refresh(link)
            except (ServerGone, ServerRefused) as error:
                log.debug("an MCP server does not list its tools", extra={"reason": str(error)})
                await trio.sleep(_REFRESH_EVERY)

    async def _end_when_idle(self, scope: trio.CancelScope) -> None:
        while self._calls or trio.current_time() < self._last_used + IDLE:
            left = self._last_used + IDLE - trio.current_time()
            await trio.sleep(max(left, 1.0))
        scope.cancel()

    def _note_end(self, failure: str, *, ran: float) -> None:
        self._link = None
        self._scope = None
        if self._is_retired or not failure:
            self.problem = "it was ended"
            self.failures = 0
            return
        self.failures = 1 if ran >= _HEALTHY else self.failures + 1
        pause = min(_FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20), _LONGEST_PAUSE)
        self._not_before = trio.current_time() + pause
        self.problem = failure
        log.warning("an MCP server failed", extra={"server": self.name, "reason": failure})


def _first(group: BaseExceptionGroup[Any]) -> Any:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _place(error: BaseException) -> dict[str, object]:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames[-3:]]
    return {"error": type(error).__name__, "at": places}
