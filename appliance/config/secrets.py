"""References to secrets, and the secrets they stand for.

A config holds ``env:NAME``, ``file:/PATH`` or ``cred:NAME`` (a systemd
credential), so that it can be read, mailed and kept in version control. The
value is fetched when it is needed and never shown in a message.
"""

from collections.abc import Mapping
from pathlib import Path

from appliance.config.fields import check_reference
from appliance.config.text_files import Unreadable, read_text
from appliance.model.errors import ConfigInvalid

LARGEST = 64 * 1024  # bytes


def resolve(
    reference: str,
    *,
    environ: Mapping[str, str],
    credentials_directory: str | None,
    key: str = "",
) -> str:
    """Return the secret that ``reference`` names.

    Raises :exc:`ConfigInvalid` at ``key`` if there is none, if it is empty, or
    if it could not stand in a header; and for a literal secret.
    """
    try:
        check_reference(reference)
    except ValueError as exc:
        raise ConfigInvalid.at(key, str(exc), "write env:NAME, file:/PATH or cred:NAME") from None
    kind, _, name = reference.partition(":")
    match kind:
        case "env":
            secret = _from_environment(name, environ, key)
        case "file":
            secret = _from_file(Path(name), key)
        case _:
            secret = _from_credentials(name, credentials_directory, key)
    if not secret:
        raise ConfigInvalid.at(key, f"{reference} is empty", "put the secret there")
    if not secret.isprintable():
        raise ConfigInvalid.at(
            key, f"{reference} holds control characters", "keep one line of text"
        )
    return secret


def _from_environment(name: str, environ: Mapping[str, str], key: str) -> str:
    value = environ.get(name)
    if value is None:
        raise ConfigInvalid.at(key, f"the environment variable {name} is not set", "set it")
    return value.strip()


def _from_credentials(name: str, directory: str | None, key: str) -> str:
    if not directory:
        raise ConfigInvalid.at(
            key,
            f"there is no systemd credential {name}: CREDENTIALS_DIRECTORY is not set",
            f"add LoadCredential={name}:/PATH to the service, or use env: or file:",
        )
    return _from_file(Path(directory) / name, key)


def _from_file(path: Path, key: str) -> str:
    try:
        return read_text(path, limit=LARGEST).strip()
    except Unreadable as exc:
        raise ConfigInvalid.at(key, f"{path}: {exc}", "one secret a file, as text") from None
