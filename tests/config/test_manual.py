"""docs/configuration.md is kept true."""

import re
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from appliance.config.checking import is_section, keys_of, kind_of
from appliance.config.loading import parse_config
from appliance.config.overlay import ADMIN_ONLY
from appliance.config.schema import GatewayConfig
from appliance.model.quotas import QUOTA_KEYS

MANUAL = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
_ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def test_the_manual_explains_every_key_and_no_other() -> None:
    explained = {
        key for key in _ROW.findall(MANUAL) if not key.startswith(("env:", "file:", "cred:"))
    }
    assert explained == set(_paths(GatewayConfig))


def test_the_manual_names_every_quota() -> None:
    missing = [key for key in QUOTA_KEYS if f"`{key.removeprefix('soft_')}`" not in MANUAL]
    assert missing == []


def test_the_manual_names_every_key_of_the_operator() -> None:
    section = MANUAL.partition("These keys live in the gateway's file alone:")[2].partition(
        ". In an"
    )[0]
    assert set(re.findall(r"`([^`]+)`", section)) == set(ADMIN_ONLY)


def test_the_examples_of_the_manual_are_valid() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    assert examples
    for example in examples:
        parse_config(example, name="the manual")


def _paths(section: type[msgspec.Struct], above: str = "") -> list[str]:
    """Every key as the manual writes it: ``providers.<name>.dialect``."""
    found: list[str] = []
    for key, info in keys_of(section).items():
        found.append(f"{above}{key}")
        found.extend(_below(info.type, f"{above}{key}"))
    return found


def _below(annotation: Any, path: str) -> list[str]:
    base = kind_of(annotation).base
    if is_section(base):
        return _paths(base, f"{path}.")
    if get_origin(base) is dict:
        return _below(get_args(base)[1], f"{path}.<name>")
    if get_origin(base) is list:
        return _below(get_args(base)[0], f"{path}[]")
    return []
