"""Methods of the words that wake devices."""

from typing import Annotated

from msgspec import Meta

from appliance.model.operator_scopes import OperatorScope
from appliance.model.tokens import Scope
from appliance.transports.rpc.method import Method, MethodCall, NoParams, Params, Result


class VoiceWakeParams(Params, frozen=True):
    triggers: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=32)]


class VoiceWakeResult(Result, frozen=True):
    triggers: tuple[str, ...]


async def get(call: MethodCall[NoParams]) -> VoiceWakeResult:
    return VoiceWakeResult(triggers=await call.services.voicewake.triggers(call.awake))


async def put(call: MethodCall[VoiceWakeParams]) -> VoiceWakeResult:
    triggers = await call.services.voicewake.set(call.awake, call.caller, call.params.triggers)
    return VoiceWakeResult(triggers=triggers)


METHODS: tuple[Method, ...] = (
    Method(
        name="voicewake.get",
        summary="Show the words that wake devices",
        scope=OperatorScope.READ,
        needs=Scope.READ,
        result=VoiceWakeResult,
        handler=get,
    ),
    Method(
        name="voicewake.set",
        summary="Choose the words that wake devices; none for the usual ones",
        scope=OperatorScope.WRITE,
        needs=Scope.MANAGE,
        params=VoiceWakeParams,
        result=VoiceWakeResult,
        handler=put,
        audited="voicewake.set",
    ),
)
