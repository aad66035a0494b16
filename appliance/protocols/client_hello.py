"""Reads the server's name out of the first bytes of a TLS client (RFC 8446 §4.1.2, RFC 6066 §3).

With Encrypted Client Hello the name read here is the outer one, which is all
that anybody on the way sees. Whoever is allowed a tunnel to a provider's outer
name can reach what that provider hosts behind it; so it is without ECH too,
by asking for another host once inside.
"""

from typing import Final

LONGEST_HELLO: Final = 32 * 1024  # with post-quantum keys and tickets it is a few KiB
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_LONGEST_RECORD: Final = 16 * 1024
_SERVER_NAME: Final = 0


class NotTls(Exception):
    """These are not the first bytes of a TLS client, or not of one we can judge."""


class ClientHelloReader:
    """``receive`` what comes until it returns the server's name, "" for none.

    Nothing is taken out: what was received is passed on as it came. Raises
    :exc:`NotTls`.
    """

    __slots__ = ("_handshake", "_records", "_size")

    def __init__(self) -> None:
        self._records = bytearray()  # what has come of a record that is not whole
        self._handshake = bytearray()  # a hello may be spread over several records
        self._size = 0

    def receive(self, data: bytes) -> str | None:
        self._records += data
        self._size += len(data)
        while self._take_record():
            if (hello := self._whole_hello()) is not None:
                return _server_name(hello)
        if self._size > LONGEST_HELLO:
            raise NotTls("the first message is too long")
        return None

    def _take_record(self) -> bool:
        """Move one whole record's content to the handshake."""
        records = self._records
        # Judged byte by byte: who does not speak TLS is not waited for.
        if records and records[0] != _HANDSHAKE:
            raise NotTls("what was sent is not TLS")
        if len(records) > 1 and records[1] != 3:
            raise NotTls("what was sent is not TLS")
        if len(records) < 5:
            return False
        length = int.from_bytes(records[3:5])
        if not 0 < length <= _LONGEST_RECORD:
            raise NotTls("a TLS record has an impossible length")
        if len(records) < 5 + length:
            return False
        self._handshake += records[5 : 5 + length]
        del records[: 5 + length]
        return True

    def _whole_hello(self) -> bytes | None:
        handshake = self._handshake
        if handshake[0] != _CLIENT_HELLO:
            raise NotTls("the first message is not a ClientHello")
        if len(handshake) < 4:
            return None
        length = int.from_bytes(handshake[1:4])
        if length > LONGEST_HELLO:
            raise NotTls("the first message is too long")
        if len(handshake) < 4 + length:
            return None
        if len(handshake) > 4 + length:
            raise NotTls("something follows the first message in its record")
        return bytes(handshake[4:])


class _Fields:
    """Reads fields with a length before them; raises :exc:`NotTls` where they do not fit."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def is_at_end(self) -> bool:
        return self._place == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._place + count
        if end > len(self._data):
            raise NotTls("the ClientHello is malformed")
        taken = self._data[self._place : end]
        self._place = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        """What follows its own length, which has ``size`` bytes."""
        return self.take(self.number(size))


def _server_name(hello: bytes) -> str:
    fields = _Fields(hello)
    fields.take(2 + 32)  # version, random
    fields.vector(1)  # session
    fields.vector(2)  # cipher suites
    fields.vector(1)  # compression
    if fields.is_at_end:
        return ""
    extensions = _Fields(fields.vector(2))
    if not fields.is_at_end:
        raise NotTls("the ClientHello is malformed")
    names: list[str] = []
    while not extensions.is_at_end:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            names.append(_one_name(content))
    if len(names) > 1:
        raise NotTls("the server is named twice")
    return names[0] if names else ""


def _one_name(extension: bytes) -> str:
    outer = _Fields(extension)
    entries = _Fields(outer.vector(2))
    kind, name = entries.number(1), entries.vector(2)
    if kind != 0 or not outer.is_at_end or not entries.is_at_end:
        raise NotTls("the server is named twice")
    return name.decode("latin-1").lower()
