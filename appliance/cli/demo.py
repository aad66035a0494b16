"""``openclawmu demo``: a gateway with one tenant and a small model, to try at once."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
from rich.panel import Panel

from appliance.cli.gateway import OPERATOR, Started
from appliance.cli.output import stdout
from appliance.cli.parts import Setup
from appliance.cli.serve import run
from appliance.model.errors import AlreadyExists
from appliance.services.tickets import LONGEST_TTL

TENANT = "demo"
# Enough to play for a day, and a limit that can be seen at work.
_QUOTAS = {"requests_per_minute": 60, "tokens_per_day": 1_000_000}

_CURL = """\
curl -sN {url}/v1/chat/completions \\
  -H 'Authorization: Bearer {token}' \\
  -H 'Content-Type: application/json' \\
  -d '{{"model": "openclaw", "stream": true, \
"messages": [{{"role": "user", "content": "Say hello in one short sentence."}}]}}'"""

_HONESTY = (
    "The built-in model has 135 million parameters. It proves that the whole path works; "
    "it does not know things and is no assistant. docs/providers.md: a real one in one line."
)


@click.command(
    help="Serve on a scratch directory, make the tenant 'demo', print how to talk to it."
)
@click.option("--bind", metavar="HOST:PORT", help="Where to listen (default 127.0.0.1:18789).")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the state here; without it, it is gone when the demo ends.",
)
def demo(bind: str | None, state_dir: Path | None) -> None:
    with _directory(state_dir) as path:
        setup = Setup(state_dir=path, bind=bind, environ=os.environ)
        run(setup, partial(_introduce, kept=state_dir))


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    scratch = Path(tempfile.mkdtemp(prefix="openclawmu-demo-"))
    try:
        yield scratch / "state"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _introduce(started: Started, *, kept: Path | None) -> None:
    token = await _token(started)
    out = stdout()
    out.print(Panel.fit(f"Tenant [bold]{TENANT}[/] at {started.url}", title="OpenClawMU demo"))
    # Plain lines, so that a terminal's copy gets them as they are.
    click.echo(f"\nToken (shown this once):\n{token}\n")
    click.echo(
        f"Paste this into another terminal:\n\n{_CURL.format(url=started.url, token=token)}\n"
    )
    ticket = await started.tickets.issue(OPERATOR, TENANT, ttl=LONGEST_TTL)
    click.echo("Open a terminal in the browser (the link works once, for 15 minutes):")
    click.echo(f"{started.url}/login?ticket={ticket.text}&next=/terminal")
    click.echo(f"Later, sign in with the token at {started.url}/terminal\n")
    if started.new_state is not None and not started.new_state.was_given:
        click.echo(f"Admin key (shown this once):\n{started.new_state.admin_key.text}\n")
    click.echo(f"All routes: {started.url}/docs")
    click.echo(f"State: {kept or 'a scratch directory, removed at the end'}; stop with Ctrl-C.")
    click.echo(f"\n{_HONESTY}")


async def _token(started: Started) -> str:
    """A token of the demo tenant, which is made if this directory has none."""
    try:
        created = await started.tenants.create(
            OPERATOR, tenant_id=TENANT, name="Demo", quotas=_QUOTAS
        )
    except AlreadyExists:
        minted = await started.tenants.create_token(OPERATOR, TENANT, label="demo")
        return minted.text
    return created.token_text
