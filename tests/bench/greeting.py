"""A Gateway client's side of a WebSocket, without IO: frames, the handshake, a device's proof.

As lean as it can be in Python, because the load shares a core with others: frames
are made before they count, and of what arrives only the length is read.
"""

import base64
import hashlib
import json
import os
import struct
import time
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.bench.processes import MeasurementFailed

EVENT = b'{"type":"event"'  # how a message begins that answers no request
_CLIENT = {"id": "cli", "version": "1.0", "platform": "linux", "mode": "cli"}
_SCOPES = ("operator.admin", "operator.read", "operator.write")
_MASK = b"\x37\xfa\x21\x3d"  # any will do between two processes of one machine
_TEXT = 0x81
_MASKED = 0x80
_SWITCHED = b"HTTP/1.1 101 "


def frame(text: bytes) -> bytes:
    """One text message of a client (RFC 6455 §5.2)."""
    length = len(text)
    if length < 126:
        head = bytes((_TEXT, _MASKED | length))
    elif length < 65536:
        head = struct.pack("!BBH", _TEXT, _MASKED | 126, length)
    else:
        head = struct.pack("!BBQ", _TEXT, _MASKED | 127, length)
    mask = (_MASK * (length // 4 + 1))[:length]
    hidden = int.from_bytes(text) ^ int.from_bytes(mask)
    return head + _MASK + hidden.to_bytes(length)


def request(method: str, *, id: str = "1", **params: Any) -> bytes:  # noqa: A002 - the wire's own word
    """The frame of a request."""
    asked: dict[str, Any] = {"type": "req", "id": id, "method": method}
    if params:
        asked["params"] = params
    return frame(json.dumps(asked, separators=(",", ":")).encode())


class FrameReader:
    """Cuts what a server sends into messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises :exc:`MeasurementFailed` on a goodbye."""
        buffer = self._buffer + data if self._buffer else data
        found: list[bytes] = []
        place, size = 0, len(buffer)
        while size - place >= 2:
            start, length = place + 2, buffer[place + 1]
            if length == 126:
                start = place + 4
                length = int.from_bytes(buffer[place + 2 : start])
            elif length == 127:
                start = place + 10
                length = int.from_bytes(buffer[place + 2 : start])
            # Of a cut length less is known; then there is no message either.
            if size < start + length:
                break
            message = buffer[start : start + length]
            if buffer[place] != _TEXT:
                raise MeasurementFailed(f"the server said goodbye: {message[:100]!r}")
            found.append(message)
            place = start + length
        self._buffer = buffer[place:]
        return found


class Device:
    """An Ed25519 identity, as clients keep one."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self._id = hashlib.sha256(raw).hexdigest()
        self._public_key = _base64url(raw)

    def prove(self, nonce: str, token: str) -> dict[str, object]:
        now = round(time.time() * 1000)
        scopes = ",".join(_SCOPES)
        parts = (self._id, "cli", "cli", "operator", scopes, str(now), token, nonce)
        named = (*parts, _CLIENT["platform"], "")
        signature = self._key.sign("|".join(("v3", *named)).encode())
        return {
            "id": self._id,
            "publicKey": self._public_key,
            "signature": _base64url(signature),
            "signedAt": now,
            "nonce": nonce,
        }


class Greeting:
    """From the first byte to ``hello-ok``; without a token only to the end of the upgrade."""

    def __init__(self, token: str | None = None, device: Device | None = None) -> None:
        self._token = token
        self._device = device
        self._head: bytes | None = b""
        self.reader = FrameReader()
        self.done = False

    def begin(self) -> bytes:
        """What the client says first."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET / HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        return "\r\n".join([*lines, "", ""]).encode()

    def feed(self, data: bytes) -> bytes:
        """Take what has come and return what to say to it, if anything.

        Raises :exc:`MeasurementFailed` when the server will not have us.
        """
        if self._head is not None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return b""
            if not head.startswith(_SWITCHED):
                raise MeasurementFailed(f"no WebSocket: {head[:100]!r}")
            self._head = None
            self.done = self._token is None
        said = b""
        for message in self.reader.feed(data):
            if b'"connect.challenge"' in message[:60]:
                said += self._connect(json.loads(message)["payload"]["nonce"])
            elif not message.startswith(EVENT):
                if b'"hello-ok"' not in message:
                    raise MeasurementFailed(f"connect was refused: {message[:300]!r}")
                self.done = True
        return said

    def _connect(self, nonce: str) -> bytes:
        params: dict[str, Any] = {
            "minProtocol": 3,
            "maxProtocol": 4,
            "client": _CLIENT,
            "scopes": _SCOPES,
            "auth": {"token": self._token},
        }
        if self._device is not None and self._token is not None:
            params["device"] = self._device.prove(nonce, self._token)
        return request("connect", id="connect", **params)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
