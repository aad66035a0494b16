"""``openclawmu chat``: talk to an agent, one message or many."""

import secrets
import sys
import uuid
from typing import Any

import click
import trio

from appliance.cli.exits import CommandFailed, Exit
from appliance.cli.gateway_client import (
    Events,
    GatewayConnection,
    act_for_option,
    talks_over_websocket,
)
from appliance.cli.output import hint

_PROMPT = "you> "
_AGENT = "openclaw"
_LONGEST = 3600.0  # seconds; the gateway ends a run sooner


@click.command(help="Talk to an agent: one message with -m or from a pipe, else a conversation.")
@click.option("--message", "-m", help="Say this, print the answer, end.")
@click.option("--session", metavar="KEY", help="Go on with this session.")
@click.option("--model", default=_AGENT, show_default=True, help="An agent or a model.")
@act_for_option
@talks_over_websocket
async def chat(
    gateway: GatewayConnection, *, message: str | None, session: str | None, model: str
) -> None:
    if message is None and not _is_terminal():
        message = await _piped()
    key = await _open_session(gateway, session, model)
    if message is not None:
        await _say(gateway, message, key)
        return
    hint(f"Session {key}; an empty line or Ctrl-D ends it.")
    while text := await _next_line():
        await _say(gateway, text, key)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


async def _piped() -> str:
    text: str = await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    if not text.strip():
        raise click.UsageError("nothing came from stdin; say something with -m")
    return text


async def _open_session(gateway: GatewayConnection, session: str | None, model: str) -> str:
    """The key of the session to talk in: a new one unless one is named."""
    key = session or f"cli-{secrets.token_hex(6)}"
    kind, _, rest = model.replace(":", "/", 1).partition("/")
    if kind == _AGENT:
        named = key.startswith(("agent:", "tenant:"))
        return f"agent:{rest}:{key}" if rest and not named else key
    await gateway.call("sessions.patch", {"key": key, "model": model})
    return key


async def _next_line() -> str:
    def ask() -> str:
        try:
            return input(_PROMPT).strip()
        except EOFError:
            return ""

    # Abandoned if we are cancelled: nothing but the terminal can end input().
    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


async def _say(gateway: GatewayConnection, text: str, session: str) -> None:
    run = str(uuid.uuid4())
    answered = False
    with gateway.listening() as events:
        try:
            params = {"sessionKey": session, "message": text, "idempotencyKey": run}
            await gateway.call("chat.send", params)
            with trio.fail_after(_LONGEST):
                await _print_answer(events, run)
            answered = True
        except (CommandFailed, trio.TooSlowError):
            answered = True  # there is nothing to end
            raise
        finally:
            if not answered:  # Ctrl-C: nobody wants the rest
                with trio.move_on_after(1, shield=True):
                    await gateway.tell("chat.abort", {"sessionKey": session, "runId": run})


async def _print_answer(events: Events, run: str) -> None:
    """Print the answer while it arrives; raise :exc:`CommandFailed` unless it is whole."""
    printed = ""
    async for name, payload in events:
        if name != "chat" or not isinstance(payload, dict) or payload.get("runId") != run:
            continue
        printed = _print_more(printed, _text_of(payload.get("message")))
        match payload.get("state"):
            case "final":
                click.echo()
                return
            case "aborted":
                click.echo()
                raise CommandFailed("the answer was stopped")
            case "error":
                click.echo()
                raise _failed(payload)
    click.echo()
    raise CommandFailed("the answer was cut off")


def _print_more(printed: str, text: str | None) -> str:
    """Print what ``text``, the whole answer so far, has more; return what is printed now."""
    if text is None:
        return printed
    if text.startswith(printed):
        click.echo(_harmless(text[len(printed) :]), nl=False)
    else:  # the agent began again, after a tool or with another model
        click.echo("\n" + _harmless(text), nl=False)
    return text


def _text_of(message: Any) -> str | None:
    """The text of a chat message, None if it is none."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(str(part.get("text", "")) for part in parts)


def _failed(payload: dict[str, Any]) -> CommandFailed:
    reason = str(payload.get("errorMessage") or "the answer failed")
    used_up = payload.get("errorKind") == "rate_limit"
    return CommandFailed(reason, Exit.REFUSED if used_up else Exit.FAILURE)


def _harmless(text: str) -> str:
    """Without the control characters by which a model could drive the terminal."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")
