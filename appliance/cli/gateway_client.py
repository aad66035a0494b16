"""A connection to the running gateway's WebSocket: methods, answers, events."""

import platform
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import click
import httpx
import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)

from appliance import __version__
from appliance.cli.client import checked_url, gateway_options
from appliance.cli.exits import OF_STATUS, CommandFailed, Exit
from appliance.cli.parameters import TENANT

P = ParamSpec("P")
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Events = trio.MemoryReceiveChannel[tuple[str, Any]]

PROTOCOLS = (3, 4)
_CONNECT = 5.0  # seconds until there is a socket
_HELLO = 15.0  # until the gateway knows us
_CLOSE = 1.0
_ANSWER = 30.0
_LARGEST = 32 * 1024 * 1024  # bytes of a frame
_MOST_EVENTS = 10_000  # that wait to be looked at; beyond, the newest are lost

_REFUSED = frozenset(
    {"FORBIDDEN", "SCOPE_MISSING", "MISSING_SCOPE", "ADMIN_ONLY", "ADMIN_ONLY_KEY", "ROLE",
     "TENANT_NEEDED", "FOREIGN_SESSION", "TOKEN_REJECTED", "RATE_LIMIT_EXCEEDED",
     "INSUFFICIENT_QUOTA", "MODEL_UNPRICED"}
)  # fmt: skip
_CONFLICTS = frozenset({"ALREADY_EXISTS", "TENANT_DISABLED", "PRECONDITION_FAILED"})
_OF_CODE = {
    "INVALID_REQUEST": Exit.USAGE,
    "NOT_FOUND": Exit.NOT_FOUND,
    "FORBIDDEN": Exit.REFUSED,
    "NOT_PAIRED": Exit.REFUSED,
}


class ConnectionLost(CommandFailed):
    """The gateway, or what lies between, closed the connection."""


class GatewayConnection:
    """An open connection. One that breaks fails every call with :exc:`ConnectionLost`."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._waiting: dict[str, trio.MemorySendChannel[Mapping[str, Any]]] = {}
        self._listeners: list[trio.MemorySendChannel[tuple[str, Any]]] = []
        self._lost: ConnectionLost | None = None
        self.hello: Mapping[str, Any] = {}

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float = _ANSWER,  # noqa: ASYNC109 - the caller's option, told in the message
        final: bool = False,
    ) -> Any:
        """Call ``method`` and return its payload; the last one, with ``final``, of two.

        Raises :exc:`CommandFailed` with the exit code that the failure asks for.
        """
        number = str(uuid.uuid4())
        send, answers = trio.open_memory_channel[Mapping[str, Any]](2)
        self._waiting[number] = send
        try:
            with trio.fail_after(timeout):
                await self._send(number, method, params)
                payload = self._payload(await self._next(answers))
                if final and isinstance(payload, dict) and payload.get("status") == "accepted":
                    payload = self._payload(await self._next(answers))
        except trio.TooSlowError:
            raise CommandFailed(f"{method} did not answer within {timeout:g} s") from None
        finally:
            del self._waiting[number]
        return payload

    async def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Call ``method`` and wait for no answer."""
        await self._send(str(uuid.uuid4()), method, params)

    @contextmanager
    def listening(self) -> Iterator[Events]:
        """The events from now on, as pairs of name and payload; they end with the connection."""
        send, receive = trio.open_memory_channel[tuple[str, Any]](_MOST_EVENTS)
        self._listeners.append(send)
        if self._lost is not None:
            send.close()
        try:
            yield receive
        finally:
            self._listeners.remove(send)

    async def greet(self, token: str | None) -> None:
        """Introduce ourselves; raise :exc:`CommandFailed` if we may not come in."""
        with trio.move_on_after(_HELLO):
            challenge = self._read(await self._receive())
            if challenge.get("event") != "connect.challenge":
                raise CommandFailed("what answers there is no gateway", Exit.UNREACHABLE)
            await self._send("hello", "connect", _introduction(token))
            while True:
                frame = self._read(await self._receive())
                if frame.get("type") == "res" and frame.get("id") == "hello":
                    self.hello = self._payload(frame)
                    return
        raise CommandFailed(f"no hello within {_HELLO:g} s", Exit.UNREACHABLE)

    async def read_forever(self) -> None:
        """Hand out what arrives until the connection ends."""
        try:
            while True:
                self._take(self._read(await self._receive()))
        except CommandFailed as error:
            self._end(error)

    async def close(self) -> None:
        """Say good-bye, and wait a moment for the gateway to say it too."""
        with trio.move_on_after(_CLOSE):
            await self._socket.aclose()

    def _take(self, frame: Mapping[str, Any]) -> None:
        if frame.get("type") == "res":
            waiting = self._waiting.get(str(frame.get("id")))
            if waiting is not None:
                _hand(waiting, frame)
        elif frame.get("type") == "event":
            for listener in self._listeners:
                _hand(listener, (str(frame.get("event")), frame.get("payload")))

    def _end(self, error: CommandFailed) -> None:
        lost = error if isinstance(error, ConnectionLost) else ConnectionLost(error.message)
        self._lost = lost
        for waiting in self._waiting.values():
            waiting.close()
        for listener in self._listeners:
            listener.close()

    async def _next(
        self, answers: trio.MemoryReceiveChannel[Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        try:
            return await answers.receive()
        except trio.EndOfChannel:
            raise self._lost or ConnectionLost("the connection is closed") from None

    def _payload(self, frame: Mapping[str, Any]) -> Any:
        if frame.get("ok"):
            return frame.get("payload")
        error = frame.get("error")
        raise refusal(error if isinstance(error, dict) else {})

    async def _send(self, number: str, method: str, params: Mapping[str, Any] | None) -> None:
        if self._lost is not None:
            raise self._lost
        frame: dict[str, Any] = {"type": "req", "id": number, "method": method}
        if params is not None:
            frame["params"] = params
        try:
            await self._socket.send_message(msgspec.json.encode(frame).decode())
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def _receive(self) -> str | bytes:
        try:
            return await self._socket.get_message()
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    def _read(self, text: str | bytes) -> Mapping[str, Any]:
        try:
            frame = msgspec.json.decode(text)
        except msgspec.DecodeError:
            frame = None
        if not isinstance(frame, dict):
            raise CommandFailed("what answers there is no gateway", Exit.UNREACHABLE)
        return frame


@asynccontextmanager
async def open_gateway(
    url: str, token: str | None, *, tenant: str | None = None
) -> AsyncIterator[GatewayConnection]:
    """Connect, and close again at the end.

    Raises :exc:`CommandFailed`; what the block raises comes out as it is, not
    in a group.
    """
    address = checked_url(url)
    headers = [(b"user-agent", b"openclawmu-cli")]
    if tenant is not None:
        headers.append((b"x-openclaw-tenant", tenant.encode()))
    stream = await _open_stream(address)
    try:
        # The library leaves its socket open when the other side closes first,
        # so the stream is ours.
        async with stream, trio.open_nursery() as nursery:
            connection = GatewayConnection(await _shake_hands(nursery, stream, address, headers))
            await connection.greet(token)
            nursery.start_soon(connection.read_forever)
            yield connection
            await connection.close()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = _only(group)
        if isinstance(error, ConnectionRejected):
            raise _rejected(error) from None
        raise error from None


async def _open_stream(url: httpx.URL) -> Stream:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        with trio.fail_after(_CONNECT):
            if url.scheme == "http":
                return await trio.open_tcp_stream(url.host, port)
            stream = await trio.open_ssl_over_tcp_stream(url.host, port, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream
    except trio.TooSlowError:
        raise _unreachable(url, f"no connection within {_CONNECT:g} s") from None
    except (OSError, trio.BrokenResourceError) as error:
        reason = error.__cause__ or error
        raise _unreachable(url, str(reason) or type(reason).__name__) from None


async def _shake_hands(
    nursery: trio.Nursery, stream: Stream, url: httpx.URL, headers: list[tuple[bytes, bytes]]
) -> WebSocketConnection:
    path = url.path.rstrip("/")
    try:
        with trio.fail_after(_CONNECT):
            return await wrap_client_stream(
                nursery,
                stream,
                url.netloc.decode(),
                path if path.endswith("/ws") else f"{path}/ws",
                extra_headers=headers,
                max_message_size=_LARGEST,
            )
    except trio.TooSlowError:
        raise _unreachable(url, f"no handshake within {_CONNECT:g} s") from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one failure in ``group``, or the group if there are several."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def refusal(error: Mapping[str, Any]) -> CommandFailed:
    """What an error of the gateway means for the command."""
    details = error.get("details")
    detail = str(details.get("code", "")) if isinstance(details, dict) else ""
    code = str(error.get("code", ""))
    message = str(error.get("message") or f"the gateway answered {code or 'with an error'}")
    if detail.startswith("AUTH_"):
        message += "; give a valid one with OPENCLAW_GATEWAY_TOKEN or --token"
    return CommandFailed(message, _exit(code, detail))


def _exit(code: str, detail: str) -> Exit:
    if detail in _REFUSED or detail.startswith(("AUTH_", "DEVICE_AUTH", "PAIRING_")):
        return Exit.REFUSED
    if detail in _CONFLICTS:
        return Exit.FAILURE
    if detail == "UNKNOWN_METHOD":
        return Exit.NOT_FOUND
    return _OF_CODE.get(code, Exit.FAILURE)


def _introduction(token: str | None) -> dict[str, Any]:
    params: dict[str, Any] = {
        "minProtocol": PROTOCOLS[0],
        "maxProtocol": PROTOCOLS[1],
        "client": {
            "id": "cli",
            "version": __version__,
            "platform": platform.system().lower() or "unknown",
            "mode": "cli",
        },
        "role": "operator",
        "scopes": [],  # all that the token allows
        "caps": [],
    }
    if token:
        params["auth"] = {"token": token}
    return params


def _unreachable(url: httpx.URL, reason: str) -> CommandFailed:
    where = url.copy_with(username=None, password=None)
    text = f"no gateway answers at {where}: {reason}; is `openclawmu serve` running?"
    return CommandFailed(text, Exit.UNREACHABLE)


def _rejected(error: ConnectionRejected) -> CommandFailed:
    code = OF_STATUS.get(error.status_code, Exit.FAILURE)
    detail = f"the gateway answered {error.status_code}"
    try:
        body = msgspec.json.decode(error.body or b"")
        detail = str(body["detail"])
    except (msgspec.DecodeError, TypeError, KeyError):
        pass  # no problem document, so the number must do
    return CommandFailed(detail, code)


def _lost(closed: ConnectionClosed) -> ConnectionLost:
    reason = closed.reason
    if reason is None or reason.code in {None, 1005, 1006}:
        return ConnectionLost("the connection to the gateway broke", Exit.UNREACHABLE)
    text = f"the gateway closed the connection: {reason.reason or reason.name} ({reason.code})"
    return ConnectionLost(text, Exit.REFUSED if reason.code == 1008 else Exit.UNREACHABLE)


def _hand(channel: trio.MemorySendChannel[Any], item: object) -> None:
    try:
        channel.send_nowait(item)
    except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
        return  # nobody looks, or not fast enough


def talks_over_websocket(
    command: Callable[Concatenate[GatewayConnection, P], Awaitable[None]],
) -> Callable[..., None]:
    """Add ``--url`` and ``--token`` to a command and run it with a :class:`GatewayConnection`."""

    @gateway_options
    @wraps(command)
    def run(*args: Any, url: str, token: str | None, **options: Any) -> None:
        tenant = options.pop("act_for", None)

        async def main() -> None:
            async with open_gateway(url, token, tenant=tenant) as gateway:
                await command(gateway, *args, **options)

        trio.run(main)

    return run


def act_for_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--tenant``, with which an admin acts for a tenant."""
    return click.option(
        "--tenant", "act_for", metavar="ID", type=TENANT, help="With the admin key: for whom."
    )(command)
