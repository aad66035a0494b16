"""The only way out of a sandbox: a proxy on a Unix socket, one for each sandbox.

The attacker holds everything inside and speaks to the socket as it likes; some
of the servers are its own, and so are their names' addresses. We promise that
it reaches no host, port or method but those of its rules, and no address that
is not public; that a credential added on the way out is sent to its rule's
host alone, over TLS, and is not to be read inside; and that it holds no more
connections, bytes and memory here than it may. What it tells a host that it
may reach is its own business.

There are no names inside (no DNS): a program hands the proxy a name, and it is
resolved here, once.
"""

import errno
import os
import secrets
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h11
import trio

from appliance import dialling
from appliance.dialling import IsAllowed, Resolve
from appliance.sandboxes.base import EgressDoor, SandboxFailed
from appliance.sandboxes.egress_certificates import Authority
from appliance.sandboxes.egress_connection import serve
from appliance.sandboxes.egress_passage import Budget, EgressEnded, Passage, say_goodbye
from appliance.sandboxes.egress_route import Route
from appliance.sandboxes.egress_settings import EgressRecord, EgressSettings, Verdict

Note = Callable[[EgressRecord], None]

_BACKLOG = 64
_SUFFIX = ".sock"
_MOST_LOOKUPS = 32  # of names, at once, of all sandboxes
_MOST_NOTES = 1000  # of one sandbox; what comes after is noted as a sum
_MOST_GOODBYES = 8  # connections beyond the limit that are told so, at once
_CLOSING_PATIENCE = 1.0  # seconds
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_ROOM_PATIENCE = 0.1  # seconds until descriptors may be free again


class EgressProxy:
    """Opens doors. ``directory`` is where their sockets lie; nobody else may enter it."""

    def __init__(
        self,
        *,
        directory: Path,
        authority: Authority,
        resolve: Resolve | None = None,
        is_public: IsAllowed = dialling.is_public,
        is_private: IsAllowed = dialling.is_public_or_private,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """``is_private`` says what is allowed where ``allow_private`` is set.

        ``resolve`` None is the system's, ``context`` (which checks servers)
        None has the system's authorities.
        """
        self._directory = directory
        self._authority = authority
        self._resolve = resolve or dialling.resolver(trio.CapacityLimiter(_MOST_LOOKUPS))
        self._is_public = is_public
        self._is_private = is_private
        self._context = context

    def sweep(self) -> None:
        """Remove sockets of a gateway that ended before it could. Only while no door is open."""
        with suppress(FileNotFoundError):
            for path in self._directory.glob(f"*{_SUFFIX}"):
                path.unlink(missing_ok=True)

    @asynccontextmanager
    async def open(self, settings: EgressSettings, note: Note) -> AsyncIterator[EgressDoor]:
        """A door for one sandbox, served until it is left; its connections end then.

        ``note`` is called at the end of each connection. Raises
        :exc:`SandboxFailed` where no socket can be made.
        """
        route = Route(
            settings,
            self._authority,
            resolve=self._resolve,
            is_allowed=self._is_private if settings.allow_private else self._is_public,
            context=self._context,
        )
        directory = self._open_directory()
        name = f"{secrets.token_hex(12)}{_SUFFIX}"
        failure: Exception | None = None
        try:
            listener, handle = _listen(directory, name)
            doorway = _Doorway(route, note)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(doorway.serve, listener)
                    path = str(self._directory / name)
                    try:
                        yield EgressDoor(handle, path, self._authority.pem)
                    except Exception as exc:  # noqa: BLE001 - handed on as it is, not in a group
                        failure = exc
                    nursery.cancel_scope.cancel()
            finally:
                listener.socket.close()
                os.close(handle)
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
        finally:
            os.close(directory)
        doorway.note_rest()
        if failure is not None:
            raise failure

    def _open_directory(self) -> int:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            directory = os.open(self._directory, flags)
        except OSError as exc:
            raise SandboxFailed(f"{self._directory}: {exc.strerror}") from exc
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            os.close(directory)
            raise SandboxFailed(f"{self._directory} is open to others; run: chmod 700 on it")
        return directory


def _listen(directory: int, name: str) -> tuple[trio.SocketListener, int]:
    """A listening socket, and an O_PATH descriptor of where it lies."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By the directory's descriptor: a socket's path holds 107 bytes at most.
        listening.bind(f"/proc/self/fd/{directory}/{name}")
        # Whoever runs inside may be another user; the directory keeps all others away.
        os.chmod(name, 0o666, dir_fd=directory)  # noqa: S103 - see above
        listening.listen(_BACKLOG)
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as exc:
        listening.close()
        raise SandboxFailed(f"the socket of the egress proxy: {exc.strerror}") from exc
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening)), handle


class _Doorway:
    """Takes the connections of one sandbox in, as many as it may have."""

    def __init__(self, route: Route, note: Note) -> None:
        self._route = route
        self._note = note
        self._budget = Budget(route.settings)
        self._connections = 0
        self._goodbyes = 0
        self._notes = 0
        self._unnoted = [0, 0, 0]  # connections, bytes sent, bytes received

    async def serve(self, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    client = await listener.accept()
                except OSError as exc:
                    if exc.errno not in _FULL:
                        raise
                    await trio.sleep(_ROOM_PATIENCE)
                    continue
                if self._connections < self._route.settings.max_connections:
                    self._connections += 1
                    nursery.start_soon(self._serve_one, client)
                elif self._goodbyes < _MOST_GOODBYES:
                    self._goodbyes += 1
                    nursery.start_soon(self._turn_away, client)
                else:
                    client.socket.close()

    def note_rest(self) -> None:
        """Note the sum of what was too much to be noted one by one."""
        count, sent, received = self._unnoted
        if count:
            self._note(
                EgressRecord(
                    host="",
                    port=0,
                    sent_bytes=sent,
                    received_bytes=received,
                    seconds=0.0,
                    verdict=Verdict.PASSED,
                    reason=f"{count} more connections",
                )
            )

    async def _serve_one(self, client: trio.SocketStream) -> None:
        started = trio.current_time()
        passage = Passage(client, self._budget, self._route.settings.idle_timeout)
        ended = EgressEnded(Verdict.FAILED, "the sandbox ended")
        try:
            ended = await self._outcome(passage)
            if passage.can_answer and ended.verdict is not Verdict.PASSED:
                await say_goodbye(passage.client, client, ended)
            with trio.move_on_after(_CLOSING_PATIENCE):
                await passage.client.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it left before all was said
        finally:
            client.socket.close()
            self._connections -= 1
            self._note_end(passage, ended, trio.current_time() - started)

    async def _outcome(self, passage: Passage) -> EgressEnded:
        try:
            with passage.scope:
                await serve(passage, self._route)
            if passage.scope.cancelled_caught:
                limit = self._route.settings.idle_timeout
                return EgressEnded(Verdict.LIMITED, f"idle for {limit:g} s", status=504)
        except EgressEnded as exc:
            return exc
        except h11.RemoteProtocolError:
            return EgressEnded(Verdict.REFUSED, "the request is malformed", status=400)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            passage.can_answer = False
            return EgressEnded(Verdict.PASSED, "one side closed the connection")
        return EgressEnded(Verdict.PASSED, "")

    async def _turn_away(self, client: trio.SocketStream) -> None:
        limit = self._route.settings.max_connections
        ended = EgressEnded(
            Verdict.LIMITED, f"a sandbox may have {limit} connections at once", status=503
        )
        passage = Passage(client, self._budget, self._route.settings.idle_timeout)
        try:
            await say_goodbye(client, client, ended)
        finally:
            client.socket.close()
            self._goodbyes -= 1
            self._note_end(passage, ended, 0.0)

    def _note_end(self, passage: Passage, ended: EgressEnded, seconds: float) -> None:
        self._notes += 1
        if self._notes > _MOST_NOTES:
            self._unnoted[0] += 1
            self._unnoted[1] += passage.sent_bytes
            self._unnoted[2] += passage.received_bytes
            return
        self._note(
            EgressRecord(
                host=passage.host,
                port=passage.port,
                sent_bytes=passage.sent_bytes,
                received_bytes=passage.received_bytes,
                seconds=seconds,
                verdict=ended.verdict,
                reason=ended.reason,
            )
        )
