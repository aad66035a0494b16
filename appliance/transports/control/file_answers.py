"""An answer of the files' door on its way out, with what every answer carries."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any
from urllib.parse import quote

import msgspec
import trio

from appliance.transports.callers import ACCEPTED_AT
from appliance.transports.control.route import JSON, Route
from appliance.transports.problems import MEDIA_TYPE, Problem
from appliance.transports.schemas.base import View

_LONGEST_NAME = 255  # characters


class FileAnswer:
    """``patience`` is how long a client may take for each piece, in seconds."""

    def __init__(
        self, scope: Mapping[str, Any], send: Any, request_id: str, *, patience: float
    ) -> None:
        self._send = send
        self._patience = patience
        self._received_at: float = scope.get(ACCEPTED_AT) or perf_counter()
        self.request_id = request_id
        self.tenant: str | None = None  # once it is known whose answer this is
        self.method: str = scope["method"]
        self.status = 0
        self.sent_bytes = 0

    @property
    def is_head(self) -> bool:
        return self.method == "HEAD"

    @property
    def has_begun(self) -> bool:
        return self.status != 0

    @property
    def seconds(self) -> float:
        return perf_counter() - self._received_at

    async def view(
        self, view: View, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        await self.whole(status, msgspec.json.encode(view), headers or {}, media_type=JSON)

    async def problem(self, problem: Problem) -> None:
        await self.whole(
            int(problem.status), problem.encode(), problem.headers, media_type=MEDIA_TYPE
        )

    async def options(self, routes: Iterable[Route]) -> None:
        allow = sorted({*(route.method for route in routes), "HEAD", "OPTIONS"})
        await self.whole(204, b"", {"allow": ", ".join(allow)})

    async def whole(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        media_type: str = "",
    ) -> None:
        length = None if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED} else len(body)
        await self.begin(status, media_type, length, headers or {})
        if body and not self.is_head:
            await self.send(body)
        await self.end()

    async def begin(
        self, status: int, media_type: str, length: int | None, headers: Mapping[str, str]
    ) -> None:
        self.status = status
        named = {
            "x-request-id": self.request_id,
            "x-openclaw-overhead-ms": f"{self.seconds * 1000:.2f}",
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
            **headers,
        }
        if length is not None:
            named |= {"content-type": media_type, "content-length": str(length)}
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        await self._give({"type": "http.response.start", "status": status, "headers": pairs})

    async def send(self, data: bytes) -> None:
        """Raises ``trio.TooSlowError`` for a client that stopped reading."""
        await self._give({"type": "http.response.body", "body": data, "more_body": True})
        self.sent_bytes += len(data)

    async def end(self) -> None:
        await self._give({"type": "http.response.body", "body": b"", "more_body": False})

    async def _give(self, message: dict[str, Any]) -> None:
        with trio.fail_after(self._patience):
            await self._send(message)


def attachment(name: str) -> str:
    """A Content-Disposition that makes every client save ``name`` (RFC 6266)."""
    encoded = name.encode(errors="surrogateescape")
    plain = "".join(chr(byte) if _is_plain(byte) else "_" for byte in encoded)
    anything = quote(encoded, safe="")
    return f"attachment; filename=\"{plain[:_LONGEST_NAME]}\"; filename*=UTF-8''{anything}"


def _is_plain(byte: int) -> bool:
    return 0x20 <= byte < 0x7F and chr(byte) not in '"\\%/;'
