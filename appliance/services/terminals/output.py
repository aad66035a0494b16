"""What a terminal says: kept for a while, and sent to whoever is attached as fast as they take it.

Everything is counted in characters of the decoded output from its beginning,
so a client that comes back says how far it had read. The reader of the
terminal waits in :meth:`TerminalOutput.wait_room`, so what nobody takes yet
stays in the kernel and the program inside waits: nothing here grows.
"""

import codecs
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import trio

from appliance.model.errors import RateLimited
from appliance.model.terminals import Mode
from appliance.services.clients import Client

WINDOW = 1024 * 1024  # characters that a client which acknowledges may be behind
PATIENCE = 60.0  # seconds for a client that takes nothing, before others go on without it
MOST_VIEWERS = 32
_PIECE = 64 * 1024  # bytes or characters that one event carries
_FULL = 1024 * 1024  # bytes that wait in a connection before a terminal does
_MERGED = 16 * 1024  # bytes up to which small pieces are kept as one
_SOONEST, _LATEST = 0.005, 0.1  # seconds between two looks at a full connection

OUTPUT = "terminal.output"


@dataclass(frozen=True, slots=True)
class Replay:
    """What a client is given when it attaches: ``data`` ends at ``offset``."""

    data: str
    offset: int
    truncated: bool  # what it asked for is no longer kept in full


class Viewer:
    """One connection that is attached. ``request_id`` names the support access it came by."""

    __slots__ = ("acked", "blocked_at", "client", "is_behind", "mode", "request_id", "sent")

    def __init__(self, client: Client, mode: Mode, request_id: str | None) -> None:
        self.client = client
        self.mode = mode
        self.request_id = request_id
        self.sent = 0  # where what it was sent ends
        self.acked: int | None = None  # None: it never acknowledged anything
        self.is_behind = False  # the others do not wait for it any more
        self.blocked_at: float | None = None


class Scrollback:
    """The end of what was said, as the bytes it came in: a little more than ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._pieces: deque[_Piece] = deque()
        self._bytes = 0
        self.start = 0  # characters that came before what is kept
        self.end = 0

    def append(self, data: bytes, characters: int) -> None:
        """Keep ``data``, which is UTF-8 with whole characters (or what stands for them)."""
        self.end += characters
        self._bytes += len(data)
        last = self._pieces[-1] if self._pieces else None
        if last is not None and len(last.data) + len(data) <= _MERGED:
            last.data += data
            last.characters += characters
        else:
            self._pieces.append(_Piece(bytearray(data), characters))
        while self._bytes - len(self._pieces[0].data) >= self._most:
            gone = self._pieces.popleft()
            self._bytes -= len(gone.data)
            self.start += gone.characters

    def read(self, offset: int, most: int) -> tuple[int, str]:
        """At most ``most`` characters from ``offset``, and where they really begin."""
        begin = place = min(max(offset, self.start), self.end)
        found: list[str] = []
        for at, piece in self._placed():
            if at + piece.characters <= place:
                continue
            text = piece.data.decode(errors="replace")[place - at :][: begin + most - place]
            found.append(text)
            place += len(text)
            if place - begin >= most:
                break
        return begin, "".join(found)

    def _placed(self) -> "Iterator[tuple[int, _Piece]]":
        at = self.start
        for piece in self._pieces:
            yield at, piece
            at += piece.characters


class _Piece:
    __slots__ = ("characters", "data")

    def __init__(self, data: bytearray, characters: int) -> None:
        self.data = data
        self.characters = characters


class TerminalOutput:
    """What is sent stays well below ``most_buffered``, the waiting bytes that end a connection.

    ``left`` is told of every viewer that is attached no longer.
    """

    def __init__(
        self,
        terminal: str,
        *,
        scrollback_bytes: int,
        most_buffered: Callable[[], int],
        left: Callable[[Viewer], None] = lambda _: None,
    ) -> None:
        self._terminal = terminal
        self._left = left
        self._most_buffered = most_buffered
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._scrollback = Scrollback(scrollback_bytes)
        self._stirred = trio.Event()
        self._never_waits = False
        self.viewers: dict[str, Viewer] = {}  # by connection

    @property
    def end(self) -> int:
        return self._scrollback.end

    @property
    def piece(self) -> int:
        """Bytes that :meth:`publish` should be given at once, at most."""
        # As JSON a byte takes up to six.
        return min(_PIECE, self._most_buffered() // 16)

    # -- from the terminal ----------------------------------------------

    async def wait_room(self) -> None:
        """Wait until everybody who is attached, and not behind, can take more."""
        pause = _SOONEST
        while not self._has_room():
            self._stirred = trio.Event()
            # A connection does not tell when it has sent what waited in it.
            with trio.move_on_after(pause):
                await self._stirred.wait()
            pause = min(pause * 2, _LATEST)

    def never_wait(self) -> None:
        """The program has ended: what is left is little, and nobody is to wait for it."""
        self._never_waits = True
        self._stirred.set()

    def publish(self, data: bytes, *, final: bool = False) -> str:
        """Keep ``data`` and send it to whoever is not behind; return its whole characters."""
        cut_off = self._decoder.getstate()[0]
        text = self._decoder.decode(data, final)
        whole = cut_off + data
        left = len(self._decoder.getstate()[0])
        begin = self._scrollback.end
        self._scrollback.append(whole[: len(whole) - left], len(text))
        if text and self.viewers:
            self._send_all(begin, text)
        return text

    def _send_all(self, begin: int, text: str) -> None:
        payload = self._encode(text, begin + len(text))
        for viewer in list(self.viewers.values()):
            if viewer.sent == begin and not viewer.is_behind:
                self._send(viewer, payload, begin + len(text))

    # -- to the clients --------------------------------------------------

    def attach(
        self,
        client: Client,
        mode: Mode,
        *,
        offset: int | None = None,
        request_id: str | None = None,
    ) -> Replay:
        """Send ``client`` what is said from now on; what it missed is returned or follows."""
        if client.id not in self.viewers and len(self.viewers) >= MOST_VIEWERS:
            raise RateLimited(
                f"{MOST_VIEWERS} connections are attached to this terminal; detach one",
                limit=MOST_VIEWERS,
            )
        wanted = 0 if offset is None or offset > self.end else offset
        most = min(WINDOW // 2, self._most_buffered() // 16)
        begin, text = self._scrollback.read(wanted, most)
        viewer = self.viewers[client.id] = Viewer(client, mode, request_id)
        viewer.sent = begin + len(text)
        return Replay(text, viewer.sent, truncated=begin > wanted)

    def catch_up(self, client_id: str) -> None:
        """Send what follows a replay, once that is on its way."""
        if (viewer := self.viewers.get(client_id)) is not None:
            self._advance(viewer)

    def detach(self, client_id: str) -> bool:
        """Whether it was attached."""
        viewer = self.viewers.pop(client_id, None)
        if viewer is None:
            return False
        self._stirred.set()
        self._left(viewer)
        return True

    def acknowledge(self, client_id: str, offset: int) -> int:
        """Note that a client has shown all up to ``offset``; return what is noted."""
        viewer = self.viewers.get(client_id)
        if viewer is None:
            return 0
        before = viewer.acked or 0
        viewer.acked = max(before, min(offset, viewer.sent))
        if viewer.is_behind or viewer.acked > before:
            viewer.is_behind = False
            viewer.blocked_at = None
        self._advance(viewer)
        self._stirred.set()
        return viewer.acked

    def tell(self, name: str, payload: object, *, but: str | None = None) -> None:
        """Send an event to everybody attached, but for the connection ``but``."""
        data = msgspec.json.encode(payload)
        for viewer in list(self.viewers.values()):
            if viewer.client.id != but and not viewer.client.send_event(name, data):
                self.detach(viewer.client.id)

    def tend(self, is_there: Callable[[Client], bool]) -> None:
        """Let go of connections that are gone; go on with those that read again."""
        for viewer in list(self.viewers.values()):
            if not is_there(viewer.client):
                self.detach(viewer.client.id)
                continue
            if viewer.is_behind and viewer.acked is None and self._takes(viewer):
                viewer.is_behind = False
                viewer.blocked_at = None
            self._advance(viewer)

    # -- flow control ----------------------------------------------------

    def _has_room(self) -> bool:
        if self._never_waits:
            return True
        now = trio.current_time()
        has_room = True
        for viewer in list(self.viewers.values()):
            self._advance(viewer)
            if viewer.is_behind or viewer.client.id not in self.viewers:
                continue
            if viewer.sent == self.end and self._takes(viewer):
                viewer.blocked_at = None
            elif viewer.blocked_at is None:
                viewer.blocked_at = now
                has_room = False
            elif now - viewer.blocked_at >= PATIENCE:
                viewer.is_behind = True
            else:
                has_room = False
        return has_room

    def _takes(self, viewer: Viewer) -> bool:
        if viewer.client.buffered > min(_FULL, self._most_buffered() // 4):
            return False
        return viewer.acked is None or viewer.sent - viewer.acked < WINDOW

    def _advance(self, viewer: Viewer) -> None:
        """Send a viewer what it has not got yet, as far as it takes it."""
        while viewer.sent < self.end and not viewer.is_behind and self._takes(viewer):
            begin, text = self._scrollback.read(viewer.sent, self.piece)
            payload = self._encode(text, begin + len(text), truncated=begin > viewer.sent)
            if not self._send(viewer, payload, begin + len(text)):
                return

    def _send(self, viewer: Viewer, payload: bytes, end: int) -> bool:
        if not viewer.client.send_event(OUTPUT, payload):
            self.detach(viewer.client.id)
            return False
        viewer.sent = end
        return True

    def _encode(self, text: str, end: int, *, truncated: bool = False) -> bytes:
        members: dict[str, object] = {"terminalId": self._terminal, "data": text, "offset": end}
        if truncated:
            members["truncated"] = True
        return msgspec.json.encode(members)
