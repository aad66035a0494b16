"""What was used and what it cost, by hour, day or month, as rows or as CSV.

A report is a function of the ledgers: asked again for a time that is over, it
is the same to the byte. Calls still under way are not in it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest, SchemaTooNew, TenantBroken, TenantUnknown
from appliance.model.money import format_amount
from appliance.model.periods import SECOND, from_ns, to_ns
from appliance.model.tokens import Scope
from appliance.model.usage import TokenUsage
from appliance.storage.paths import TenantRoot
from appliance.storage.usage import Granularity, GroupBy, TagGroup, UsageRow, read_usage

Choice = TypeVar("Choice", bound=StrEnum)

# Columns are only ever added, at the end: spreadsheets address them by number.
CSV_COLUMNS = (
    "period_start",
    "tenant",
    "group_by",
    "group",
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
    "tool_calls",
    "sandbox_ms",
    "cost",
    "currency",
    "unpriced_requests",
    "estimated_requests",
    "sandbox_cpu_ms",
    "input_audio_tokens",
    "output_audio_tokens",
    "web_searches",
)
_TAG = "tag:"
_TAG_NAME = re.compile(r"[a-z0-9_.:-]{1,64}", re.ASCII)
# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class UsageSums:
    """``cost_nano`` is that of the priced requests; ``usage.estimated`` if any was a guess."""

    requests: int
    usage: TokenUsage
    tool_calls: int
    sandbox_ms: int
    cost_nano: int
    unpriced_requests: int
    estimated_requests: int
    sandbox_cpu_ms: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class UsageLine(UsageSums):
    """What one group of one tenant used in the period that begins at ``period``."""

    period: datetime
    tenant: str
    group: str | None
    currency: str


@dataclass(frozen=True, slots=True)
class UsageTable:
    """``total`` sums the money of lines in ``currency`` only.

    ``unreadable`` names tenants whose ledger is damaged: the table is then
    incomplete.
    """

    start: datetime
    end: datetime
    granularity: Granularity
    group_by: GroupBy | TagGroup | None
    currency: str
    lines: tuple[UsageLine, ...]
    total: UsageSums
    unreadable: tuple[str, ...] = ()


class Roots(Protocol):
    """The directories of the tenants."""

    def tenants(self) -> Sequence[str]: ...
    def tenant_root(self, tenant: str) -> TenantRoot: ...


class UsageReports:
    """Reads the ledgers of tenants that are awake or not; wakes nobody."""

    def __init__(self, *, roots: Roots, currency: Callable[[], str]) -> None:
        self._roots = roots
        self._currency = currency

    async def report(
        self,
        caller: Caller,
        *,
        tenant: str | None,
        start: datetime,
        end: datetime,
        granularity: str = Granularity.DAY,
        group_by: str | None = None,
    ) -> UsageTable:
        """What was used from ``start`` to before ``end``; of all tenants if none is named.

        Raises :exc:`Forbidden`; :exc:`InvalidRequest` for a time without zone, an
        empty span, an unknown granularity or grouping, too many rows;
        :exc:`TenantUnknown`; :exc:`TenantBroken` for the one tenant asked for.
        """
        if tenant is None:
            caller.require_admin()
        else:
            caller.require_access(tenant, Scope.READ)
        span = _Span.of(start, end, granularity, group_by)
        if tenant is not None:
            return self._table(span, await self._lines(tenant, span))
        lines: list[UsageLine] = []
        unreadable: list[str] = []
        for name in self._roots.tenants():
            try:
                lines += await self._lines(name, span)
            except TenantUnknown:
                continue  # removed since the list was made
            except (TenantBroken, SchemaTooNew):
                unreadable.append(name)
        lines.sort(key=lambda line: (line.period, line.tenant))
        return self._table(span, lines, tuple(unreadable))

    def csv(self, table: UsageTable) -> str:
        """The table with stable columns; no cell of it is a formula."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(CSV_COLUMNS)
        group_by = "" if table.group_by is None else table.group_by.value
        writer.writerows(_cells(line, group_by) for line in table.lines)
        return text.getvalue()

    async def _lines(self, tenant: str, span: "_Span") -> list[UsageLine]:
        with self._roots.tenant_root(tenant) as root:
            rows = await read_usage(
                root,
                to_ns(span.start),
                to_ns(span.end),
                granularity=span.granularity,
                group_by=span.group_by,
            )
        return [_line(tenant, row) for row in rows]

    def _table(
        self, span: "_Span", lines: Sequence[UsageLine], unreadable: tuple[str, ...] = ()
    ) -> UsageTable:
        currency = self._currency()
        return UsageTable(
            span.start,
            span.end,
            span.granularity,
            span.group_by,
            currency,
            tuple(lines),
            _total(lines, currency),
            unreadable,
        )


@dataclass(frozen=True, slots=True)
class _Span:
    """What is reported, checked."""

    start: datetime
    end: datetime
    granularity: Granularity
    group_by: GroupBy | TagGroup | None

    @classmethod
    def of(cls, start: datetime, end: datetime, granularity: str, group_by: str | None) -> "_Span":
        for name, moment in (("from", start), ("to", end)):
            if moment.tzinfo is None:
                raise InvalidRequest.at(name, "has no time zone", "end it with Z for UTC")
        if start >= end:
            raise InvalidRequest.at("to", "does not come after from", "ask for a later end")
        return cls(
            start,
            end,
            _choice(Granularity, granularity, "granularity"),
            None if group_by is None else _group(group_by),
        )


def _choice(kind: type[Choice], text: str, field: str) -> Choice:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise InvalidRequest.at(field, "is not a known one", f"use one of {known}") from None


def _group(text: str) -> GroupBy | TagGroup:
    """One of the columns, or ``tag:<name>``."""
    if text.startswith(_TAG):
        name = text.removeprefix(_TAG)
        if _TAG_NAME.fullmatch(name) is None:
            raise InvalidRequest.at("group_by", "names no tag", "write tag:name")
        return TagGroup(name)
    return _choice(GroupBy, text, "group_by")


def _line(tenant: str, row: UsageRow) -> UsageLine:
    return UsageLine(
        period=from_ns(row.start * SECOND),
        tenant=tenant,
        group=row.group,
        currency=row.currency,
        requests=row.requests,
        usage=TokenUsage(
            input=row.input,
            output=row.output,
            cache_read=row.cache_read,
            cache_write=row.cache_write,
            reasoning=row.reasoning,
            input_audio=row.input_audio,
            output_audio=row.output_audio,
            web_searches=row.web_searches,
            estimated=row.estimated_requests > 0,
        ),
        tool_calls=row.tool_calls,
        sandbox_ms=row.sandbox_ms,
        cost_nano=row.cost_nano,
        unpriced_requests=row.unpriced_requests,
        estimated_requests=row.estimated_requests,
        sandbox_cpu_ms=row.sandbox_cpu_ms,
    )


def _total(lines: Iterable[UsageLine], currency: str) -> UsageSums:
    lines = tuple(lines)
    return UsageSums(
        requests=sum(line.requests for line in lines),
        usage=TokenUsage(
            input=sum(line.usage.input for line in lines),
            output=sum(line.usage.output for line in lines),
            cache_read=sum(line.usage.cache_read for line in lines),
            cache_write=sum(line.usage.cache_write for line in lines),
            reasoning=sum(line.usage.reasoning for line in lines),
            input_audio=sum(line.usage.input_audio for line in lines),
            output_audio=sum(line.usage.output_audio for line in lines),
            web_searches=sum(line.usage.web_searches for line in lines),
            estimated=any(line.usage.estimated for line in lines),
        ),
        tool_calls=sum(line.tool_calls for line in lines),
        sandbox_ms=sum(line.sandbox_ms for line in lines),
        cost_nano=sum(line.cost_nano for line in lines if line.currency == currency),
        unpriced_requests=sum(line.unpriced_requests for line in lines),
        estimated_requests=sum(line.estimated_requests for line in lines),
        sandbox_cpu_ms=sum(line.sandbox_cpu_ms for line in lines),
    )


def _cells(line: UsageLine, group_by: str) -> list[str | int]:
    usage = line.usage
    return [
        f"{line.period:%Y-%m-%dT%H:%M:%SZ}",
        line.tenant,
        group_by,
        _harmless(line.group or ""),
        line.requests,
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write,
        usage.reasoning,
        usage.total,
        line.tool_calls,
        line.sandbox_ms,
        format_amount(line.cost_nano),
        line.currency,
        line.unpriced_requests,
        line.estimated_requests,
        line.sandbox_cpu_ms,
        usage.input_audio,
        usage.output_audio,
        usage.web_searches,
    ]


def _harmless(text: str) -> str:
    """Text that a spreadsheet shows and does not run."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
