"""One request to a raw route and its answer: what all of them do alike.

A route is a function of an :class:`Exchange`. It lets the caller in, reads the
body, wakes the tenant and has the work done there; whatever it raises becomes
an answer in the form of the route's API.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import trio

from appliance.config.schema import GatewayConfig
from appliance.model.callers import Caller
from appliance.model.errors import MethodNotAllowed, ShuttingDown
from appliance.model.tokens import Scope
from appliance.tenants.jobs import ClientLeft
from appliance.tenants.runtime import TenantRuntime
from appliance.transports.bodies import ClientGone, read_body
from appliance.transports.callers import ACCEPTED_AT, Presented, read_headers
from appliance.transports.chunks import CHUNKS
from appliance.transports.raw.answers import Answer
from appliance.transports.raw.call_headers import advised
from appliance.transports.raw.failures import Failure, FailureForm, Header
from appliance.transports.raw.limits import limit_headers
from appliance.transports.raw.wishes import with_cache_control, with_wishes

T = TypeVar("T")
_LAST_WORDS = 1.0  # seconds to tell somebody who still waits that the gateway ends


class Tenants(Protocol):
    async def runtime(self, tenant_id: str) -> TenantRuntime: ...


class Door(Protocol):
    """Authentication and bookkeeping that the raw routes share (see ``door.py``)."""

    @property
    def config(self) -> GatewayConfig: ...
    def admit(self, scope: dict[str, Any], presented: Presented) -> Caller: ...
    def count_refusal(self, error: Exception) -> None: ...
    def note(
        self, scope: dict[str, Any], caller: Caller | None, answer: Answer, *, route: str
    ) -> None: ...


class Exchange:
    """One request under way. ``caller`` and ``runtime`` are there once they are asked for.

    ``more_headers`` are what a route's API tells with every answer, besides the limits.
    ``form`` says how this one tells of failures; None as its route does.
    """

    def __init__(
        self, scope: dict[str, Any], receive: Any, send: Any, *, door: Door, tenants: Tenants
    ) -> None:
        self.scope = scope
        self.door = door
        self.presented = read_headers(scope["headers"])
        self.caller: Caller | None = None
        self.runtime: TenantRuntime | None = None
        self._was_woken = False
        self.more_headers: Callable[[], Sequence[Header]] = tuple
        self.form: FailureForm | None = None
        self._receive = receive
        self._tenants = tenants
        server = door.config.server
        self.answer = Answer(
            send,
            receive,
            request_id=self.presented.request_id,
            received_at=scope[ACCEPTED_AT],
            streams=False,
            keep_alive=server.sse_keepalive,
            send_timeout=server.body_timeout,
            limits=self._limits,
            chunks=scope.get("state", {}).get(CHUNKS),
        )

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """Without a tenant's prefix."""
        return str(self.scope["path"])

    def header(self, name: bytes) -> bytes | None:
        """The last value of a header, None without one; ``name`` in lower case."""
        found = None
        for each, value in self.scope["headers"]:
            if each == name:
                found = bytes(value)
        return found

    def require_method(self, *methods: str) -> None:
        """Raises :exc:`MethodNotAllowed`."""
        if self.method not in methods:
            allow = ", ".join(methods)
            raise MethodNotAllowed(f"{self.path[:100]} answers {allow}", allow=allow)

    def admit(self, *scopes: Scope) -> Caller:
        """Let the caller in, who must have one of ``scopes`` and act for a tenant.

        Raises :exc:`TokenRejected`, :exc:`ScopeMissing` and what else a door refuses with.
        """
        caller = self.caller = self.door.admit(self.scope, self.presented)
        caller.require(next((scope for scope in scopes if caller.may(scope)), scopes[0]))
        caller.require_tenant()
        # What is said to us in particular counts more.
        headers = self.scope["headers"]
        caller = self.caller = with_wishes(with_cache_control(caller, headers), headers)
        return caller

    async def read(self, *, limit: int | None = None) -> bytes:
        """The body, at most ``limit`` bytes or as many as the config allows."""
        server = self.door.config.server
        return await read_body(
            self._receive,
            self.scope["headers"],
            limit=server.max_body_bytes if limit is None else limit,
            patience=server.body_timeout,
        )

    async def wake(self) -> TenantRuntime:
        """The caller's tenant, awake; its limits are told with the answer from here on."""
        if self.caller is None:
            raise RuntimeError("nobody was let in")
        self._was_woken = True
        self.runtime = await self._tenants.runtime(self.caller.require_tenant())
        return self.runtime

    async def perform(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have ``work`` done in the tenant, as long as the client waits for it.

        Raises :exc:`ClientLeft`, and what the work raises.
        """
        if self.runtime is None or self.caller is None:
            raise RuntimeError("the tenant was not woken")
        return await self.runtime.perform(work, caller=self.caller, left=self.answer.wait_left)

    async def know_limits(self) -> None:
        """Have the limits told with a failure too, once it is known whose they are."""
        if self._was_woken or self.caller is None or self.caller.tenant is None:
            return
        with suppress(Exception):  # the failure that is to be told is another one
            await self.wake()

    def _limits(self) -> Sequence[Header]:
        limits = () if self.runtime is None else limit_headers(self.runtime.meter)
        return (*limits, *self.more_headers())


class RawRoute:
    """A route as an ASGI endpoint. ``label`` is its path for the metrics."""

    def __init__(
        self,
        handle: Callable[[Exchange], Awaitable[None]],
        *,
        door: Door,
        tenants: Tenants,
        form: FailureForm,
        label: str | Callable[[str], str],
    ) -> None:
        self._handle = handle
        self._door = door
        self._tenants = tenants
        self._form = form
        self._label = label

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, door=self._door, tenants=self._tenants)
        answer = exchange.answer
        try:
            await self._handle(exchange)
        except (ClientGone, ClientLeft):
            pass  # nobody reads the answer; what was used is settled
        except Exception as error:  # noqa: BLE001 - the edge: what nobody foresaw is logged by its form
            self._door.count_refusal(error)
            await exchange.know_limits()
            await answer.fail(self._failure(error, exchange))
        except trio.Cancelled:
            # The time to end has come before the end of this: what was done for it is settled.
            ending = ShuttingDown("the gateway is shutting down")
            with trio.move_on_after(_LAST_WORDS, shield=True), suppress(Exception):
                await answer.break_off(self._failure(ending, exchange))
            raise
        finally:
            label = self._label if isinstance(self._label, str) else self._label(exchange.path)
            self._door.note(scope, exchange.caller, answer, route=label)

    def _failure(self, error: Exception, exchange: Exchange) -> Failure:
        form = exchange.form or self._form
        return advised(form(error, exchange.answer.request_id), error)
