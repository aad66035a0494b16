"""``sessions.usage*``: what sessions used, by day and model, and call by call."""

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from appliance.config.fields import check_time_zone
from appliance.model import session_scopes as scopes
from appliance.model.errors import InvalidRequest, NotFound
from appliance.model.money import NANO
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.session_keys import SessionKey
from appliance.model.tokens import Scope
from appliance.services.session_usage import Days, Latency, SessionUse, Sums, Use, today
from appliance.storage.session_rows import Session
from appliance.transports.rpc.fields import AgentIdText, SessionKeyText
from appliance.transports.rpc.method import Method, MethodCall, Params, Result
from appliance.transports.rpc.sessions_keys import session_key

_MILLISECOND = 1_000_000  # ns
_USUAL_DAYS = 30
_RANGES = {"7d": 7, "30d": 30, "90d": 90, "1y": 365, "all": 3650}
_OFFSET = re.compile(r"(?:UTC)?(?P<sign>[+-])(?P<hours>\d{1,2})(?::?(?P<minutes>[0-5]\d))?")
_MOST_OFFSET = 14 * 3600
Text = Annotated[str, Meta(max_length=64)]


class SessionsUsageParams(Params, frozen=True):
    key: SessionKeyText | None = None
    agent_id: AgentIdText | None = None
    agent_scope: Literal["all"] | None = None
    creator_key: Text | None = None
    start_date: Annotated[Text, Meta(description="As 2026-11-21; 30 days back if left out.")] = ""
    end_date: Annotated[Text, Meta(description="The last day; today if left out.")] = ""
    mode: Literal["utc", "gateway", "specific"] = "utc"
    range: Literal["7d", "30d", "90d", "1y", "all"] | None = None
    group_by: Literal["instance", "family"] | None = None
    include_historical: bool = False
    utc_offset: Text | None = None
    time_zone: Text | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    include_context_weight: bool = False


class SessionsUsageResult(Result, frozen=True):
    """Money in units of the gateway's currency."""

    updated_at: int
    start_date: str
    end_date: str
    currency: str
    sessions: list[dict[str, Any]]
    totals: dict[str, Any]
    aggregates: dict[str, Any]


class SessionsTimeseriesParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None


class SessionsTimeseriesResult(Result, frozen=True):
    session_id: str
    points: list[dict[str, Any]]


class SessionsLogsParams(Params, frozen=True):
    key: SessionKeyText
    agent_id: AgentIdText | None = None
    limit: Annotated[int, Meta(ge=1, le=2**53 - 1, description="At most 1000 are told.")] = 200


class SessionsLogsResult(Result, frozen=True):
    logs: list[dict[str, Any]]


async def usage(call: MethodCall[SessionsUsageParams]) -> SessionsUsageResult:
    params = call.params
    now = call.services.clock()
    found = await call.services.session_usage.usage(
        call.awake,
        _days(params, now),
        key=None if params.key is None else session_key(call, params.key, agent=params.agent_id),
        agent=None if params.agent_scope == "all" else params.agent_id,
        limit=params.limit,
    )
    return SessionsUsageResult(
        updated_at=to_ms(now),
        start_date=found.start.isoformat(),
        end_date=found.end.isoformat(),
        currency=found.currency,
        sessions=[_session(one) for one in found.sessions],
        totals=_totals(found.all.sums),
        aggregates={
            "messages": _messages(found.all),
            "tools": {"totalCalls": found.all.sums.tool_calls, "uniqueTools": 0, "tools": []},
            "byModel": _by_model(found.all),
            "byProvider": _by_provider(found.all),
            "byAgent": _named(found.by_agent, "agentId"),
            "byChannel": _named(found.by_channel, "channel"),
            "latency": _latency(found.all.latency),
            "dailyLatency": _daily_latency(found.all),
            "modelDaily": _daily_models(found.all),
            "daily": [
                {
                    "date": day.isoformat(),
                    "tokens": use.sums.tokens,
                    "cost": use.sums.cost / NANO,
                    "messages": sum(use.said.values()),
                    "toolCalls": use.sums.tool_calls,
                    "errors": use.sums.errors,
                }
                for day, use in sorted(found.all.days.items())
            ],
        },
    )


async def timeseries(call: MethodCall[SessionsTimeseriesParams]) -> SessionsTimeseriesResult:
    key, session = await _found(call, call.params.key, call.params.agent_id)
    points = await call.services.session_usage.timeseries(call.awake, key, session)
    return SessionsTimeseriesResult(
        session_id=session.id,
        points=[
            {
                "timestamp": to_ms(point.at),
                "input": point.input,
                "output": point.output,
                "cacheRead": point.cache_read,
                "cacheWrite": point.cache_write,
                "totalTokens": point.tokens,
                "cost": point.cost / NANO,
                "cumulativeTokens": point.all_tokens,
                "cumulativeCost": point.all_cost / NANO,
            }
            for point in points
        ],
    )


async def logs(call: MethodCall[SessionsLogsParams]) -> SessionsLogsResult:
    key, session = await _found(call, call.params.key, call.params.agent_id)
    lines = await call.services.session_usage.logs(
        call.awake, key, session, limit=min(call.params.limit, 1_000)
    )
    shown = []
    for line in lines:
        one = {"timestamp": to_ms(line.at), "role": line.role, "content": line.text}
        if line.tokens is not None:
            one["tokens"] = line.tokens
        shown.append(one)
    return SessionsLogsResult(logs=shown)


async def _found(call: MethodCall[Any], text: str, agent: str | None) -> tuple[SessionKey, Session]:
    key = session_key(call, text, agent=agent)
    session = (await call.awake.sessions()).find(key)
    if session is None:
        raise NotFound(f"No session found: {key.short}")
    return key, session


def _days(params: SessionsUsageParams, now: datetime) -> Days:
    shift = _shift(params, now)
    last = _date(params.end_date, "endDate") or today(now, shift)
    first = _date(params.start_date, "startDate")
    if first is None:
        count = _USUAL_DAYS if params.range is None else _RANGES[params.range]
        first = last - timedelta(days=count - 1)
    return Days.of(first, last, shift=shift)


def _shift(params: SessionsUsageParams, now: datetime) -> int:
    """Seconds ahead of UTC; those of today for every day of a zone that changes."""
    if params.time_zone is not None:
        try:
            check_time_zone(params.time_zone)
        except ValueError as exc:
            raise InvalidRequest.at("timeZone", str(exc)) from None
        offset = now.astimezone(ZoneInfo(params.time_zone)).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())
    if params.mode != "specific" or params.utc_offset is None:
        return 0
    match = _OFFSET.fullmatch(params.utc_offset)
    seconds = 0
    if match is not None:
        seconds = int(match["hours"]) * 3600 + int(match["minutes"] or 0) * 60
    if match is None or seconds > _MOST_OFFSET:
        raise InvalidRequest.at("utcOffset", "is not an offset", "write it as UTC+2 or UTC-5:30")
    return seconds if match["sign"] == "+" else -seconds


def _date(text: str, field: str) -> date | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest.at(field, "is not a day", "write it as 2026-11-21") from None
    if not 1970 < found.year < 2200:
        raise InvalidRequest.at(field, "is out of range")
    return found


def _session(one: SessionUse) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "key": one.key.short,
        "agentId": one.key.agent,
        "chatType": scopes.chat_type(one.key).value,
        "usage": _use(one),
    }
    if one.channel:
        shown["channel"] = one.channel
    if one.use.models:
        provider, model = max(one.use.models, key=lambda name: one.use.models[name].tokens)
        shown |= {"modelProvider": provider, "model": model}
    session = one.session
    if session is not None:
        shown |= {"sessionId": session.id, "updatedAt": to_ms(session.updated_at)}
        if session.label is not None:
            shown["label"] = session.label
        for name in ("chatType", "origin"):
            if name in session.facts:
                shown[name] = session.facts[name]
    return shown


def _use(one: SessionUse) -> dict[str, Any]:
    use = one.use
    days = sorted(use.days.items())
    shown: dict[str, Any] = {
        **_totals(use.sums),
        "activityDates": [day.isoformat() for day, _ in days],
        "dailyBreakdown": [
            {
                "date": day.isoformat(),
                "tokens": part.sums.tokens,
                "cost": part.sums.cost / NANO,
            }
            for day, part in days
        ],
        "dailyMessageCounts": [{"date": d.isoformat(), **_messages(part)} for d, part in days],
        "dailyLatency": _daily_latency(use),
        "dailyModelUsage": _daily_models(use),
        "messageCounts": _messages(use),
        "modelUsage": _by_model(use),
        "latency": _latency(use.latency),
    }
    if one.session is not None:
        shown["sessionId"] = one.session.id
    if use.first_ns is not None and use.last_ns is not None:
        shown["firstActivity"] = use.first_ns // _MILLISECOND
        shown["lastActivity"] = use.last_ns // _MILLISECOND
        shown["durationMs"] = shown["lastActivity"] - shown["firstActivity"]
    return shown


def _totals(sums: Sums) -> dict[str, Any]:
    costs = [part / NANO for part in sums.costs]
    return {
        "input": sums.input,
        "output": sums.output,
        "cacheRead": sums.cache_read,
        "cacheWrite": sums.cache_write,
        "totalTokens": sums.tokens,
        "totalCost": sums.cost / NANO,
        "inputCost": costs[0],
        "outputCost": costs[1],
        "cacheReadCost": costs[2],
        "cacheWriteCost": costs[3],
        "missingCostEntries": sums.unpriced,
    }


def _messages(use: Use) -> dict[str, int]:
    user, assistant = use.said.get("user", 0), use.said.get("assistant", 0)
    results = use.said.get("tool", 0) + use.said.get("toolResult", 0)
    return {
        "total": sum(use.said.values()),
        "user": user,
        "assistant": assistant,
        "toolCalls": use.sums.tool_calls,
        "toolResults": results,
        "errors": use.sums.errors,
    }


def _by_model(use: Use) -> list[dict[str, Any]]:
    return [
        {"provider": provider, "model": model, "count": sums.requests, "totals": _totals(sums)}
        for (provider, model), sums in _largest(use.models.items())
    ]


def _by_provider(use: Use) -> list[dict[str, Any]]:
    providers: dict[str, list[dict[str, Any]]] = {}
    for one in _by_model(use):
        providers.setdefault(one["provider"], []).append(one)
    return [
        {
            "provider": provider,
            "count": sum(one["count"] for one in models),
            "totals": {
                name: sum(one["totals"][name] for one in models) for name in models[0]["totals"]
            },
        }
        for provider, models in providers.items()
    ]


def _named(groups: Mapping[str, Sums], name: str) -> list[dict[str, Any]]:
    return [{name: group, "totals": _totals(sums)} for group, sums in _largest(groups.items())]


def _largest(groups: Iterable[tuple[Any, Sums]]) -> list[tuple[Any, Sums]]:
    return sorted(groups, key=lambda pair: pair[1].tokens, reverse=True)


def _latency(latency: Latency) -> dict[str, Any]:
    """``p95Ms`` is the slowest: the books keep sums, not every call's time."""
    if not latency.count:
        return {"count": 0, "avgMs": 0, "p95Ms": 0, "minMs": 0, "maxMs": 0}
    slowest = (latency.slowest_ns or 0) // _MILLISECOND
    return {
        "count": latency.count,
        "avgMs": latency.total_ns // latency.count // _MILLISECOND,
        "p95Ms": slowest,
        "minMs": (latency.fastest_ns or 0) // _MILLISECOND,
        "maxMs": slowest,
    }


def _daily_latency(use: Use) -> list[dict[str, Any]]:
    return [
        {"date": day.isoformat(), **_latency(part.latency)}
        for day, part in sorted(use.days.items())
        if part.latency.count
    ]


def _daily_models(use: Use) -> list[dict[str, Any]]:
    return [
        {
            "date": day.isoformat(),
            "provider": provider,
            "model": model,
            "tokens": sums.tokens,
            "cost": sums.cost / NANO,
            "count": sums.requests,
        }
        for day, part in sorted(use.days.items())
        for (provider, model), sums in part.models.items()
    ]


METHODS: tuple[Method, ...] = (
    Method(
        name="sessions.usage",
        summary="Tell what sessions used, by day and by model",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=SessionsUsageParams,
        result=SessionsUsageResult,
        handler=usage,
    ),
    Method(
        name="sessions.usage.timeseries",
        summary="Tell how the use of a session grew",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=SessionsTimeseriesParams,
        result=SessionsTimeseriesResult,
        handler=timeseries,
    ),
    Method(
        name="sessions.usage.logs",
        summary="Read a session's messages with what they used",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=SessionsLogsParams,
        result=SessionsLogsResult,
        handler=logs,
    ),
)
