"""An MCP server of a few lines, without any library, that behaves as its first argument says.

It runs inside sandboxes with the system's Python, so it imports nothing of ours.
"""

import json
import os
import sys
import time

MODE = sys.argv[1] if len(sys.argv) > 1 else "good"
PICTURE = (  # one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOLS = [
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
told: list = []


def say(message: dict) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(number: object, result: dict) -> None:
    say({"jsonrpc": "2.0", "id": number, "result": result})


def words(text: str) -> dict:
    return {"content": [{"type": "text", "text": text}]}


def call(number: object, name: str, given: dict) -> None:
    if name == "echo":
        answer(number, words(given.get("text", "")))
    elif name == "where":
        facts = {"cwd": os.getcwd(), "files": sorted(os.listdir()), "mode": os.environ.get("MODE")}
        answer(number, words(json.dumps(facts)))
    elif name == "fail":
        answer(number, {**words("it did not work"), "isError": True})
    elif name == "refuse":
        say({"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": "I will not"}})
    elif name == "picture":
        answer(
            number,
            {"content": [{"type": "image", "data": PICTURE, "mimeType": "image/png"}]},
        )
    elif name == "die":
        os._exit(3)
    elif name == "huge":
        piece = "x" * 65536
        sys.stdout.write(
            '{"jsonrpc": "2.0", "id": %s, "result": {"content": [' % json.dumps(number)
        )
        for _ in range(16384):  # a gigabyte
            sys.stdout.write(piece)
        sys.stdout.flush()
    elif name == "large":
        answer(number, words("x" * 2_000_000))
    elif name == "flood":
        while True:
            say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}})
    elif name == "twice":
        answer(number, words("first"))
        answer(number, words("second"))
        answer(77777, words("nobody asked"))
    elif name == "ask":
        say(
            {
                "jsonrpc": "2.0",
                "id": "mine",
                "method": "sampling/createMessage",
                "params": {"messages": [], "maxTokens": 1},
            }
        )
        reply = json.loads(sys.stdin.readline())
        answer(number, words("refused" if "error" in reply else "granted"))
    elif name == "grow":
        TOOLS.append({"name": "grown", "inputSchema": {"type": "object"}})
        say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        answer(number, words("grown"))
    elif name == "cancelled":
        answer(number, words(json.dumps(told)))


def main() -> None:
    if MODE == "hang":
        time.sleep(3600)
    if MODE == "slow":
        time.sleep(1)
    if MODE == "dead":
        sys.exit("no such database")
    if MODE == "huge":
        sys.stdout.write("x" * 50_000_000)
    if MODE == "flood":
        while True:
            sys.stdout.write('{"jsonrpc": "2.0", "method": "notifications/message"}\n')
    if MODE == "garbage":
        print("Welcome!\n{}\n[1]\n\x00\xff{{{{\nnull")
        print('{"jsonrpc": "2.0", "id": 1}\n' + "[" * 100_000)
    print("starting", file=sys.stderr, flush=True)
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
            call(number, params["name"], params.get("arguments") or {})
        elif method == "notifications/cancelled":
            told.append(params.get("requestId"))


if __name__ == "__main__":
    main()
