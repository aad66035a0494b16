"""The bubblewrap backend with real sandboxes; run as root and as an ordinary user."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import (
    Access,
    Bind,
    EgressDoor,
    Limits,
    Sandbox,
    SandboxFailed,
    SandboxUnavailable,
    TerminalSize,
)
from appliance.sandboxes.bubblewrap import Bubblewrap
from appliance.sandboxes.groups import NoGroups
from tests.sandboxes.workshop import (
    HAS_BWRAP,
    IS_ROOT,
    NO_BWRAP,
    Workshop,
    finish,
    give,
    opened,
    running,
    wait_until,
)

pytestmark = pytest.mark.skipif(not HAS_BWRAP, reason=NO_BWRAP)

TERMINAL = TerminalSize(columns=100, rows=30)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Workshop]:
    async with opened(tmp_path) as workshop:
        yield workshop


# Pipes


async def test_a_command_gets_its_input_and_its_streams_are_apart(shop: Workshop) -> None:
    result = await shop.run(
        shop.shell("cat; echo trouble >&2; exit 3"), stdin=b"\x00\xff" * 100_000
    )

    assert result.output == b"\x00\xff" * 100_000
    assert result.errors == b"trouble\n"
    assert (result.ending.exit_code, result.ending.signal, result.ending.killed) == (3, None, False)
    assert 0 < result.ending.usage.wall_seconds < 30


async def test_a_program_that_does_not_exist_is_127_as_in_a_shell(shop: Workshop) -> None:
    result = await shop.run(shop.spec("no-such-program"))

    assert result.ending.exit_code == 127
    assert b"no-such-program" in result.errors


async def test_a_file_that_cannot_be_run_is_126_as_in_a_shell(shop: Workshop) -> None:
    shop.write("data", "not a program")

    assert (await shop.run(shop.spec("/workspace/data"))).ending.exit_code == 126


async def test_a_signal_is_told_from_an_exit(shop: Workshop) -> None:
    ending = (await shop.sh("kill -TERM $$")).ending

    assert (ending.exit_code, ending.signal, ending.killed) == (128 + 15, 15, False)


async def test_a_command_is_started_in_its_directory(shop: Workshop) -> None:
    result = await shop.sh("mkdir sub; cd sub; pwd; echo $PWD")
    assert result.text == "/workspace/sub\n/workspace/sub"

    inner = await shop.run(shop.shell('pwd; echo "$PWD $OLDPWD"', directory="/workspace/sub"))
    assert inner.text == "/workspace/sub\n/workspace/sub "


async def test_a_missing_directory_is_the_callers_mistake(shop: Workshop) -> None:
    with pytest.raises(InvalidRequest, match="no such directory"):
        await shop.run(shop.spec("true", directory="/workspace/missing"))


async def test_arguments_and_variables_arrive_as_they_are(shop: Workshop) -> None:
    arguments = ["", "a b", "'\"$(id)`", "-e", "--", "*", "\n", "ünï…😀"]
    result = await shop.run(
        shop.shell(
            'for each; do printf "%s|" "$each"; done; printf "%s" "$VALUE"',
            *arguments,
            environment={"VALUE": "a\n'$HOME'", "TERM": "odd"},
        )
    )

    assert result.output.decode() == "|".join([*arguments, "a\n'$HOME'"])


async def test_the_environment_is_small_and_ours(shop: Workshop, monkeypatch: Any) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    result = await shop.run(shop.spec("env", environment={"HOME": "/home", "sandbox_go": "1"}))

    names = {line.partition("=")[0] for line in result.text.splitlines()}
    assert names - {"_", "SHLVL"} == {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "TERM", "PWD"),
    }
    assert "HOME=/home" in result.text


async def test_an_argument_of_10_mb_is_refused_before_anything_is_started(shop: Workshop) -> None:
    with pytest.raises(InvalidRequest, match="10,000,000 bytes; one argument may have 131,071"):
        await shop.run(shop.spec("echo", "x" * 10_000_000))


async def test_the_largest_command_that_is_accepted_can_be_started(shop: Workshop) -> None:
    many = ["x" * 130_000] * 7
    environment = {"BIG": "y" * 100_000}
    result = await shop.run(shop.shell('echo "$# ${#BIG}"', *many, environment=environment))

    assert result.text == "7 100000"


async def test_slow_reading_stops_the_writer(shop: Workshop) -> None:
    spec = shop.shell("echo begin >&2; head -c 10000000 /dev/zero; echo end >&2")
    async with shop.backend.open(spec) as sandbox:
        assert sandbox.errors is not None
        with trio.fail_after(60):
            assert await sandbox.errors.receive_some() == b"begin\n"
        with trio.move_on_after(0.3) as silence:
            await sandbox.errors.receive_some()
        assert silence.cancelled_caught
        result = await finish(sandbox)

    assert len(result.output) == 10_000_000
    assert result.errors == b"end\n"


# What it is


async def test_who_it_is_inside_and_outside(shop: Workshop) -> None:
    result = await shop.sh("id -un; id -u; hostname; touch made; mkdir deep; stat -c %u made")

    assert result.text == "agent\n1000\nsandbox\n1000"
    owner = (shop.folder / "made").lstat().st_uid
    assert owner == (60_900 if IS_ROOT else os.geteuid())
    assert owner != 0


async def test_nothing_remains_of_the_launchers_descriptors(shop: Workshop) -> None:
    result = await shop.run(shop.spec("ls", "/proc/self/fd"))

    # 3 is the listing itself.
    assert result.text.split() == ["0", "1", "2", "3"]


async def test_programs_of_the_system_work(shop: Workshop) -> None:
    result = await shop.sh(
        "set -e; tar -cf x.tar /etc/passwd 2>/dev/null; tar -tf x.tar; perl -e 'print 6*7';"
        " mkfifo f; (echo hi >f &); cat f; date +%Y >/dev/null; ls /lib >/dev/null"
    )

    assert result.text == "etc/passwd\n42hi"
    assert result.ending.exit_code == 0


async def test_the_limits_of_a_process_hold(shop: Workshop) -> None:
    limits = Limits(open_files=64, file_bytes=1_000_000, pids=20)
    result = await shop.sh(
        "ulimit -n; head -c 2000000 /dev/zero >big; stat -c %s big;"
        "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo all",
        limits=limits,
    )

    assert result.text == "64\n999936"  # in blocks of 512; and the shell gave up on the 20th
    assert b"Cannot fork" in result.errors


async def test_scratch_space_is_bounded(shop: Workshop) -> None:
    result = await shop.sh(
        "for d in /tmp /dev/shm /run; do head -c 90000000 /dev/zero >$d/x; stat -c %s $d/x; done",
        limits=Limits(scratch_bytes=1024 * 1024),
    )

    assert result.text == "1048576\n1048576\n4194304"


async def test_processor_time_is_counted_without_a_group(shop: Workshop) -> None:
    ending = (
        await shop.sh("(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done) & wait; exit 0")
    ).ending

    assert 0.05 < ending.usage.cpu_seconds < 20
    assert ending.usage.peak_memory_bytes is None


# The workspace


async def test_files_are_kept_in_the_workspace_and_nowhere_else(shop: Workshop) -> None:
    await shop.sh("echo kept >file; echo gone >/tmp/file")

    assert (shop.folder / "file").read_text() == "kept\n"
    assert (await shop.sh("cat file; ls /tmp")).text == "kept"


async def test_a_workspace_can_be_read_only(shop: Workshop) -> None:
    shop.write("file", "there")
    result = await shop.sh("cat file; echo more >>file", access=Access.READ)

    assert result.text == "there"
    assert b"Read-only" in result.errors
    assert (shop.folder / "file").read_text() == "there"


async def test_without_a_workspace_there_is_an_empty_directory(shop: Workshop) -> None:
    shop.write("file", "there")
    result = await shop.sh("ls; echo new >file; cat file", access=Access.NONE)

    assert result.text == "new"
    assert (shop.folder / "file").read_text() == "there"


async def test_hidden_names_are_empty_and_cannot_be_changed(shop: Workshop) -> None:
    (shop.folder / "private").mkdir()
    give(shop.folder / "private")
    shop.write("private/key", "secret")
    shop.write(".secret", "secret")
    (shop.folder / "link").symlink_to("/etc")
    hidden = ("private", ".secret", "missing", "link")
    result = await shop.sh(
        "ls -A; ls -A private; cat .secret; touch private/x; echo x >.secret; mv private other;"
        "rm -rf private .secret; ls -Ad private .secret",
        hidden=hidden,
    )

    assert result.text.split() == [".secret", "link", "private", ".secret", "private"]
    assert (shop.folder / "private/key").read_text() == "secret"
    assert (shop.folder / ".secret").read_text() == "secret"
    assert not (shop.folder / "missing").exists()


async def test_a_workspace_that_was_renamed_away_is_still_the_one_that_was_opened(
    shop: Workshop, tmp_path: Path
) -> None:
    """By root, whose launcher goes by the descriptor; a user's bwrap notices and refuses."""
    shop.write("file", "mine")
    shop.folder.rename(shop.folder.with_name("moved"))
    other = shop.folder
    other.mkdir()
    (other / "file").write_text("not mine")

    try:
        assert (await shop.sh("cat file")).text == "mine"
    except SandboxFailed:
        assert not IS_ROOT


async def test_the_operators_directories_are_shown(shop: Workshop, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    shared, drop = tmp_path / "shared", tmp_path / "drop"
    for folder in (shared, drop):
        folder.mkdir(mode=0o755)
        give(folder)
    (shared / "tool").write_text("tool")
    binds = [Bind(str(shared), "/opt/shared"), Bind(str(drop), "/drop", is_writable=True)]
    result = await shop.sh(
        "cat /opt/shared/tool; echo x >/opt/shared/new; echo y >/drop/new", binds=binds
    )

    assert result.text == "tool"
    assert (drop / "new").read_text() == "y\n"
    assert not (shared / "new").exists()


async def test_a_bind_that_is_not_there_means_that_nothing_runs(shop: Workshop) -> None:
    spec = shop.shell("touch ran", binds=[Bind("/no/such/path", "/opt/x")])

    with pytest.raises(SandboxFailed, match="did not run") as failure:
        await shop.run(spec)

    assert "/no/such/path" not in failure.value.detail
    assert not (shop.folder / "ran").exists()


# The way out


async def test_there_is_no_network(shop: Workshop) -> None:
    result = await shop.sh("cat /proc/net/dev | grep -c :; cat /proc/net/route | wc -l")

    assert result.text.split() == ["1", "1"]


async def test_the_door_is_a_socket_and_its_authority_is_trusted(
    shop: Workshop, tmp_path: Path
) -> None:
    path = tmp_path / "door.sock"
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with listener:
        await listener.bind(str(path))
        listener.listen()
        path.chmod(0o666)
        descriptor = os.open(path, os.O_PATH)
        try:
            door = EgressDoor(descriptor, str(path), certificates="PEM OF THE DOOR\n")
            spec = shop.spec(
                "perl",
                "-MSocket",
                "-e",
                "socket(S, PF_UNIX, SOCK_STREAM, 0) or die;"
                "connect(S, sockaddr_un('/run/egress.sock')) or die $!; syswrite S, 'hello';"
                "open(F, '</run/egress-certificates.pem'); print while <F>;"
                "open(F, '>/run/egress-certificates.pem') or print 'read-only'",
                egress=door,
            )
            result = await shop.run(spec)
            with trio.fail_after(60):
                peer, _ = await listener.accept()
                with peer:
                    assert await peer.recv(100) == b"hello"
        finally:
            os.close(descriptor)

    assert result.errors == b""
    assert result.text.endswith("PEM OF THE DOOR\nread-only")


# The end


async def test_what_a_command_leaves_behind_ends_with_it(shop: Workshop) -> None:
    async with shop.backend.open(
        shop.shell("setsid -f sleep 7777 >/dev/null 2>&1; echo started")
    ) as sandbox:
        result = await finish(sandbox)
        assert result.text == "started"
        assert running("sleep", "7777") == []


async def test_kill_ends_what_ignores_every_signal(shop: Workshop) -> None:
    script = (
        "for i in 1 2 3 4 5; do setsid -f sh -c"
        " 'trap \"\" TERM HUP INT; while :; do sleep 8888; done' >/dev/null 2>&1; done;"
        "echo up; sleep 8888"
    )
    async with shop.backend.open(shop.shell(script)) as sandbox:
        with trio.fail_after(60):
            assert await sandbox.output.receive_some() == b"up\n"
            await sandbox.kill()
            ending = await sandbox.wait()
            assert running("sleep", "8888") == []
            await sandbox.kill()

    assert (ending.exit_code, ending.signal, ending.killed) == (137, 9, True)


async def test_leaving_kills(shop: Workshop) -> None:
    async with shop.backend.open(shop.spec("sleep", "9999")):
        await wait_until(lambda: running("sleep", "9999") != [])

    assert running("sleep", "9999") == []


async def test_several_may_wait(shop: Workshop) -> None:
    codes: list[int] = []
    async with shop.backend.open(shop.shell("read line; exit 4")) as sandbox:

        async def wait() -> None:
            codes.append((await sandbox.wait()).exit_code)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                with trio.move_on_after(0.05):
                    await sandbox.wait()
                await sandbox.input.send_all(b"\n")

    assert codes == [4, 4]


async def test_a_signal_reaches_the_command_and_only_it(shop: Workshop) -> None:
    script = "trap 'echo caught; exit 5' USR1; sleep 60 & echo $$; wait"
    async with shop.backend.open(shop.shell(script)) as sandbox:
        with trio.fail_after(60):
            said = await sandbox.output.receive_some()
            assert int(said) == sandbox.inner_pid
            sandbox.interrupt(signal.SIGUSR1)
        result = await finish(sandbox)
        sandbox.interrupt(signal.SIGUSR1)

    assert result.output == b"caught\n"
    assert result.ending.exit_code == 5


async def test_root_without_another_user_runs_nothing(shop: Workshop) -> None:
    backend = Bubblewrap(uid=None, groups=NoGroups())
    if not IS_ROOT:
        assert (await backend.prove()).holds
        return

    with pytest.raises(SandboxUnavailable, match=r"sandbox\.uid"):
        async with backend.open(shop.spec("true")):
            pass
    assert "sandbox.uid" in (await backend.prove()).problem


# Terminals


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    read = b""
    with trio.fail_after(60):
        while end not in read:
            more = await stream.receive_some()
            assert more, read
            read += more
    return read


@dataclass
class Typist:
    sandbox: Sandbox
    unread: bytes = b""

    async def expect(self, end: bytes) -> bytes:
        """What is shown up to and with ``end``."""
        with trio.fail_after(60):
            while end not in self.unread:
                more = await self.sandbox.output.receive_some()
                assert more, self.unread
                self.unread += more
        before, self.unread = self.unread.split(end, 1)
        return before + end

    async def type_in(self, text: bytes, end: bytes) -> bytes:
        await self.sandbox.input.send_all(text)
        return await self.expect(end)


async def test_a_terminal_has_its_size_and_can_be_resized(shop: Workshop) -> None:
    script = "tty; stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    async with shop.backend.open(shop.shell(script, terminal=TERMINAL)) as sandbox:
        assert sandbox.errors is None
        said = await read_until(sandbox.output, b"ready")
        assert said.split() == [b"/dev/console", b"30", b"100", b"ready"]
        sandbox.resize(TerminalSize(columns=132, rows=50))
        result = await finish(sandbox)

    assert result.text.strip() == "50 132"


async def test_a_shell_has_job_control(shop: Workshop) -> None:
    spec = shop.spec(
        *("/bin/bash", "--norc", "--noprofile", "-i"),
        terminal=TERMINAL,
        environment={"PS1": "RDY> "},
    )
    async with shop.backend.open(spec) as sandbox:
        typist = Typist(sandbox)
        assert b"job control" not in await typist.expect(b"RDY> ")
        await typist.type_in(b"sleep 100; echo not''reached\n", b"\n")
        await wait_until(lambda: running("sleep", "100") != [])
        assert b"notreached" not in await typist.type_in(b"\x03", b"RDY> ")
        await typist.type_in(b"echo rc''=$?\n", b"rc=130")
        await typist.expect(b"RDY> ")
        await typist.type_in(b"sleep 101\n", b"\n")
        await wait_until(lambda: running("sleep", "101") != [])
        assert b"Stopped" in await typist.type_in(b"\x1a", b"RDY> ")
        await typist.type_in(b"bg; jobs\n", b"Running")
        await sandbox.input.send_all(b"kill %1; exit 7\n")
        result = await finish(sandbox)

    assert result.ending.exit_code == 7


async def test_a_program_that_handles_ctrl_c_survives_it(shop: Workshop) -> None:
    script = "trap 'echo caught' INT; echo ready; read line; read line; echo got $line"
    async with shop.backend.open(shop.shell(script, terminal=TERMINAL)) as sandbox:
        await read_until(sandbox.output, b"ready")
        await sandbox.input.send_all(b"\x03")
        await read_until(sandbox.output, b"caught")
        await sandbox.input.send_all(b"first\nsecond\n")
        result = await finish(sandbox)

    assert "got" in result.text
    assert result.ending.exit_code == 0


async def test_closing_a_terminals_input_hangs_up(shop: Workshop) -> None:
    script = (
        "trap 'echo hung up >/workspace/said; exit 6' HUP; echo ready; while :; do sleep 0.1; done"
    )
    async with shop.backend.open(shop.shell(script, terminal=TERMINAL)) as sandbox:
        await read_until(sandbox.output, b"ready")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read_to_the_end() -> None:
                with trio.fail_after(60):
                    assert await sandbox.output.receive_some() == b""

            await wait_all_tasks_blocked()
            await sandbox.input.aclose()
        with trio.fail_after(60):
            ending = await sandbox.wait()

    assert ending.exit_code == 6
    assert (shop.folder / "said").read_text() == "hung up\n"


async def test_a_terminal_nobody_reads_stops_its_writer(shop: Workshop) -> None:
    async with shop.backend.open(shop.spec("yes", terminal=TERMINAL)) as sandbox:
        with trio.fail_after(60):
            await sandbox.output.receive_some()
            before, after = -1.0, 0.0
            while before != after:  # it fills what the kernel holds, and then it sleeps
                before = after
                await trio.sleep(0.2)
                after = sandbox.usage().cpu_seconds
            sandbox.resize(replace(TERMINAL, rows=40))
            await sandbox.kill()
        sandbox.resize(TERMINAL)
