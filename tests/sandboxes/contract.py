"""What every backend promises, whatever it is made of.

A test module derives a class from :class:`SandboxContract` and gives it a
fixture ``shop``: the backend with a workspace.
"""

import resource
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance.model.errors import InvalidRequest
from appliance.sandboxes.base import Access, Bind, Limits, Sandbox, SandboxFailed, TerminalSize
from tests.sandboxes.workshop import Workshop, finish, give

MIB = 1024 * 1024
GIB = 1024 * MIB
PATIENCE = 60.0  # seconds; containers take a second each
TERMINAL = TerminalSize(columns=100, rows=30)
# Five of them, each in a session of its own and deaf to every polite signal.
DAEMONS = (
    "for i in 1 2 3 4 5; do setsid sh -c \"trap '' TERM HUP INT QUIT; echo >beat$i;"
    ' while :; do echo >>beat$i; sleep 0.05; done" </dev/null >/dev/null 2>&1 & done;'
    " while set -- beat*; [ $# -lt 5 ]; do sleep 0.02; done; echo up; "
)


async def read_until(sandbox: Sandbox, what: bytes) -> bytes:
    heard = b""
    with trio.fail_after(PATIENCE):
        while what not in heard:
            piece = await sandbox.output.receive_some()
            assert piece, f"it ended after {heard!r}"
            heard += piece
    return heard


async def is_quiet(folder: Path) -> bool:
    """Whether none of the daemons writes any more."""

    def sizes() -> list[int]:
        return [path.stat().st_size for path in sorted(folder.glob("beat*"))]

    before = sizes()
    assert len(before) == 5
    await trio.sleep(0.3)
    return sizes() == before


class SandboxContract:
    @pytest.fixture
    def public(self) -> Iterator[Path]:
        """A directory that every user of this machine may enter; those of pytest are not."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            yield Path(name)

    # Commands

    async def test_exit_codes_are_the_commands_own(self, shop: Workshop) -> None:
        for code in (0, 1, 7, 124, 125, 126, 127, 255):
            ending = (await shop.sh(f"exit {code}")).ending
            assert (ending.exit_code, ending.signal, ending.killed) == (code, None, False)

    async def test_a_signal_is_128_more(self, shop: Workshop) -> None:
        ending = (await shop.sh("kill -SEGV $$")).ending

        assert (ending.exit_code, ending.signal, ending.killed) == (139, signal.SIGSEGV, False)

    async def test_a_command_that_does_not_exist_is_127(self, shop: Workshop) -> None:
        result = await shop.run(shop.spec("no-such-program"))

        assert result.ending.exit_code == 127
        assert b"no-such-program" in result.errors

    async def test_a_command_is_found_on_the_path_inside(self, shop: Workshop) -> None:
        shop.write("own", "#!/bin/sh\necho own\n", mode=0o755)
        result = await shop.run(shop.spec("own", environment={"PATH": "/workspace:/usr/bin:/bin"}))

        assert result.text == "own"

    async def test_the_streams_are_apart_and_binary(self, shop: Workshop) -> None:
        data = bytes(range(256)) * 4000
        result = await shop.run(shop.shell("cat; echo trouble >&2"), stdin=data)

        assert (result.output, result.errors) == (data, b"trouble\n")

    async def test_closing_the_input_ends_it(self, shop: Workshop) -> None:
        assert (await shop.run(shop.spec("wc", "-c"), stdin=b"12345")).text == "5"
        assert (await shop.run(shop.spec("wc", "-c"))).text == "0"

    async def test_input_is_heard_while_it_runs(self, shop: Workshop) -> None:
        async with shop.backend.open(shop.spec("cat")) as sandbox:
            for word in (b"one", b"two"):
                await sandbox.input.send_all(word)
                await read_until(sandbox, word)
            await sandbox.input.aclose()
            with trio.fail_after(PATIENCE):
                assert (await sandbox.wait()).exit_code == 0

    async def test_variables_arrive_as_they_are(self, shop: Workshop) -> None:
        value = " a=b 'c' \"d\" $HOME \\ # ü *"
        result = await shop.sh(
            'printf "%s|%s|%s" "$ODD" "$LINES_2" "$PATH"',
            environment={"ODD": value, "LINES_2": "one\ntwo\n", "PATH": "/usr/bin:/bin"},
        )

        assert result.output.decode() == f"{value}|one\ntwo\n|/usr/bin:/bin"

    async def test_nothing_of_our_own_environment_arrives(
        self, shop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENCLAWMU_PLANTED", "planted")
        result = await shop.sh("env; cat /proc/*/environ 2>/dev/null")

        assert b"planted" not in result.output
        assert b"HOME=/workspace" in result.output

    async def test_arguments_arrive_as_they_are(self, shop: Workshop) -> None:
        arguments = ("", " ", "--help", "-e", "$HOME", "a\nb", "*", "ü'\"\\", "A=b")
        result = await shop.sh('printf "<%s>" "$@"', *arguments)

        assert result.output.decode() == "".join(f"<{one}>" for one in arguments)

    async def test_it_starts_in_its_directory(self, shop: Workshop) -> None:
        (shop.folder / "sub dir").mkdir()
        give(shop.folder / "sub dir")

        assert (await shop.sh("pwd")).text == "/workspace"
        assert (await shop.sh("pwd", directory="/workspace/sub dir")).text == "/workspace/sub dir"

    async def test_a_directory_that_is_not_there_is_refused(self, shop: Workshop) -> None:
        with pytest.raises((InvalidRequest, SandboxFailed)):
            await shop.sh("true", directory="/workspace/missing")

    @pytest.mark.parametrize(
        "changes",
        [
            {"command": ()},
            {"command": ("",)},
            {"command": ("a\0b",)},
            {"command": ("echo", "\ud800")},
            {"environment": {"A B": "c"}},
            {"environment": {"A": "\0"}},
            {"directory": "workspace"},
            {"directory": "/workspace/../etc"},
        ],
    )
    async def test_what_cannot_be_passed_on_is_refused(
        self, shop: Workshop, changes: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidRequest):
            await shop.run(replace(shop.spec("true"), **changes))

    # The workspace

    async def test_files_stay_and_belong_to_its_user(self, shop: Workshop) -> None:
        shop.write("given", "text")
        result = await shop.sh("cat given; echo made >made; mkdir -p deep/er; stat -c %u made")

        assert result.text.startswith("text")
        assert (shop.folder / "made").read_text() == "made\n"
        assert (shop.folder / "made").stat().st_uid == shop.folder.stat().st_uid

    async def test_it_can_be_read_only(self, shop: Workshop) -> None:
        shop.write("given", "text")
        result = await shop.sh("cat given; echo no >given; echo no >new", access=Access.READ)

        assert result.output == b"text"
        assert (shop.folder / "given").read_text() == "text"
        assert not (shop.folder / "new").exists()

    async def test_it_can_be_none(self, shop: Workshop) -> None:
        shop.write("given", "text")
        result = await shop.sh("ls -A; echo kept >new && cat new", access=Access.NONE)

        assert result.output == b"kept\n"
        assert [path.name for path in shop.folder.iterdir()] == ["given"]

    async def test_hidden_names_are_empty_and_stay_as_they_are(self, shop: Workshop) -> None:
        shop.write("secret", "hunter2")
        (shop.folder / "keys").mkdir()
        give(shop.folder / "keys")
        shop.write("keys/private", "hunter2")
        result = await shop.sh(
            "cat secret; ls -A keys; cat keys/private; echo x >keys/new; rm -rf keys secret;"
            " mv keys other; mv secret other",
            hidden=("secret", "keys", "missing"),
        )

        assert b"hunter2" not in result.output + result.errors
        assert (shop.folder / "secret").read_text() == "hunter2"
        assert [path.name for path in (shop.folder / "keys").iterdir()] == ["private"]

    async def test_the_operators_directories_are_shown(self, shop: Workshop, public: Path) -> None:
        (public / "file").write_text("shown")
        binds = (Bind(str(public), "/mnt"),)
        result = await shop.sh("cat /mnt/file; echo no >/mnt/file", binds=binds)

        assert result.output == b"shown"
        assert (public / "file").read_text() == "shown"

    async def test_nothing_else_can_be_written(self, shop: Workshop) -> None:
        result = await shop.sh(
            "for d in / /usr /etc /dev /proc /sys /var; do echo x >$d/probe && echo $d; done"
        )

        assert result.text == ""

    async def test_scratch_space_is_there_and_bounded(self, shop: Workshop) -> None:
        result = await shop.sh(
            "for d in /tmp /dev/shm; do head -c 8M /dev/zero >$d/big; stat -c %s $d/big; done",
            limits=Limits(scratch_bytes=4 * MIB),
        )

        assert result.text.split() == [str(4 * MIB)] * 2

    async def test_there_is_no_network(self, shop: Workshop) -> None:
        result = await shop.sh("grep -c : /proc/net/dev; wc -l </proc/net/route")

        assert result.text.split() == ["1", "1"]  # lo, and the heading

    # Its end

    async def test_what_it_started_ends_with_it(self, shop: Workshop) -> None:
        async with shop.backend.open(shop.shell(DAEMONS)) as sandbox:
            await read_until(sandbox, b"up\n")
            with trio.fail_after(PATIENCE):
                assert (await sandbox.wait()).exit_code == 0
            assert await is_quiet(shop.folder)

    async def test_kill_ends_everything(self, shop: Workshop) -> None:
        async with shop.backend.open(shop.shell(DAEMONS + "sleep 600")) as sandbox:
            await read_until(sandbox, b"up\n")
            with trio.fail_after(PATIENCE):
                await sandbox.kill()
                assert await is_quiet(shop.folder)
                await sandbox.kill()
                ending = await sandbox.wait()

        assert (ending.exit_code, ending.signal, ending.killed) == (137, signal.SIGKILL, True)

    async def test_leaving_ends_everything(self, shop: Workshop) -> None:
        async def leave() -> None:
            async with shop.backend.open(shop.shell(DAEMONS + "sleep 600")) as sandbox:
                await read_until(sandbox, b"up\n")
                raise LookupError

        with pytest.raises(LookupError):
            await leave()

        assert await is_quiet(shop.folder)

    async def test_cancelling_ends_everything(self, shop: Workshop) -> None:
        with trio.CancelScope() as scope:
            async with shop.backend.open(shop.shell(DAEMONS + "sleep 600")) as sandbox:
                await read_until(sandbox, b"up\n")
                scope.cancel()
                await sandbox.wait()

        assert await is_quiet(shop.folder)

    @pytest.mark.parametrize("delay", [0.0, 0.001, 0.005, 0.02, 0.1, 0.4])
    async def test_cancelling_the_start_leaves_nothing(self, shop: Workshop, delay: float) -> None:
        script = "while :; do echo >>beat; sleep 0.01; done"
        with trio.move_on_after(delay):
            async with shop.backend.open(shop.shell(script)):
                await trio.sleep_forever()

        beat = shop.folder / "beat"
        size = beat.stat().st_size if beat.exists() else 0
        await trio.sleep(0.2)
        assert (beat.stat().st_size if beat.exists() else 0) == size
        assert (await shop.sh("echo next")).text == "next"

    async def test_a_signal_reaches_the_command(self, shop: Workshop) -> None:
        script = "trap 'echo heard; exit 5' USR1; echo up; while :; do sleep 0.05; done"
        async with shop.backend.open(shop.shell(script)) as sandbox:
            await read_until(sandbox, b"up\n")
            sandbox.interrupt(signal.SIGUSR1)
            await read_until(sandbox, b"heard\n")
            with trio.fail_after(PATIENCE):
                assert (await sandbox.wait()).exit_code == 5

    async def test_several_may_wait(self, shop: Workshop) -> None:
        codes: list[int] = []
        async with shop.backend.open(shop.shell("read line; exit 4")) as sandbox:

            async def wait() -> None:
                codes.append((await sandbox.wait()).exit_code)

            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(wait)
                    await sandbox.input.aclose()

        assert codes == [4, 4, 4]

    async def test_sandboxes_run_at_once_and_apart(self, shop: Workshop) -> None:
        texts: list[str] = []

        async def one(number: int) -> None:
            result = await shop.sh(f"echo {number} >/tmp/n; sleep 0.2; cat /tmp/n")
            texts.append(result.text)

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(one, number)

        assert sorted(texts) == ["0", "1", "2", "3"]

    # Output

    async def test_reading_slowly_stops_the_writer(self, shop: Workshop) -> None:
        script = "i=0; while :; do head -c 65536 /dev/zero; echo $i >count; i=$((i+1)); done"
        count = shop.folder / "count"
        async with shop.backend.open(shop.shell(script)) as sandbox:
            with trio.fail_after(PATIENCE):
                await _settled(count)
            assert int(count.read_text()) < 16 * 16  # 16 MiB, wherever they wait
            await sandbox.kill()

    async def test_a_gigabyte_goes_through_without_staying(self, shop: Workshop) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seen = 0
        async with shop.backend.open(shop.spec("head", "-c", "1G", "/dev/zero")) as sandbox:
            with trio.fail_after(4 * PATIENCE):
                while piece := await sandbox.output.receive_some(MIB):
                    seen += len(piece)
                assert (await sandbox.wait()).exit_code == 0

        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert seen == GIB
        assert grown < 48 * 1024  # KiB

    # Terminals

    async def test_a_terminal_has_its_size(self, shop: Workshop) -> None:
        script = "while [ \"$(stty size)\" = '0 0' ]; do :; done; stty size; tty; test -t 2"
        result = await shop.sh(script, terminal=TERMINAL)

        assert "30 100" in result.text
        assert "/dev/" in result.text
        assert result.ending.exit_code == 0

    async def test_a_terminal_can_be_resized(self, shop: Workshop) -> None:
        # A container's own terminal gets its first size late, and would take ours for it.
        sized = "until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done"
        script = f"{sized}; trap 'stty size' WINCH; echo up; while :; do sleep 0.05; done"
        async with shop.backend.open(shop.shell(script, terminal=TERMINAL)) as sandbox:
            assert sandbox.errors is None
            await read_until(sandbox, b"up")
            sandbox.resize(TerminalSize(columns=132, rows=50))
            await read_until(sandbox, b"50 132")

    async def test_ctrl_c_ends_the_foreground_job_and_not_the_shell(self, shop: Workshop) -> None:
        async with _shell(shop) as (sandbox, say):
            await say(b"sh -c 'echo up; sleep 600'\n", b"up\r\n")
            await trio.sleep(0.2)
            await say(b"\x03", b"$> ")
            await say(b"echo code=$?\n", b"code=130")
            await sandbox.input.send_all(b"exit 6\n")
            with trio.fail_after(PATIENCE):
                while await sandbox.output.receive_some():
                    pass
                assert (await sandbox.wait()).exit_code == 6

    async def test_ctrl_z_stops_a_job_that_can_be_gone_on_with(self, shop: Workshop) -> None:
        async with _shell(shop) as (_, say):
            await say(b"sh -c 'echo up; read line; echo got-$line'\n", b"up\r\n")
            await trio.sleep(0.2)
            await say(b"\x1a", b"topped")
            await say(b"\njobs\n", b"topped")
            await say(b"fg\n", b"sh -c")
            await say(b"it\n", b"got-it")

    async def test_end_of_file_is_ctrl_d(self, shop: Workshop) -> None:
        spec = shop.shell("echo up; wc -l", terminal=TERMINAL)
        async with shop.backend.open(spec) as sandbox:
            await read_until(sandbox, b"up")
            await sandbox.input.send_all(b"one\n")
            await read_until(sandbox, b"one")
            await sandbox.input.send_all(b"\x04")
            assert (await finish(sandbox)).ending.exit_code == 0

    # What it used

    async def test_usage_is_of_the_command_and_its_children(self, shop: Workshop) -> None:
        script = "sh -c 'i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done'; sleep 0.2"
        usage = (await shop.sh(script)).ending.usage

        assert usage.wall_seconds > 0.2
        assert 0.05 < usage.cpu_seconds < 30


async def _settled(count: Path) -> None:
    """Wait until the number in a file stays what it is."""
    before, looks = "", 0
    while looks < 5 or not before:
        await trio.sleep(0.1)
        now = await trio.Path(count).read_text() if await trio.Path(count).exists() else ""
        before, looks = now, looks + 1 if now == before else 0


Say = Callable[[bytes, bytes], Awaitable[bytes]]


@asynccontextmanager
async def _shell(shop: Workshop) -> AsyncIterator[tuple[Sandbox, Say]]:
    """An interactive shell in a terminal, with a prompt that nothing else prints."""
    spec = shop.spec(
        *("bash", "--norc", "--noprofile", "-i"),
        terminal=TERMINAL,
        environment={"PS1": "$> ", "TERM": "dumb"},
    )
    async with shop.backend.open(spec) as sandbox:

        async def say(words: bytes, answer: bytes) -> bytes:
            await sandbox.input.send_all(words)
            return await read_until(sandbox, answer)

        await read_until(sandbox, b"$> ")
        yield sandbox, say
