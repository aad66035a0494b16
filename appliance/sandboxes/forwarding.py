"""How a command inside a sandbox finds the way out: a forwarder on its own loopback.

Programs are told of a proxy by address and port, not by the path of a Unix
socket. So before the command, and beside it, something listens on
127.0.0.1:3128 and leads to the socket: socat where it is installed, else a few
lines of Python. The command then takes the place of what started the
forwarder, so its process id, its terminal, its signals and its exit code are
its own.
"""

import os
from collections.abc import Mapping, Sequence

from appliance.sandboxes.base import EGRESS_CERTIFICATES, EGRESS_SOCKET, SandboxUnavailable

PORT = 3128

_PROXY = f"http://127.0.0.1:{PORT}"
_LOCAL = "localhost,127.0.0.1,::1"
# Each program has a name of its own for the same two facts.
EGRESS_ENVIRONMENT: Mapping[str, str] = {
    "http_proxy": _PROXY,
    "https_proxy": _PROXY,
    "all_proxy": _PROXY,
    "HTTP_PROXY": _PROXY,
    "HTTPS_PROXY": _PROXY,
    "ALL_PROXY": _PROXY,
    "no_proxy": _LOCAL,
    "NO_PROXY": _LOCAL,
    "NODE_USE_ENV_PROXY": "1",
    "SSL_CERT_FILE": EGRESS_CERTIFICATES,
    "CURL_CA_BUNDLE": EGRESS_CERTIFICATES,
    "REQUESTS_CA_BUNDLE": EGRESS_CERTIFICATES,
    "NODE_EXTRA_CA_CERTS": EGRESS_CERTIFICATES,
    "GIT_SSL_CAINFO": EGRESS_CERTIFICATES,
    "PIP_CERT": EGRESS_CERTIFICATES,
    "CARGO_HTTP_CAINFO": EGRESS_CERTIFICATES,
    "DENO_CERT": EGRESS_CERTIFICATES,
    "AWS_CA_BUNDLE": EGRESS_CERTIFICATES,
}

_SHELL = "/bin/sh"
_SOCAT = "/usr/bin/socat"
_SETSID = "/usr/bin/setsid"
_PYTHON = "/usr/bin/python3"

# Twice removed from the command, in a session of its own, and silent: a
# program that waits for all its children does not wait for this one, Ctrl-C
# and Ctrl-Z at the terminal do not reach it, and it holds no pipe open.
# /proc/net/tcp tells when it listens, which needs no program but the shell.
_WITH_SOCAT = f"""\
(setsid socat -t 3600 -b 65536 \
TCP-LISTEN:{PORT},bind=127.0.0.1,reuseaddr,backlog=128,fork,max-children=1000 \
UNIX-CONNECT:{EGRESS_SOCKET} </dev/null >/dev/null 2>&1 &)
listens() {{
  while read -r _ local _ state _; do
    case "$local $state" in *:{PORT:04X}\\ 0A) return 0 ;; esac
  done </proc/net/tcp
  return 1
}}
tries=0
until listens; do
  tries=$((tries + 1))
  if [ $tries -gt 500 ]; then echo "the way out of the sandbox could not be started" >&2; break; fi
  sleep 0.01
done
unset tries
exec "$@"
"""

# It listens before it forks, so nothing has to be waited for. What Python
# ignores (SIGPIPE, SIGXFSZ) the command must not inherit as ignored.
_WITH_PYTHON = f"""\
import os, select, signal, socket, sys
MOST = 65536
def relay(listener):
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    pairs = {{}}  # descriptor -> [socket, its peer, bytes for it, its peer has ended]
    def close(side):
        for each in (side[0], side[1]):
            pairs.pop(each.fileno(), None)
            each.close()
    def watch(side):
        peer = pairs[side[1].fileno()]
        wanted = select.EPOLLOUT if side[2] else 0
        if not peer[2] and not peer[3]:
            wanted |= select.EPOLLIN
        poll.modify(side[0], wanted)
    def accept():
        inner = listener.accept()[0]
        outer = socket.socket(socket.AF_UNIX)
        try:
            outer.connect("{EGRESS_SOCKET}")
        except OSError:
            inner.close()
            outer.close()
            return
        for one, other in ((inner, outer), (outer, inner)):
            one.setblocking(False)
            pairs[one.fileno()] = [one, other, b"", False]
            poll.register(one, select.EPOLLIN)
    def serve(side, event):
        peer = pairs[side[1].fileno()]
        if event & select.EPOLLOUT and side[2]:
            side[2] = side[2][side[0].send(side[2]):]
            if not side[2] and side[3]:
                side[0].shutdown(socket.SHUT_WR)
        if event & (select.EPOLLIN | select.EPOLLHUP) and not peer[2] and not peer[3]:
            data = side[0].recv(MOST)
            peer[2], peer[3] = data, not data
            if data:
                peer[2] = data[peer[0].send(data):]
            else:
                peer[0].shutdown(socket.SHUT_WR)
        if event & select.EPOLLERR or (side[3] and peer[3] and not side[2] and not peer[2]):
            close(side)
            return
        watch(side)
        watch(peer)
    while True:
        for fd, event in poll.poll():
            if fd == listener.fileno():
                try:
                    accept()
                except OSError:
                    pass
            elif fd in pairs:
                side = pairs[fd]
                try:
                    serve(side, event)
                except BlockingIOError:
                    watch(side)
                    watch(pairs[side[1].fileno()])
                except OSError:
                    close(side)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    listener.bind(("127.0.0.1", {PORT}))
    listener.listen(128)
except OSError:
    sys.stderr.write("the way out of the sandbox could not be started\\n")
else:
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                null = os.open(os.devnull, os.O_RDWR)
                for each in (0, 1, 2):
                    os.dup2(null, each)
                relay(listener)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    listener.close()
for each in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    signal.signal(each, signal.SIG_DFL)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as exc:
    sys.stderr.write("%s: %s\\n" % (sys.argv[1], exc.strerror))
    os._exit(126 if isinstance(exc, PermissionError) else 127)
"""


def forwarding(command: Sequence[str], *, prefer_socat: bool = True) -> Sequence[str]:
    """``command``, with the forwarder started before it.

    Which one is decided here: a sandbox has the machine's own ``/usr``. Raises
    :exc:`SandboxUnavailable` if there is neither.
    """
    if prefer_socat and all(map(_is_program, (_SOCAT, _SETSID, _SHELL))):
        return [_SHELL, "-c", _WITH_SOCAT, "sh", *command]
    if _is_program(_PYTHON):
        return [_PYTHON, "-I", "-S", "-c", _WITH_PYTHON, *command]
    raise SandboxUnavailable(
        "egress.allow lets sandboxes out, and nothing on this machine leads there;"
        " install socat (apt-get install socat) or python3"
    )


def _is_program(path: str) -> bool:
    return os.access(path, os.X_OK)
