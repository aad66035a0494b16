"""``channels.status``: which messengers a tenant is connected to. So far there are none."""

from typing import Annotated, Any

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.periods import to_ms
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, MethodCall, Params, Result


class ChannelsStatusParams(Params, frozen=True):
    probe: Annotated[bool, Meta(description="Ask the networks too.")] = False
    timeout_ms: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    channel: Annotated[str, Meta(max_length=64)] | None = None


class ChannelsStatus(Result, frozen=True):
    """Clients look up each map, so an empty one is sent as such."""

    ts: int
    channel_order: list[str]
    channel_labels: dict[str, str]
    channel_detail_labels: dict[str, str]
    channel_system_images: dict[str, str]
    channel_meta: list[dict[str, Any]]
    channels: dict[str, Any]
    channel_accounts: dict[str, list[dict[str, Any]]]
    channel_default_account_id: dict[str, str]
    status_issues: list[str]


async def channels_status(call: MethodCall[ChannelsStatusParams]) -> ChannelsStatus:
    return ChannelsStatus(
        ts=to_ms(call.services.clock()),
        channel_order=[],
        channel_labels={},
        channel_detail_labels={},
        channel_system_images={},
        channel_meta=[],
        channels={},
        channel_accounts={},
        channel_default_account_id={},
        status_issues=[],
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="channels.status",
        summary="Show the channels",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        params=ChannelsStatusParams,
        result=ChannelsStatus,
        handler=channels_status,
    ),
)
