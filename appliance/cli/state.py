"""Finding the state directory, for the few commands that touch it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from appliance.cli.exits import CommandFailed, Exit
from appliance.storage.state import TENANTS

CONFIG = "config.yaml"
_DEFAULT = "~/.openclaw"


def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--state-dir`` to a command; it receives ``state_dir`` as a path."""
    return click.option(
        "--state-dir",
        envvar="OPENCLAW_STATE_DIR",
        default=_DEFAULT,
        show_default=True,
        show_envvar=True,
        callback=_expanded,
        help="Where the gateway keeps everything.",
    )(command)


def require_state(path: Path) -> None:
    """Refuse to go on where ``init`` has not been: opening the directory would make it."""
    # Beside a `serve --config FILE` the directory holds no config of its own.
    if not ((path / CONFIG).is_file() or (path / TENANTS).is_dir()):
        text = f"{path} is not a state directory; `openclawmu init` makes one"
        raise CommandFailed(text, Exit.NOT_FOUND)


def _expanded(_ctx: click.Context, _param: click.Parameter, value: str) -> Path:
    return Path(value).expanduser()
