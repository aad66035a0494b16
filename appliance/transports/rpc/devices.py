"""Methods of devices."""

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.devices_shapes import (
    DevicePairApproveResult,
    DevicePairListResult,
    DevicePairRejectResult,
    DevicePairRemoveResult,
    DevicePairRenameResult,
    DeviceParams,
    DeviceRenameParams,
    DeviceTokenRevokeParams,
    DeviceTokenRevokeResult,
    DeviceTokenRotateParams,
    DeviceTokenRotateResult,
    DeviceView,
    PairDecisionParams,
)
from appliance.transports.rpc.method import Method, MethodCall, NoParams


async def pair_list(call: MethodCall[NoParams]) -> DevicePairListResult:
    return DevicePairListResult.of(await call.services.devices.list(call.awake))


async def pair_approve(call: MethodCall[PairDecisionParams]) -> DevicePairApproveResult:
    request_id = call.params.request_id
    device = await call.services.devices.approve(
        call.awake, call.caller, request_id, held=call.client.scopes
    )
    return DevicePairApproveResult(request_id=request_id, device=DeviceView.of(device))


async def pair_reject(call: MethodCall[PairDecisionParams]) -> DevicePairRejectResult:
    request = await call.services.devices.reject(call.awake, call.caller, call.params.request_id)
    return DevicePairRejectResult(request_id=request.request_id, device_id=request.subject_id)


async def pair_remove(call: MethodCall[DeviceParams]) -> DevicePairRemoveResult:
    await call.services.devices.remove(call.awake, call.caller, call.params.device_id)
    return DevicePairRemoveResult(device_id=call.params.device_id)


async def pair_rename(call: MethodCall[DeviceRenameParams]) -> DevicePairRenameResult:
    params = call.params
    label = await call.services.devices.rename(
        call.awake, call.caller, params.device_id, params.label
    )
    return DevicePairRenameResult(device_id=params.device_id, label=label)


async def token_rotate(call: MethodCall[DeviceTokenRotateParams]) -> DeviceTokenRotateResult:
    params = call.params
    issued = await call.services.devices.credentials.rotate(
        call.awake,
        call.caller,
        params.device_id,
        params.role,
        scopes=params.scopes,
        held=call.client.scopes,
        connection=call.client.id,
    )
    return DeviceTokenRotateResult.of(issued)


async def token_revoke(call: MethodCall[DeviceTokenRevokeParams]) -> DeviceTokenRevokeResult:
    params = call.params
    revoked_at_ms = await call.services.devices.credentials.revoke(
        call.awake, call.caller, params.device_id, params.role
    )
    return DeviceTokenRevokeResult(
        device_id=params.device_id, role=params.role, revoked_at_ms=revoked_at_ms
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="device.pair.list",
        summary="List the devices, and what waits for a decision",
        scope=OperatorScope.PAIRING,
        needs=Scope.READ,
        result=DevicePairListResult,
        handler=pair_list,
    ),
    Method(
        name="device.pair.approve",
        summary="Grant what a device asks for",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=PairDecisionParams,
        result=DevicePairApproveResult,
        handler=pair_approve,
        audited="device.pair",
    ),
    Method(
        name="device.pair.reject",
        summary="Refuse what a device asks for",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=PairDecisionParams,
        result=DevicePairRejectResult,
        handler=pair_reject,
        audited="device.pair.reject",
    ),
    Method(
        name="device.pair.remove",
        summary="Forget a device and its tokens, and end its connections",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=DeviceParams,
        result=DevicePairRemoveResult,
        handler=pair_remove,
        audited="device.unpair",
    ),
    Method(
        name="device.pair.rename",
        summary="Give a device a name of your own",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=DeviceRenameParams,
        result=DevicePairRenameResult,
        handler=pair_rename,
        audited="device.rename",
    ),
    Method(
        name="device.token.rotate",
        summary="Replace a device's token; the new one is shown once",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=DeviceTokenRotateParams,
        result=DeviceTokenRotateResult,
        handler=token_rotate,
        audited="device.token.rotate",
    ),
    Method(
        name="device.token.revoke",
        summary="End a device's token and its connections",
        scope=OperatorScope.PAIRING,
        needs=Scope.MANAGE,
        params=DeviceTokenRevokeParams,
        result=DeviceTokenRevokeResult,
        handler=token_revoke,
        audited="device.token.revoke",
    ),
)
