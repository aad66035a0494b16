"""Kinds of arguments: what can be refused before anything is sent."""

from typing import Any

import click

from appliance.model.durations import parse_duration
from appliance.model.errors import InvalidRequest
from appliance.model.ids import parse_tenant_id
from appliance.model.quotas import COST_KEYS, parse_quotas


class TenantId(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return parse_tenant_id(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Duration(click.ParamType[str]):
    """Kept as written: the gateway reads the same notation."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_duration(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        return str(value)


class Quota(click.ParamType[tuple[str, str | int | None]]):
    """``KEY=VALUE``; ``unlimited`` is no limit, 0 is none at all."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | int | None]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals:
            self.fail("write KEY=VALUE, such as requests_per_minute=60", param, ctx)
        limit = self._limit(key, text)
        try:
            parse_quotas({key: limit}, path="--quota")
        except InvalidRequest as exc:
            self.fail(exc.detail, param, ctx)
        return key, limit

    @staticmethod
    def _limit(key: str, text: str) -> str | int | None:
        if text in {"unlimited", "null"}:
            return None
        if key in COST_KEYS or not (text.isascii() and text.isdigit()):
            return text
        return int(text) if len(text) < 20 else text


TENANT = TenantId()
DURATION = Duration()
QUOTA = Quota()
