"""An MCP server of a few lines, without any library, that behaves as its first argument says.

It runs inside sandboxes with the system's Python, so it imports nothing of ours.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = Any
MODE = sys.argv[1] if len(sys.argv) > 1 else "good"
PICTURE = (  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOLS: list[Json] = [
    {
        "name": "echo",
        "description": "Says it again",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "annotations": {"readOnlyHint": True},
    },
    {"name": "where", "description": "Says where it runs", "inputSchema": {"type": "object"}},
    {"name": "fail", "inputSchema": {"type": "object"}},
    {"name": "refuse", "inputSchema": {"type": "object"}},
    {"name": "picture", "inputSchema": {"type": "object"}},
    {"name": "hang", "inputSchema": {"type": "object"}},
    {"name": "die", "inputSchema": {"type": "object"}},
    {"name": "huge", "inputSchema": {"type": "object"}},
    {"name": "large", "inputSchema": {"type": "object"}},
    {"name": "flood", "inputSchema": {"type": "object"}},
    {"name": "twice", "inputSchema": {"type": "object"}},
    {"name": "ask", "inputSchema": {"type": "object"}},
    {"name": "grow", "inputSchema": {"type": "object"}},
    {"name": "cancelled", "inputSchema": {"type": "object"}},
]
told: list[Json] = []


def say(message: Json) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(number: Json, result: Json) -> None:
    say({"jsonrpc": "2.0", "id": number, "result": result})


def words(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}]}


def where(number: Json, given: Json) -> None:
    names = sorted(path.name for path in Path().iterdir())
    facts = {"cwd": str(Path.cwd()), "files": names, "mode": os.environ.get("MODE")}
    answer(number, words(json.dumps(facts)))


def refuse(number: Json, given: Json) -> None:
    say({"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": "I will not"}})


def picture(number: Json, given: Json) -> None:
    answer(number, {"content": [{"type": "image", "data": PICTURE, "mimeType": "image/png"}]})


def huge(number: Json, given: Json) -> None:
    sys.stdout.write('{"jsonrpc": "2.0", "result": {"content": [')
    for _ in range(16384):  # a gigabyte
        sys.stdout.write("x" * 65536)


def flood(number: Json, given: Json) -> None:
    while True:
        say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}})


def twice(number: Json, given: Json) -> None:
    answer(number, words("first"))
    answer(number, words("second"))
    answer(77777, words("nobody asked"))


def ask(number: Json, given: Json) -> None:
    params = {"messages": [], "maxTokens": 1}
    say({"jsonrpc": "2.0", "id": "m", "method": "sampling/createMessage", "params": params})
    reply = json.loads(sys.stdin.readline())
    answer(number, words("refused" if "error" in reply else "granted"))


def grow(number: Json, given: Json) -> None:
    TOOLS.append({"name": "grown", "inputSchema": {"type": "object"}})
    say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    answer(number, words("grown"))


CALLS: dict[str, Callable[[Json, Json], object]] = {
    "echo": lambda number, given: answer(number, words(given.get("text", ""))),
    "where": where,
    "fail": lambda number, _: answer(number, {**words("it did not work"), "isError": True}),
    "refuse": refuse,
    "picture": picture,
    "hang": lambda number, given: None,
    "die": lambda number, given: os._exit(3),
    "huge": huge,
    "large": lambda number, given: answer(number, words("x" * 2_000_000)),
    "flood": flood,
    "twice": twice,
    "ask": ask,
    "grow": grow,
    "cancelled": lambda number, given: answer(number, words(json.dumps(told))),
}


def begin() -> None:
    """What it does before anybody says a word."""
    if MODE == "hang":
        time.sleep(3600)
    if MODE == "slow":
        time.sleep(1)
    if MODE == "dead":
        sys.exit("no such database")
    if MODE == "huge":
        sys.stdout.write("x" * 50_000_000)
    while MODE == "flood":
        sys.stdout.write('{"jsonrpc": "2.0", "method": "notifications/message"}\n')
    if MODE == "garbage":
        print("Welcome!\n{}\n[1]\n\x00\xff{{{{\nnull")
        print('{"jsonrpc": "2.0", "id": 1}\n' + "[" * 100_000)
    print("starting", file=sys.stderr, flush=True)


def main() -> None:
    begin()
    for line in sys.stdin:
        message = json.loads(line)
        method, number = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if method == "initialize":
            answer(
                number,
                {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "fake", "version": "1"},
                },
            )
        elif method == "tools/list":
            answer(number, {"tools": TOOLS})
        elif method == "tools/call":
            CALLS[params["name"]](number, params.get("arguments") or {})
        elif method == "notifications/cancelled":
            told.append(params.get("requestId"))


if __name__ == "__main__":
    main()
