"""Identifiers: what a tenant, an agent, a request or a record is called."""

import re
import secrets

TENANT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
AGENT_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def is_tenant_id(text: str) -> bool:
    """Whether ``text`` may name a tenant (and so a directory)."""
    return TENANT_ID.fullmatch(text) is not None


def parse_tenant_id(text: str) -> str:
    """Return ``text`` if it may name a tenant, else raise :exc:`ValueError`."""
    if not is_tenant_id(text):
        raise ValueError(
            "a tenant id is 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit"
        )
    return text


def parse_agent_id(text: str) -> str:
    """Return ``text`` if it may name an agent, else raise :exc:`ValueError`."""
    if AGENT_ID.fullmatch(text) is None:
        raise ValueError(
            "an agent id is 1 to 64 of a-z, 0-9, '_' and '-', starting with a letter or digit"
        )
    return text


def new_id(prefix: str) -> str:
    """Return a fresh id such as ``tok_5f0c…``: 96 random bits, safe in URLs and file names."""
    return f"{prefix}_{secrets.token_hex(12)}"
