"""The log: one JSON object per line on stderr, or text for people on a terminal.

Lines come from two sources and take one way: the standard ``logging`` (every
module but the hot path) and :meth:`LineWriter.write` (one call per request,
about a microsecond). Both get the context of their task, lose whatever looks
like a secret, and wait in a bounded buffer for :meth:`LineWriter.flush_forever`,
which writes in a thread, so that a slow reader of stderr never holds up the
loop. When the buffer is full, new lines are dropped and counted, and a line
says how many. What a killed process had logged in its last tenth of a second
is lost.
"""

import logging
import os
import re
import select
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec
import trio

Level = Literal["debug", "info", "warning", "error"]

FLUSH_INTERVAL = 0.1  # seconds
FLUSH_BYTES = 64 * 1024
LIMIT_BYTES = 4 * 1024 * 1024  # waiting; as much again may be on its way out
LAST_FLUSH = 1.0  # seconds that the end of the process waits for a slow reader
LONGEST_LINE = 64 * 1024  # bytes
LONGEST_VALUE = 4096  # characters, in a line that is too long otherwise
LONGEST_TRACEBACK = 16 * 1024  # characters; the end of it says most

_Record = dict[str, Any]
Listener = Callable[[Mapping[str, Any], bytes], None]
"""Given each record and its line of JSON, in the thread that logs. Must not raise or wait."""

_context: ContextVar[Mapping[str, object]] = ContextVar(
    "log context",
    default=MappingProxyType({}),
)


class _Context:
    """A class and not a generator: every job of a tenant enters one, and this is half the price."""

    __slots__ = ("_fields", "_token")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields
        self._token: Token[Mapping[str, object]] | None = None

    def __enter__(self) -> None:
        self._token = _context.set({**_context.get(), **self._fields})

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _context.reset(self._token)


def log_context(**fields: object) -> _Context:
    """Have every line of this task, and of tasks started below, carry ``fields``.

    The names used are ``tenant``, ``request_id`` and ``session``.
    """
    return _Context(fields)


# What a secret of ours, or of a provider, looks like in a JSON string. Of a
# match only the named part is kept. Session keys (tenant:<id>:agent:…) are no
# secrets; a letter before "sk-" makes it another word (task-…), unless that
# letter belongs to an escape such as \n.
_SECRET: Final = re.compile(
    rb"""
      ( tenant (?: : | %3A ) [a-z0-9_-]{1,64} (?: : | %3A ) ) (?! agent (?: : | %3A ) ) [^\s"\\&;,]+
    | ( admin (?: : | %3A ) ) (?: \\. | [^\s"\\] ){8,}
    | ( (?: (?<! [a-z0-9] ) | (?<= \\[bfnrt] ) | (?<= \\u[0-9a-f]{4} ) ) sk- ) [a-z0-9_-]{8,}
    | ( bearer (?: [ \t]+ | %20 | \+ ) ) (?! tokens?\b | auth ) [^\s"\\,;]+
    | ( [?&] (?: ticket | token | key | api_key | access_token ) = ) [^\s"\\&]+
    | ( :// ) [^\s"\\/@]+ @
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A line in lower case with none of these holds no match; seven quick searches
# are ten times cheaper than the expression.
_SIGNS: Final = (b"nt:", b"in:", b"sk-", b"earer", b"%", b"=", b"@")
_SECRET_FIELDS: Final = frozenset(
    {"authorization", "proxy_authorization", "cookie", "set_cookie", "api_key", "x_api_key",
     "password", "secret", "private_key"}
)  # fmt: skip
_REDACTED = "[redacted]"


def redact(line: bytes) -> bytes:
    """``line`` without what looks like a token, a key or a password."""
    lower = line.lower()
    for sign in _SIGNS:
        if sign in lower:
            return _SECRET.sub(_keep_prefix, line)
    return line


class LineWriter:
    """Collects finished lines and writes them to a descriptor.

    Until :meth:`flush_forever` runs, and after it has ended, each line is
    written at once: commands that have no loop log like any program.
    """

    def __init__(
        self,
        fd: int = 2,
        *,
        json: bool = True,
        access: bool = True,
        limit_bytes: int = LIMIT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.access = access  # whether write() writes
        self._fd = fd
        self._json = json
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._stamp = (0, "")
        self._lock = threading.Lock()  # the buffer
        self._writing = threading.Lock()  # the descriptor; held while a slow reader makes us wait
        self._lines: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        self._alarm: _Alarm | None = None
        self._listener: Listener | None = None

    def listen(self, listener: Listener) -> None:
        """Have ``listener`` told of each line from now on, in place of an earlier one."""
        self._listener = listener

    def write(self, event: str, **fields: object) -> None:
        """Log an access line, level info. For the event loop's thread and for hot paths."""
        if self.access:
            self.put("info", event, fields)

    def put(
        self, level: str, event: str, fields: Mapping[str, object], *, at: float | None = None
    ) -> None:
        """Log one event. Never raises, never waits while the flusher runs."""
        record: _Record = {
            "ts": self._timestamp(self._clock() if at is None else at),
            "level": level,
            "event": event,
            **_context.get(),
            **fields,
        }
        if not _SECRET_FIELDS.isdisjoint(record):
            record = {k: _REDACTED if k in _SECRET_FIELDS else v for k, v in record.items()}
        line = redact(_encoded(record))
        if self._listener is not None:
            self._listener(record, line)
        self._append(self._shown(line))

    def flush(self) -> None:
        """Write what is waiting, and wait until it is written."""
        # Whoever holds the lock longer than this is stuck on a reader that
        # does not read; the lines stay in the buffer, which is bounded.
        if not self._writing.acquire(timeout=LAST_FLUSH):
            return
        try:
            lines = self._take()
            if lines and not _write_all(self._fd, b"".join(lines)):
                with self._lock:
                    self._dropped += len(lines)
        finally:
            self._writing.release()

    async def flush_forever(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Write what arrives every tenth of a second, or sooner if it is much, until cancelled."""
        limiter = trio.CapacityLimiter(1)  # one thread may be stuck on a reader, not forty
        self._alarm = alarm = _Alarm()
        task_status.started()
        try:
            while True:
                await alarm.wait_line()
                with trio.move_on_after(FLUSH_INTERVAL):
                    await alarm.wait_plenty()
                alarm.reset()
                await trio.to_thread.run_sync(self.flush, abandon_on_cancel=True, limiter=limiter)
        finally:
            self._alarm = None
            with trio.move_on_after(LAST_FLUSH, shield=True):
                await trio.to_thread.run_sync(self.flush, abandon_on_cancel=True, limiter=limiter)

    def _append(self, line: bytes) -> None:
        with self._lock:
            if self._bytes + len(line) > self._limit_bytes:
                self._dropped += 1
                return
            first = not self._lines
            self._lines.append(line)
            self._bytes += len(line)
            plenty = self._bytes >= FLUSH_BYTES
            alarm = self._alarm
        if alarm is None:
            self.flush()
        elif first or plenty:
            alarm.ring(plenty=plenty)

    def _take(self) -> list[bytes]:
        with self._lock:
            lines, self._lines, self._bytes = self._lines, [], 0
            dropped, self._dropped = self._dropped, 0
        if dropped:
            record = {
                "ts": self._timestamp(self._clock()),
                "level": "warning",
                "event": "log lines were dropped",
                "count": dropped,
            }
            lines.append(self._line(record))
        return lines

    def _line(self, record: _Record) -> bytes:
        return self._shown(redact(_encoded(record)))

    def _shown(self, line: bytes) -> bytes:
        return line if self._json else for_people(line)

    def _timestamp(self, now: float) -> str:
        """RFC 3339 with milliseconds; the text of the second is made once in a second."""
        second = int(now)
        known, text = self._stamp  # one attribute, so that two threads cannot mix two seconds
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._stamp = (second, text)
        return f"{text}.{int((now - second) * 1000):03d}Z"


class _Alarm:
    """Wakes the flusher from whatever thread a line comes from."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()
        self._line = trio.Event()
        self._plenty = trio.Event()

    async def wait_line(self) -> None:
        await self._line.wait()

    async def wait_plenty(self) -> None:
        await self._plenty.wait()

    def reset(self) -> None:
        self._line, self._plenty = trio.Event(), trio.Event()

    def ring(self, *, plenty: bool) -> None:
        if threading.get_ident() == self._thread:
            self._set(plenty)
            return
        with suppress(trio.RunFinishedError):  # a thread that outlives the loop
            self._token.run_sync_soon(self._set, plenty)

    def _set(self, plenty: bool) -> None:  # noqa: FBT001 - run_sync_soon passes positions only
        self._line.set()
        if plenty:
            self._plenty.set()


def configure(
    *, json: bool | None = None, level: Level = "info", access: bool = True, fd: int = 2
) -> LineWriter:
    """Send the standard ``logging`` to ``fd`` and return the writer for the hot path.

    ``json`` None means JSON unless ``fd`` is a terminal. Calling it again
    replaces what an earlier call set up.
    """
    writer = LineWriter(fd, json=not os.isatty(fd) if json is None else json)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(writer))
    set_level(writer, level, access=access)
    return writer


def set_level(writer: LineWriter, level: Level, *, access: bool = True) -> None:
    """Have lines below ``level`` dropped. Libraries are heard from warnings upwards."""
    ours = logging.getLevelName(level.upper())
    logging.getLogger("appliance").setLevel(ours)
    logging.getLogger().setLevel(max(ours, logging.WARNING))
    writer.access = access and ours <= logging.INFO


class _Handler(logging.Handler):
    """Feeds a :class:`LineWriter` from the standard ``logging``."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def createLock(self) -> None:  # noqa: N802 - the base class calls it so
        self.lock = None  # the writer has its own, and one is enough

    def emit(self, record: logging.LogRecord) -> None:
        fields: _Record = {
            key: value for key, value in record.__dict__.items() if key not in _USUAL
        }
        fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1]))
            fields["traceback"] = text[-LONGEST_TRACEBACK:]
        try:
            event = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit: still say what can be said
            event = str(record.msg)
        self._writer.put(record.levelname.lower(), event, fields, at=record.created)


# What every record has; the rest came in as ``extra``.
_USUAL: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime", "taskName"}
)

_encoder = msgspec.json.Encoder(enc_hook=repr)


def _encoded(record: _Record) -> bytes:
    """A line of JSON for ``record``, whatever it holds."""
    try:
        line = _encoder.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError):
        line = _encoder.encode(_plain(record))  # lone surrogates, keys that are no text, cycles
    if len(line) >= LONGEST_LINE:
        line = _encoder.encode(_plain(record))
    if len(line) >= LONGEST_LINE:
        line = _encoder.encode(_head(record))
    return line + b"\n"


def for_people(line: bytes) -> bytes:
    """``12:00:00 INFO    event  key=value``, with nothing that a terminal would obey."""
    record: _Record = msgspec.json.decode(line)
    rest = {k: v for k, v in record.items() if k not in {"ts", "level", "event", "traceback"}}
    fields = "".join(f" {_escaped(k)}={_shown(v)}" for k, v in rest.items() if v is not None)
    head = f"{record['ts'][11:19]} {record['level'].upper():<7} {_escaped(record['event'])}"
    trace = str(record.get("traceback", "")).splitlines()
    lines = [f"{head} {fields}" if fields else head, *(f"    {_escaped(text)}" for text in trace)]
    return ("\n".join(lines) + "\n").encode()


def _shown(value: object) -> str:
    text = _escaped(str(value))
    return f'"{text}"' if not text or " " in text else text


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _plain(record: _Record) -> _Record:
    """``record`` as short, valid text."""
    return {
        str(key)[:100]: str(value)[:LONGEST_VALUE].encode("utf-8", "backslashreplace").decode()
        for key, value in record.items()
    }


def _head(record: _Record) -> _Record:
    plain = _plain(record)
    return {key: plain[key] for key in ("ts", "level", "event")} | {"cut": True}


def _keep_prefix(match: re.Match[bytes]) -> bytes:
    prefix = next(group for group in match.groups() if group is not None)
    return prefix + _REDACTED.encode() + (b"@" if prefix == b"://" else b"")


def _write_all(fd: int, data: bytes) -> bool:
    """Write ``data``; False if nobody reads ``fd`` any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made the shared descriptor non-blocking
            # Not select(): a busy gateway's descriptors go beyond what that can name.
            writable = select.poll()
            writable.register(fd, select.POLLOUT)
            writable.poll(LAST_FLUSH * 1000)
        except OSError:
            return False
    return True
