"""Methods of who is there: presence, heartbeats, the tenant's own identity."""

from typing import Annotated

from msgspec import Meta

from appliance.model.errors import InvalidRequest
from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.tokens import Scope
from appliance.services import heartbeats
from appliance.services.presence_beacons import PresenceEntry
from appliance.transports.rpc.fields import SessionKeyText
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Params, Raw, Result

Short = Annotated[str, Meta(max_length=200)]
ShortList = Annotated[tuple[Short, ...], Meta(max_length=32)]


class SystemEventParams(Params, frozen=True):
    """``roles`` and ``scopes`` are accepted and not believed."""

    text: Annotated[str, Meta(min_length=1, max_length=4_000)]
    device_id: Short | None = None
    instance_id: Short | None = None
    host: Short | None = None
    ip: Short | None = None
    mode: Short | None = None
    version: Short | None = None
    platform: Short | None = None
    device_family: Short | None = None
    model_identifier: Short | None = None
    last_input_seconds: Annotated[float, Meta(ge=0)] | None = None
    reason: Short | None = None
    roles: ShortList | None = None
    scopes: ShortList | None = None
    tags: ShortList | None = None
    session_key: SessionKeyText | None = None
    wake: bool = False


class Done(Result, frozen=True):
    ok: bool


class SetHeartbeatsParams(Params, frozen=True):
    enabled: bool


class SetHeartbeatsResult(Result, frozen=True):
    ok: bool
    enabled: bool


class UserProfile(Result, frozen=True, omit_defaults=False):
    """A tenant is one user to its clients; the mail addresses are its own business."""

    id: str
    display_name: str | None
    created_at: int
    updated_at: int
    avatar_mime: str | None = None
    merged_into: str | None = None
    emails: tuple[str, ...] = ()
    github_identity: None = None
    has_avatar: bool = False


class UsersSelfResult(Result, frozen=True):
    profile: UserProfile


def system_presence(call: MethodCall[NoParams]) -> list[PresenceEntry]:
    return call.services.presence.entries(call.awake)


def system_event(call: MethodCall[SystemEventParams]) -> Done:
    params = call.params
    text = params.text.strip()
    if not text:
        raise InvalidRequest.at("text", "says nothing")
    if params.wake:
        raise InvalidRequest.at("wake", "nothing can be woken in this release", "leave it out")
    session = None if params.session_key is None else call.session_key(params.session_key).short
    seconds = params.last_input_seconds
    presence = call.services.presence
    presence.note(
        call.awake,
        PresenceEntry(
            ts=presence.now_ms(),
            text=text,
            device_id=params.device_id or None,
            instance_id=params.instance_id or None,
            host=params.host or None,
            ip=params.ip or None,
            mode=params.mode or None,
            version=params.version or None,
            platform=params.platform or None,
            device_family=params.device_family or None,
            model_identifier=params.model_identifier or None,
            last_input_seconds=None if seconds is None else round(seconds),
            reason=params.reason or None,
            tags=params.tags,
        ),
        session=session,
    )
    return Done(ok=True)


def last_heartbeat(call: MethodCall[NoParams]) -> dict[str, object] | Raw:
    last = heartbeats.last_heartbeat(call.awake)
    return Raw(b"null") if last is None else dict(last)


def set_heartbeats(call: MethodCall[SetHeartbeatsParams]) -> SetHeartbeatsResult:
    heartbeats.set_heartbeats(call.awake, enabled=call.params.enabled)
    return SetHeartbeatsResult(ok=True, enabled=call.params.enabled)


def users_self(call: MethodCall[NoParams]) -> UsersSelfResult:
    record = call.awake.record
    created = to_ms(record.created_at)
    return UsersSelfResult(
        profile=UserProfile(
            id=record.id,
            display_name=record.name or record.id,
            created_at=created,
            updated_at=created,
        )
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="system-presence",
        summary="List who is connected: an array of presence entries",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=list[PresenceEntry],
        inline=system_presence,
    ),
    Method(
        name="system-event",
        summary="Say something of yourself, or to the agent",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=SystemEventParams,
        result=Done,
        inline=system_event,
    ),
    Method(
        name="last-heartbeat",
        summary="Show how the last heartbeat went; null if there was none",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        inline=last_heartbeat,
    ),
    Method(
        name="set-heartbeats",
        summary="Switch heartbeats on or off while the tenant is awake",
        scope=OperatorScope.ADMIN,
        needs=Scope.MANAGE,
        params=SetHeartbeatsParams,
        result=SetHeartbeatsResult,
        inline=set_heartbeats,
    ),
    Method(
        name="users.self",
        summary="Show the tenant as the one user it is to its clients",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=UsersSelfResult,
        inline=users_self,
    ),
    # A client would pin the key. A tenant has none of its own yet, and the
    # gateway's would be the same for tenants who must not know of each other.
    Method(
        name="gateway.identity.get",
        summary="Show the key that the gateway proves itself with to a tenant",
        scope=OperatorScope.READ,
        needs=Scope.READ,
    ),
)
