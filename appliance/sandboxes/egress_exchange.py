"""One request that is sent on, and its answer that is brought back, at the same time."""

from enum import Enum
from typing import TypeVar

import h11
import trio

from appliance.protocols.http_head import LONGEST_HEAD, RequestHead
from appliance.protocols.secret_watch import SecretSeen, SecretWatch
from appliance.sandboxes.egress_passage import READ_BYTES, EgressEnded, Passage, together
from appliance.sandboxes.egress_settings import Verdict

_Head = TypeVar("_Head", h11.Response, h11.InformationalResponse)
_LONGEST_ANSWER_HEAD = 128 * 1024
_HOP_BY_HOP = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"proxy-authenticate"})


class Outcome(Enum):
    REUSABLE = "reusable"  # the client may send another request
    ENDED = "ended"
    SWITCHED = "switched"  # the server agreed to speak something else


class Exchange:
    """``client`` and server each see an HTTP/1.1 connection; h11 keeps the two apart."""

    def __init__(
        self,
        passage: Passage,
        upstream: trio.abc.Stream,
        head: RequestHead,
        rest: bytes,
        watch: SecretWatch,
        *,
        close: bool,
    ) -> None:
        self._passage = passage
        self._upstream = upstream
        self._watch = watch
        self._closes = close
        self._uploading = trio.CancelScope()
        self._server = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_ANSWER_HEAD)
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD * 2)
        self._client.receive_data(head.raw + rest)
        passage.count_sent(len(head.raw) + len(rest))

    @property
    def rest(self) -> bytes:
        """What the client has sent after its request."""
        return self._client.trailing_data[0]

    @property
    def upstream_rest(self) -> bytes:
        return self._server.trailing_data[0]

    @property
    def is_upstream_reusable(self) -> bool:
        # Bytes after the answer belong to no request of ours.
        return _is_done(self._server) and not self.upstream_rest

    async def run(self, request: h11.Request) -> Outcome:
        """Raise :exc:`EgressEnded`, or what breaks when the client leaves."""
        if not isinstance(self._client.next_event(), h11.Request):
            raise EgressEnded(Verdict.REFUSED, "not an HTTP/1.1 request", status=400)
        try:
            await self._upstream.send_all(self._server.send(request) or b"")
        except trio.BrokenResourceError as exc:
            raise self._lost("closed the connection") from exc
        await together(self._upload, self._download)
        if self._server.their_state is h11.SWITCHED_PROTOCOL:
            return Outcome.SWITCHED
        return Outcome.REUSABLE if _is_done(self._client) else Outcome.ENDED

    def pass_on(self, data: bytes) -> bytes:
        """What of an answer's bytes may be handed to the client now."""
        try:
            return self._watch.feed(data)
        except SecretSeen:
            raise EgressEnded(
                Verdict.REFUSED,
                f"{self._passage.host} repeats the credential in its answer, which was held back",
                status=502,
            ) from None

    async def _upload(self) -> None:
        with self._uploading:
            while (event := self._client.next_event()) is not h11.PAUSED:
                if event is h11.NEED_DATA:
                    await self._receive_from_client()
                    continue
                if not isinstance(event, h11.Data | h11.EndOfMessage):
                    raise EgressEnded(Verdict.REFUSED, "the request is malformed", status=400)
                if isinstance(event, h11.Data):
                    event = h11.Data(data=bytes(event.data))
                try:
                    await self._upstream.send_all(self._server.send(event) or b"")
                except trio.BrokenResourceError:
                    return  # it may have answered all the same: that it has heard enough
                if isinstance(event, h11.EndOfMessage):
                    return

    async def _receive_from_client(self) -> None:
        data = bytes(await self._passage.client.receive_some(READ_BYTES))
        if not data:
            raise EgressEnded(Verdict.FAILED, "the client left in the middle of its request")
        self._passage.count_sent(len(data))
        self._client.receive_data(data)

    async def _download(self) -> None:
        while True:
            event = self._next_answer()
            if event is h11.NEED_DATA:
                await self._receive_from_server()
            elif isinstance(event, h11.InformationalResponse):
                await self._send_down(self._checked_head(event))
                if event.status_code == 101:
                    break
            elif isinstance(event, h11.Response):
                await self._send_down(self._final_head(event))
            elif isinstance(event, h11.Data):
                if data := self.pass_on(bytes(event.data)):
                    await self._send_down(h11.Data(data=data))
            elif isinstance(event, h11.EndOfMessage):
                if data := self._watch.finish():
                    await self._send_down(h11.Data(data=data))
                await self._send_down(event)
                break
            else:
                raise self._lost("closed the connection")
        self._uploading.cancel()

    def _next_answer(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._server.next_event()
        except h11.RemoteProtocolError as exc:
            raise self._lost("sent what is not HTTP/1.1, or ended too early") from exc

    async def _receive_from_server(self) -> None:
        try:
            data = bytes(await self._upstream.receive_some(READ_BYTES))
        except trio.BrokenResourceError as exc:
            raise self._lost("closed the connection") from exc
        self._passage.count_received(len(data))
        self._server.receive_data(data)

    async def _send_down(self, event: h11.Event) -> None:
        if isinstance(event, h11.Response) or (
            isinstance(event, h11.InformationalResponse) and event.status_code == 101
        ):
            self._passage.can_answer = False
        if data := self._client.send(event):
            await self._passage.client.send_all(data)

    def _final_head(self, event: h11.Response) -> h11.Response:
        checked = self._checked_head(event)
        headers = [
            (name, value)
            for name, value in checked.headers.raw_items()
            if name.lower() not in _HOP_BY_HOP
        ]
        if self._closes:
            headers.append((b"Connection", b"close"))
        return h11.Response(
            status_code=event.status_code, headers=headers, reason=bytes(event.reason)
        )

    def _checked_head(self, event: _Head) -> _Head:
        # A head is looked through by itself: the body begins anew.
        for name, value in event.headers.raw_items():
            self.pass_on(name + b": " + value + b"\r\n")
            self._watch.finish()
        self.pass_on(bytes(event.reason))
        self._watch.finish()
        return event

    def _lost(self, what: str) -> EgressEnded:
        return EgressEnded(Verdict.FAILED, f"{self._passage.host} {what}", status=502)


def _is_done(connection: h11.Connection) -> bool:
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE
