"""The forwarder that leads from a sandbox's loopback to its door.

It runs in a network of its own, so that its port is free; the socket lies
where the test says.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, SHUT_WR, socket

import pytest

from appliance.sandboxes import forwarding as module
from appliance.sandboxes.base import EGRESS_SOCKET, SandboxUnavailable
from appliance.sandboxes.forwarding import EGRESS_ENVIRONMENT, forwarding

ALONE = [
    *("bwrap", "--die-with-parent", "--unshare-net", "--unshare-pid"),
    *("--dev-bind", "/", "/", "--proc", "/proc", "--"),
]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _has_bubblewrap() -> bool:
    with suppress(OSError):
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    return False


pytestmark = pytest.mark.skipif(not _has_bubblewrap(), reason="bubblewrap does not run here")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    """A server that sends back in capitals what it was sent, once that has ended."""
    path = tmp_path / "egress.sock"
    listener = socket(AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer(client: socket) -> None:
        with client:
            received = b""
            while data := client.recv(65536):
                received += data
            client.sendall(received.upper())
            client.shutdown(SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listener.accept()[0]]).start()

    server = threading.Thread(target=serve)
    server.start()
    yield path
    listener.shutdown(2)
    listener.close()
    server.join()


@pytest.fixture(params=["socat", "python"])
def run(request: pytest.FixtureRequest, door: Path) -> Run:
    if request.param == "socat" and shutil.which("socat") is None:
        pytest.skip("socat is not installed")

    def run(*command: str, script: str = "") -> "subprocess.CompletedProcess[str]":
        command = command or (sys.executable, "-c", textwrap.dedent(script))
        wrapped = forwarding(command, prefer_socat=request.param == "socat")
        inside = [each.replace(EGRESS_SOCKET, str(door)) for each in wrapped]
        return subprocess.run(
            [*ALONE, *inside], capture_output=True, text=True, timeout=60, check=False
        )

    return run


CLIENT = """
import socket, sys, threading
def ask(data):
    with socket.create_connection(("127.0.0.1", 3128)) as client:
        threading.Thread(target=lambda: (client.sendall(data), client.shutdown(1))).start()
        received = b""
        while piece := client.recv(65536):
            received += piece
        return received
"""


def test_what_is_sent_to_loopback_comes_to_the_door_and_back(run: Run) -> None:
    done = run(script=CLIENT + "print(ask(b'hello'))")

    assert (done.stdout, done.stderr, done.returncode) == ("b'HELLO'\n", "", 0)


def test_much_passes_in_both_directions_and_at_once(run: Run) -> None:
    done = run(
        script=CLIENT
        + """
data = bytes(range(97, 120)) * 200_000
found = []
threads = [threading.Thread(target=lambda: found.append(ask(data))) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
print(len(found), all(each == data.upper() for each in found))
"""
    )

    assert (done.stdout, done.stderr) == ("8 True\n", "")


def test_the_command_ends_as_it_would_without(run: Run) -> None:
    assert run("sh", "-c", "exit 7").returncode == 7
    assert run("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert run("sh", "-c", "echo $0 $#", "a b", "").stdout == "a b 1\n"
    missing = run("no-such-program")
    assert missing.returncode == 127
    assert "no-such-program" in missing.stderr


def test_the_command_has_no_children_and_ignores_no_signals_it_did_not_ask_for(run: Run) -> None:
    done = run(
        script="""
        import os, signal
        try: print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError: print("none")
        status = open("/proc/self/status").read()
        ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
        print([each for each in (signal.SIGINT, signal.SIGQUIT) if ignored >> each - 1 & 1])
        """
    )

    # Whoever starts the tests in the background has them ignored already.
    inherited = [
        each for each in (signal.SIGINT, signal.SIGQUIT) if signal.getsignal(each) is signal.SIG_IGN
    ]
    assert done.stdout.splitlines() == ["none", str(inherited)]


def test_a_pipe_is_preserved(run: Run) -> None:
    # Were SIGPIPE ignored, "yes" would complain.
    done = run("sh", "-c", "yes | head -n 1")

    assert (done.stdout, done.stderr) == ("y\n", "")


def test_the_forwarder_holds_no_output_open(run: Run) -> None:
    # subprocess.run reads until everybody has closed it.
    assert run("sh", "-c", "exec >&- 2>&-; exit 0").returncode == 0


def test_where_nothing_leads_out_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_program", lambda _: False)

    with pytest.raises(SandboxUnavailable, match="socat"):
        forwarding(["true"])


def test_programs_are_told_of_the_proxy_under_every_name() -> None:
    assert {"http_proxy", "HTTPS_PROXY", "NODE_USE_ENV_PROXY"} <= EGRESS_ENVIRONMENT.keys()
    assert set(EGRESS_ENVIRONMENT.values()) == {
        "http://127.0.0.1:3128",
        "localhost,127.0.0.1,::1",
        "1",
        "/run/egress-certificates.pem",
    }
    assert os.environ.get("http_proxy") != EGRESS_ENVIRONMENT["http_proxy"]
