"""Reads values that strangers send, each with its check; what is wrong is told by its place."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from appliance.model.errors import InvalidRequest
from appliance.protocols import request_members

LONGEST_TEXT = 10_485_760  # characters
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)  # of a tool or a schema


def text(value: object, at: str, *, longest: int = LONGEST_TEXT, shortest: int = 0) -> str:
    """Raises :exc:`InvalidRequest`, as all of these do."""
    if not isinstance(value, str):
        raise InvalidRequest.at(at, "must be a string")
    if len(value) > longest:
        raise InvalidRequest.at(at, f"must be at most {longest} characters")
    if len(value) < shortest:
        raise InvalidRequest.at(at, f"must be at least {shortest} characters")
    return value


def optional_text(value: object, at: str, *, longest: int = LONGEST_TEXT) -> str:
    """Empty where there is none."""
    return "" if value is None else text(value, at, longest=longest)


def name(value: object, at: str) -> str:
    """The name of a tool or of a schema."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidRequest.at(at, "must be 1 to 128 of a-z, A-Z, 0-9, _ and -")
    return value


def word(value: object, at: str, words: Collection[str]) -> str:
    if not isinstance(value, str) or value not in words:
        raise InvalidRequest.at(at, f"must be one of {', '.join(sorted(words))}")
    return value


def flag(value: object, at: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest.at(at, "must be true or false")
    return value


def integer(value: object, at: str, *, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest.at(at, f"must be an integer from {least} to {most}")
    return value


def number(value: object, at: str, *, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest.at(at, f"must be a number from {least:g} to {most:g}")
    return float(value)


def mapping(value: object, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest.at(at, "must be an object")
    return value


def listed(value: object, at: str, *, most: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequest.at(at, "must be a list")
    if most is not None and len(value) > most:
        raise InvalidRequest.at(at, f"must hold at most {most}")
    return value


class Members:
    """The top-level members of a request; those that are null count as missing."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = members

    def get(self, name: str) -> Any:
        """The decoded value, None where there is none."""
        return request_members.read_member(self._members, name)

    def text(self, name: str, *, longest: int = LONGEST_TEXT, shortest: int = 0) -> str | None:
        value = self.get(name)
        return None if value is None else text(value, name, longest=longest, shortest=shortest)

    def word(self, name: str, words: Collection[str]) -> str | None:
        value = self.get(name)
        return None if value is None else word(value, name, words)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.get(name)
        return default if value is None else flag(value, name)

    def integer(self, name: str, *, least: int, most: int) -> int | None:
        value = self.get(name)
        return None if value is None else integer(value, name, least=least, most=most)

    def number(self, name: str, *, least: float, most: float) -> float | None:
        value = self.get(name)
        return None if value is None else number(value, name, least=least, most=most)

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.get(name)
        return None if value is None else mapping(value, name)
