"""Looks for a secret in what passes by."""

_SHORTEST = 8  # bytes; what is shorter would be found everywhere


class SecretSeen(Exception):
    """What passes holds the secret; nothing of it was handed on."""


class SecretWatch:
    """Hands bytes on, except those that may be the beginning of a secret.

    So a secret that comes in pieces is not handed on in pieces. It is found
    only as it is: compressed, or spelled otherwise, it passes.
    """

    __slots__ = ("_kept", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret if len(secret) >= _SHORTEST else b""
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """What may be handed on; raise :exc:`SecretSeen`."""
        if not self._secret:
            return data
        data = self._kept + data
        if self._secret in data:
            raise SecretSeen
        clean = self._beginning(data)
        self._kept = data[clean:]
        return data[:clean]

    def finish(self) -> bytes:
        """What was kept back: it was no secret after all."""
        kept, self._kept = self._kept, b""
        return kept

    def _beginning(self, data: bytes) -> int:
        """Where in ``data`` a secret may have begun; its length if nowhere."""
        first = self._secret[:1]
        place = data.find(first, max(0, len(data) - len(self._secret) + 1))
        while place >= 0:
            if self._secret.startswith(data[place:]):
                return place
            place = data.find(first, place + 1)
        return len(data)
