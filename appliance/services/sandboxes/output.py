"""Running a command to its end and keeping what it printed, within bounds."""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from appliance.sandboxes.base import Ending, Sandbox

KIB = 1024
MIB = 1024 * KIB

MOST_DISCARDED = 64 * MIB  # of what nobody will read; then the command is ended
_PIECE = 64 * KIB
_LAST_WORDS = 2.0  # seconds for what is still in the pipes of a command that was killed
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What came of a command. ``truncated``: it printed more than is in here."""

    output: bytes
    errors: bytes
    ending: Ending
    timed_out: bool = False
    truncated: bool = False
    over_disk: bool = False  # it was ended because the tenant has no room left on the disk
    reason: str = ""  # why we ended it, for people; empty if we did not


async def collect(
    sandbox: Sandbox,
    data: bytes,
    *,
    timeout: float,  # noqa: ASYNC109 - the outcome tells that it passed; nothing is raised
    max_output_bytes: int,
    on_output: Callable[[bytes], None] | None = None,
) -> RunResult:
    """Give ``data`` to a sandbox that was just started, and wait for its end.

    What is printed beyond ``max_output_bytes`` (both pipes together) is read
    and thrown away, so that a chatty command goes on; one that floods is ended.
    """
    told = _Told(max_output_bytes, on_output)
    with trio.move_on_after(timeout) as limit:
        await _exchange(sandbox, data, told)
        if not told.floods:
            await sandbox.wait()  # it may have closed its pipes and gone on
    timed_out = limit.cancelled_caught
    if timed_out or told.floods:
        await sandbox.kill()
        with trio.move_on_after(_LAST_WORDS):
            await _exchange(sandbox, b"", told)
    return RunResult(
        output=bytes(told.output),
        errors=bytes(told.errors),
        ending=await sandbox.wait(),
        timed_out=timed_out,
        truncated=told.discarded > 0,
        reason=_reason(told, timeout=timeout if timed_out else None),
    )


class _Told:
    """What a command has printed so far."""

    def __init__(self, most: int, on_output: Callable[[bytes], None] | None) -> None:
        self.output = bytearray()
        self.errors = bytearray()
        self.discarded = 0
        self._left = most
        self._on_output = on_output

    @property
    def floods(self) -> bool:
        return self.discarded > MOST_DISCARDED

    def add(self, kept: bytearray, piece: bytes) -> None:
        part = piece[: self._left]
        self._left -= len(part)
        self.discarded += len(piece) - len(part)
        if part:
            kept += part
            if self._on_output is not None:
                self._on_output(part)


async def _exchange(sandbox: Sandbox, data: bytes, told: _Told) -> None:
    """Until both pipes have ended, which they do with the last process inside, or a flood."""
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        nursery.start_soon(_give, sandbox.input, data)
        if sandbox.errors is not None:
            nursery.start_soon(_take, sandbox.errors, told, told.errors, scope)
        await _take(sandbox.output, told, told.output, scope)


async def _give(stream: trio.abc.SendStream, data: bytes) -> None:
    try:
        if data:
            await stream.send_all(data)
    except _GONE:
        return  # it does not want to know
    finally:
        # Nothing more will come; without this a command that reads would wait for ever.
        await trio.aclose_forcefully(stream)


async def _take(
    stream: trio.abc.ReceiveStream, told: _Told, kept: bytearray, scope: trio.CancelScope
) -> None:
    try:
        while piece := await stream.receive_some(_PIECE):
            told.add(kept, bytes(piece))
            if told.floods:
                scope.cancel()  # the other pipe may be silent for ever
    except _GONE:
        return


def _reason(told: _Told, *, timeout: float | None) -> str:
    if timeout is not None:
        return f"it was ended because it ran longer than {timeout:g} seconds"
    if told.floods:
        return f"it was ended because it printed more than {MOST_DISCARDED // MIB} MB too much"
    return ""
