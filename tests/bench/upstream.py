"""The model API behind everything: fixed answers, as fast as this machine can give them.

nginx where it is installed. Otherwise a small Trio server (also
``python -m tests.bench.upstream PORT``), which is slower: figures taken with it
say so. Both look only at the path: ``/json/v1`` answers with one completion,
``/sse/v1`` with a whole stream, each as OpenAI's chat completions and, below
``/messages``, as Anthropic's messages.
"""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.bench.answers import ANSWER, MESSAGES_ANSWER, MESSAGES_STREAM, STREAM
from tests.bench.processes import (
    Cores,
    MeasurementFailed,
    clean_environment,
    find_program,
    free_port,
    running,
    wait_for_port,
)

JSON_PATH = "/json/v1"
STREAM_PATH = "/sse/v1"
_ROUTE = "/chat/completions"
_MESSAGES = "/messages"
_LARGEST_REQUEST = 1 << 20

# One process without a master: it keeps the caller's user id, so it can read the
# scratch directory whoever starts it. `error_page 405` turns the POST into the
# GET that the static file module accepts.
_NGINX = """\
daemon off; master_process off; pid {home}/nginx.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile off; tcp_nodelay on; output_buffers 1 64k;
  open_file_cache max=16 inactive=1h;
  keepalive_timeout 300s; keepalive_requests 1000000000;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {home}/answers;
    location = {json}{route} {{ error_page 405 =200 /answer.json; try_files /answer.json =404; }}
    location = {sse}{route} {{ error_page 405 =200 /stream.txt; try_files /stream.txt =404; }}
    location = {json}{messages} {{ error_page 405 =200 /said.json; try_files /said.json =404; }}
    location = {sse}{messages} {{ error_page 405 =200 /events.txt; try_files /events.txt =404; }}
    location ~ ^/(answer|said)[.]json$ {{ internal; types {{}} default_type application/json; }}
    location ~ ^/(stream|events)[.]txt$ {{ internal; types {{}} default_type text/event-stream; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    port: int
    kind: str  # "nginx", or "trio" where nginx is missing

    def path(self, *, stream: bool) -> str:
        return (STREAM_PATH if stream else JSON_PATH) + _ROUTE


def nginx_config(home: Path, port: int) -> str:
    return _NGINX.format(
        home=home, port=port, json=JSON_PATH, sse=STREAM_PATH, route=_ROUTE, messages=_MESSAGES
    )


@asynccontextmanager
async def serving_answers(scratch: Path, cores: Cores) -> AsyncIterator[Upstream]:
    port = free_port()
    home = scratch / "upstream"
    kind, command = prepare(home, port)
    environment = clean_environment(home)
    log = scratch / "upstream.log"
    async with running(command, log=log, core=cores.load, environment=environment) as server:
        await wait_for_port(port, server)
        yield Upstream(port, kind)


def prepare(home: Path, port: int) -> tuple[str, list[str]]:
    """Write what the server needs below ``home``; return its kind and how to start it."""
    answers = home / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    (answers / "answer.json").write_bytes(ANSWER)
    (answers / "stream.txt").write_bytes(STREAM)
    (answers / "said.json").write_bytes(MESSAGES_ANSWER)
    (answers / "events.txt").write_bytes(MESSAGES_STREAM)
    try:
        nginx = find_program("nginx")
    except MeasurementFailed:
        return "trio", [sys.executable, "-m", "tests.bench.upstream", str(port)]
    config = home / "nginx.conf"
    config.write_text(nginx_config(home, port))
    return "nginx", [nginx, "-p", str(home), "-c", str(config)]


def _answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_ANSWERS = {
    JSON_PATH + _ROUTE: _answer("application/json", ANSWER),
    STREAM_PATH + _ROUTE: _answer("text/event-stream", STREAM),
    JSON_PATH + _MESSAGES: _answer("application/json", MESSAGES_ANSWER),
    STREAM_PATH + _MESSAGES: _answer("text/event-stream", MESSAGES_STREAM),
}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def converse(stream: trio.abc.Stream) -> None:
    """Answer one connection until it ends."""
    buffer = b""
    try:
        async for data in stream:
            buffer += data
            head, end, rest = buffer.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if not end or len(rest) < int(length[1] if length else 0):
                if len(buffer) > _LARGEST_REQUEST:
                    return
                continue
            buffer = b""  # nobody here pipelines
            path = head.split(b" ", 2)[1].decode()
            await stream.send_all(_ANSWERS[path])
    except trio.BrokenResourceError:
        return


async def _serve(port: int) -> None:
    await trio.serve_tcp(converse, port, host="127.0.0.1", backlog=1024)


if __name__ == "__main__":
    trio.run(_serve, int(sys.argv[1]))
