"""``openclawmu init``: make a state directory with its configuration and its admin key."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from appliance.cli.client import json_option
from appliance.cli.exits import CommandFailed, failed
from appliance.cli.output import hint, print_json, print_secret
from appliance.cli.state import CONFIG, state_option
from appliance.config.loading import default_config_text
from appliance.config.schema import AdminKeyConfig
from appliance.model.errors import ApplianceError, InvalidRequest
from appliance.model.tokens import AdminKey, stored_digest
from appliance.storage.state import StateDirectory

ADMIN_KEY_VARIABLE = "OPENCLAW_ADMIN_KEY"


@dataclass(frozen=True, slots=True)
class NewState:
    """A configuration that was just written. The text of the key is kept nowhere else."""

    admin_key: AdminKey
    was_given: bool  # by the environment, so whoever starts us knows it


def write_config(
    state: StateDirectory, *, environ: Mapping[str, str], bind: str | None = None
) -> NewState | None:
    """Give ``state`` a ``config.yaml`` and an admin key; None if it has one already.

    ``serve`` calls this for a new directory too. The caller holds the lock.
    Raises :exc:`InvalidRequest` for an admin key in the environment that is none.
    """
    if state.exists(CONFIG):
        return None
    given = key_from(environ)
    key = given or AdminKey.generate()
    label = "first" if given is None else "environment"
    entry = AdminKeyConfig(label=label, hash=stored_digest(key.digest()))
    text = default_config_text(admin_keys=[entry], bind=bind)
    state.write_atomic(CONFIG, text.encode())
    return NewState(key, was_given=given is not None)


def key_from(environ: Mapping[str, str]) -> AdminKey | None:
    """The admin key that the environment fixes, None if it fixes none."""
    text = environ.get(ADMIN_KEY_VARIABLE)
    if not text:
        return None
    key = AdminKey.parse(text)
    if key is None:
        # The text is not repeated: it is a secret, only badly written.
        raise InvalidRequest.at(
            ADMIN_KEY_VARIABLE, "is not an admin key", "write admin: and 8 to 256 characters"
        )
    return key


@click.command(help="Make the state directory and its configuration; print the admin key, once.")
@state_option
@json_option()
def init(state_dir: Path, *, as_json: bool) -> None:
    try:
        with StateDirectory.open(state_dir) as state, state.lock():
            made = write_config(state, environ=os.environ)
    except ApplianceError as exc:
        raise failed(exc) from exc
    if made is None:
        raise CommandFailed(f"{state_dir} has a {CONFIG} already; nothing was changed")
    shown = None if made.was_given else made.admin_key.text
    if as_json:
        print_json({"state_dir": str(state_dir), "admin_key": shown})
        return
    hint(f"Made {state_dir}; the settings are in {state_dir / CONFIG}.")
    if shown is None:
        hint(f"The admin key is the one in {ADMIN_KEY_VARIABLE}.")
    else:
        print_secret("Admin key", shown)
    hint("Start it with: openclawmu serve")
