"""Descriptors of a process that is being started, and of its terminal."""

import os
import signal
from pathlib import Path

import pytest
import trio

from appliance.sandboxes.orphans import OrphanAdoption, reap_adopted
from appliance.sandboxes.sandbox_streams import Terminal, TerminalInput, TerminalOutput
from appliance.sandboxes.spawning import (
    SharedFiles,
    open_process,
    read_available,
    seal_inherited_descriptors,
)


def test_sealing_keeps_what_was_inherited() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)  # noqa: FBT003 - Python's own signature
    seal_inherited_descriptors()

    assert not os.get_inheritable(reading)
    assert os.get_inheritable(2)
    for descriptor in (reading, writing):
        os.close(descriptor)


def test_shared_contents_are_read_from_the_start_by_everyone() -> None:
    files = SharedFiles()
    try:
        assert files.path(b"text") == files.path(b"text")
        for _ in range(2):
            assert Path(files.path(b"text")).read_bytes() == b"text"
    finally:
        files.close()


def test_shared_contents_cannot_be_changed() -> None:
    files = SharedFiles()
    try:
        with (
            Path(files.path(b"text")).open("r+b", buffering=0) as file,
            pytest.raises(OSError, match="not permitted"),
        ):
            file.write(b"x")
    finally:
        files.close()


def test_only_so_many_contents_are_kept() -> None:
    before = open_descriptors()
    files = SharedFiles()
    first = files.path(b"often")
    for number in range(100):
        files.path(b"%d" % number)
        assert files.path(b"often") == first
    assert open_descriptors() - before <= 16
    files.close()
    assert open_descriptors() == before


def test_reading_what_there_is_never_waits() -> None:
    reading, writing = os.pipe()
    assert read_available(reading, 10) == b""
    os.write(writing, b"hello world")
    assert read_available(reading, 5) == b"hello"
    os.close(writing)
    assert read_available(reading, 100) == b" world"
    os.close(reading)


def test_a_process_is_opened_only_as_the_child_it_should_be() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        assert open_process(pid, parent=1) is None
        mine = open_process(pid, parent=os.getpid())
        assert mine is not None
        os.close(mine)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert open_process(pid) is None


def open_descriptors() -> int:
    return sum(path.is_symlink() for path in Path("/proc/self/fd").iterdir())


def spawn_and_wait(script: str, descriptors: dict[int, int]) -> None:
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", script],
        {"PATH": os.defpath},
        file_actions=[(os.POSIX_SPAWN_DUP2, each, to) for each, to in descriptors.items()],
    )
    os.waitpid(pid, 0)


async def test_an_adopted_orphan_is_counted_and_reaped() -> None:
    script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read x' <&3 & echo $!"
    hold, far = os.pipe()
    said, say = os.pipe()
    with OrphanAdoption():
        spawn_and_wait(script, {hold: 3, say: 1})
        orphan = int(os.read(said, 100))
        descriptor = open_process(orphan, parent=os.getpid())
        assert descriptor is not None
        assert reap_adopted(orphan, descriptor) == 0  # it runs
        for each in (hold, far, said, say):
            os.close(each)
        with trio.fail_after(60):
            await trio.lowlevel.wait_readable(descriptor)
        assert reap_adopted(orphan, descriptor) > 0.01
        assert reap_adopted(orphan, descriptor) == 0
        os.close(descriptor)


@pytest.mark.parametrize(("most", "expected"), [(None, 3 * 4096), (5000, 5000), (4096, 4096)])
async def test_what_a_terminal_gives_out_in_pieces_is_read_at_once(
    most: int | None, expected: int
) -> None:
    reading, writing = os.pipe2(os.O_DIRECT)  # gives out in pieces what was written in pieces
    for letter in (b"a", b"b", b"c"):
        os.write(writing, letter * 4096)
    output = TerminalOutput(Terminal(reading))

    with trio.fail_after(60):
        assert (
            await output.receive_some(most) == (b"a" * 4096 + b"b" * 4096 + b"c" * 4096)[:expected]
        )
    os.close(writing)
    await output.aclose()


async def test_a_terminals_end_is_the_end_of_its_output() -> None:
    master, slave = os.openpty()
    terminal = Terminal(master)
    output, stdin = TerminalOutput(terminal), TerminalInput(terminal)
    os.write(slave, b"last words")
    os.close(slave)

    with trio.fail_after(60):
        assert await output.receive_some() == b"last words"
        assert await output.receive_some() == b""
        await stdin.aclose()
        assert await output.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await stdin.send_all(b"x")
