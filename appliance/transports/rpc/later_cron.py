"""``cron.*``, whose engine comes with a later release: scopes and parameters."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.fields import AgentIdText, SessionKeyText
from appliance.transports.rpc.method import Method, NoParams, Params

JobId = Annotated[str, Meta(min_length=1, max_length=128)]
Filter = Annotated[str, Meta(max_length=64)]
Query = Annotated[str, Meta(max_length=1000)]
PageSize = Annotated[int, Meta(ge=1, le=200)]
Offset = Annotated[int, Meta(ge=0)]
Order = Literal["asc", "desc"]


class OfJob(Params, frozen=True, kw_only=True):
    """One of both; older clients say ``jobId``."""

    id: JobId | None = None
    job_id: JobId | None = None


class CronListParams(Params, frozen=True, kw_only=True):
    include_disabled: bool = False
    limit: PageSize | None = None
    offset: Offset = 0
    query: Query | None = None
    enabled: Literal["all", "enabled", "disabled"] | None = None
    schedule_kind: Filter | None = None
    last_run_status: Filter | None = None
    trigger: Filter | None = None
    sort_by: Literal["nextRunAtMs", "updatedAtMs", "name"] | None = None
    sort_dir: Order | None = None
    agent_id: AgentIdText | None = None
    compact: bool = False
    include_delivery_previews: bool = False


class CronAddParams(Params, frozen=True, kw_only=True, forbid_unknown_fields=False):
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    schedule: dict[str, Any]
    payload: dict[str, Any]
    agent_id: AgentIdText | None = None
    session_key: SessionKeyText | None = None


class CronUpdateParams(OfJob, frozen=True, kw_only=True):
    patch: dict[str, Any]


class CronRunParams(OfJob, frozen=True, kw_only=True):
    mode: Literal["due", "force", "if-enabled"] | None = None
    expected_process_instance_id: Filter | None = None


class CronRunsParams(OfJob, frozen=True, kw_only=True):
    agent_id: AgentIdText | None = None
    scope: Literal["job", "all"] | None = None
    run_id: JobId | None = None
    limit: PageSize | None = None
    offset: Offset = 0
    statuses: list[Filter] | None = None
    status: Filter | None = None
    delivery_statuses: list[Filter] | None = None
    delivery_status: Filter | None = None
    query: Query | None = None
    sort_dir: Order | None = None


class ScratchSetParams(OfJob, frozen=True, kw_only=True):
    content: Annotated[str, Meta(max_length=262_144)] | None
    expected_revision: Annotated[int, Meta(ge=0)] | None = None


_READ, _ADMIN = OperatorScope.READ, OperatorScope.ADMIN


def _cron() -> Iterator[Method]:
    entries: tuple[tuple[str, OperatorScope, type[Params], str], ...] = (
        ("cron.list", _READ, CronListParams, "List the jobs"),
        ("cron.get", _READ, OfJob, "Show a job"),
        ("cron.status", _READ, NoParams, "Tell when the next job runs"),
        ("cron.runs", _READ, CronRunsParams, "List the runs of jobs"),
        ("cron.add", _ADMIN, CronAddParams, "Add a job"),
        ("cron.update", _ADMIN, CronUpdateParams, "Change a job"),
        ("cron.remove", _ADMIN, OfJob, "Remove a job"),
        ("cron.run", _ADMIN, CronRunParams, "Run a job now"),
        ("cron.scratch.get", _ADMIN, OfJob, "Read a job's notes"),
        ("cron.scratch.set", _ADMIN, ScratchSetParams, "Write a job's notes"),
    )
    for name, scope, params, summary in entries:
        needs = Scope.READ if scope is _READ else Scope.MANAGE
        yield Method(name=name, summary=summary, scope=scope, needs=needs, params=params)


CRON = tuple(_cron())
