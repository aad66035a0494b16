"""Whether an answer has begun. Until then somebody else can still be asked.

A good status says little: some providers send it at once and then an error as
the first event, or nothing but comments while they queue the request.
"""

import re
from collections.abc import Callable

from appliance.protocols.answers import AnswerReader

_MOST = 1024 * 1024  # bytes that may come before anything that counts
# The first bytes of what is an event and no error, as nearly all answers begin.
_USUAL = (b"data: {", b"event: message_start\n", b"{")
# An event with data, whole: of server-sent events, or of lines of JSON.
_EVENT = re.compile(rb"^(?:data:.*(?:\r?\n){2}|\{.*\n)", re.MULTILINE)


class Beginning:
    """Takes what comes, and keeps it in ``data`` for whoever reads the answer then.

    ``probe`` makes a reader of the answer's dialect, of which nothing else is asked.
    With ``needs_token`` an answer begins with what it says, without with any event
    that is no error.
    """

    def __init__(self, probe: Callable[[], AnswerReader], *, needs_token: bool) -> None:
        self._make_probe = probe
        self._probe: AnswerReader | None = None  # mostly there is no need for one
        self._needs_token = needs_token
        self.data = b""

    def feed(self, data: bytes) -> bool:
        """Return whether the answer has begun; raise :exc:`AnswerFailed` if it begins badly."""
        self.data += data
        if not self._needs_token and self._is_usual():
            return True
        if self._probe is None:
            self._probe = self._make_probe()
        deltas = self._probe.deltas(data)
        if deltas or self._probe.finished:
            return True
        if self._probe.failure is not None:
            raise self._probe.failure
        if len(self.data) > _MOST:
            return True
        return not self._needs_token and _EVENT.search(self.data) is not None

    def _is_usual(self) -> bool:
        data = self.data
        return data.startswith(_USUAL) and data.endswith(b"\n\n") and b'"error"' not in data
