"""``openclawmu chat``: talk to an agent, one message or many."""

import secrets
from typing import Any

import click
import httpx
import msgspec
import trio

from appliance.cli.client import Gateway, talks_to_gateway
from appliance.cli.exits import CommandFailed
from appliance.cli.output import hint
from appliance.cli.parameters import TENANT

_PATH = "/v1/chat/completions"
_PROMPT = "you> "


@click.command(help="Talk to an agent: one message with -m, otherwise a conversation.")
@click.option("--message", "-m", help="Say this, print the answer, end.")
@click.option("--session", metavar="KEY", help="Go on with this session.")
@click.option("--model", default="openclaw", show_default=True, help="An agent or a model.")
@click.option(
    "--tenant", "act_for", metavar="ID", type=TENANT, help="With the admin key: whose agent."
)
@talks_to_gateway
async def chat(gateway: Gateway, *, message: str | None, session: str | None, model: str) -> None:
    if message is not None:
        await _say(gateway, message, session=session, model=model)
        return
    session = session or f"cli-{secrets.token_hex(6)}"
    hint(f"Session {session}; an empty line or Ctrl-D ends it.")
    while text := await _next_line():
        await _say(gateway, text, session=session, model=model)


async def _next_line() -> str:
    def ask() -> str:
        try:
            return input(_PROMPT).strip()
        except EOFError:
            return ""

    # Abandoned if we are cancelled: nothing but the terminal can end input().
    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


async def _say(gateway: Gateway, text: str, *, session: str | None, model: str) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {} if session is None else {"x-openclaw-session-key": session}
    async with gateway.stream(_PATH, body, headers=headers) as response:
        failure = await _print_answer(response)
    click.echo()
    if failure is not None:
        raise CommandFailed(failure)


async def _print_answer(response: httpx.Response) -> str | None:
    """Print the answer while it arrives; return why it failed, None if it is whole."""
    whole, failure = False, None
    # To the very end, also behind [DONE]: httpx leaves generators about otherwise.
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            whole = True
            continue
        chunk: dict[str, Any] = msgspec.json.decode(data)
        if error := chunk.get("error"):
            failure = str(error.get("message", "the answer failed"))
        for choice in chunk.get("choices", ()):
            piece = (choice.get("delta") or {}).get("content") or ""
            click.echo(_harmless(piece), nl=False)
    return failure if whole or failure else "the answer was cut off"


def _harmless(text: str) -> str:
    """Without the control characters by which a model could drive the terminal."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")
