"""Limits of one tenant. None is unlimited, 0 is none at all."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from appliance.model.errors import FieldError, InvalidRequest
from appliance.model.money import format_amount, parse_amount
from appliance.model.spelling import nearest

_MOST = 2**53 - 1  # what every JSON reader can hold
_MOST_ERRORS = 50
_QUOTED = 80  # characters of a key in a message


@dataclass(frozen=True, slots=True)
class Quotas:
    """Every limit of CONTRACT §6. Costs are nano-units of the billing currency."""

    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    cost_per_day: int | None = None
    cost_per_month: int | None = None
    soft_tokens_per_day: int | None = None
    soft_tokens_per_month: int | None = None
    soft_cost_per_day: int | None = None
    soft_cost_per_month: int | None = None
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    tokens_per_minute: int | None = None
    concurrent_sessions: int | None = None
    concurrent_requests: int | None = None
    disk_bytes: int | None = None
    sandbox_cpu_percent: int | None = None
    sandbox_memory_mb: int | None = None
    sandbox_pids: int | None = None
    sandbox_disk_mb: int | None = None
    terminals: int | None = None
    cron_jobs: int | None = None
    channels: int | None = None

    def merged(self, changes: Mapping[str, int | None]) -> "Quotas":
        """These quotas with ``changes`` (as :func:`parse_quotas` returns them) on top."""
        return replace(self, **dict(changes))


QUOTA_KEYS = tuple(field.name for field in fields(Quotas))
COST_KEYS = frozenset(key for key in QUOTA_KEYS if "cost" in key)


def parse_quotas(raw: Mapping[str, object], *, path: str = "quotas") -> dict[str, int | None]:
    """Read quotas as people write them; keys not named are not in the answer.

    Raises :exc:`InvalidRequest` with one field error for each bad entry.
    """
    parsed: dict[str, int | None] = {}
    errors: list[FieldError] = []
    for key, value in raw.items():
        if len(errors) >= _MOST_ERRORS:
            break  # looking for what each of a thousand keys may have meant takes seconds
        field = f"{path}.{key[:_QUOTED]}"
        if key not in QUOTA_KEYS:
            near = nearest(key, QUOTA_KEYS)
            remedy = f"did you mean {near!r}?" if near else f"valid keys: {', '.join(QUOTA_KEYS)}"
            errors.append(FieldError(field, "unknown key", remedy))
            continue
        try:
            parsed[key] = _limit(key, value)
        except ValueError as exc:
            errors.append(FieldError(field, str(exc), "use null for unlimited, 0 for none"))
    if errors:
        detail = "; ".join(f"{e.field}: {e.reason} ({e.remedy})" for e in errors)
        raise InvalidRequest(detail, fields=errors)
    return parsed


def render_quotas(quotas: Quotas) -> dict[str, str | int | None]:
    """The quotas as they appear in JSON and YAML: costs are decimals in quotes."""
    return {key: render_limit(key, getattr(quotas, key)) for key in QUOTA_KEYS}


def render_limit(key: str, value: int | None) -> str | int | None:
    return format_amount(value) if value is not None and key in COST_KEYS else value


def _limit(key: str, value: object) -> int | None:
    if value is None:
        return None
    if key in COST_KEYS:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError('a cost is a decimal in quotes, such as "50.00"')
        return parse_amount(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number or null")  # noqa: TRY004 - one error type for one cause
    if not 0 <= value <= _MOST:
        raise ValueError(f"must lie between 0 and {_MOST}")
    return value
