"""The words that wake a tenant's devices."""

from collections.abc import Sequence

from msgspec.structs import replace

from appliance.model.callers import Caller
from appliance.model.errors import InvalidRequest
from appliance.services import pairing
from appliance.services.audit import AuditTrail
from appliance.services.events import Audience
from appliance.services.pairing import TenantWithPairings
from appliance.storage.paired import MOST_TRIGGERS

DEFAULT_TRIGGERS = ("openclaw", "claude", "computer")
LONGEST_TRIGGER = 64  # characters


class VoiceWake:
    def __init__(self, *, audit: AuditTrail) -> None:
        self._audit = audit

    async def triggers(self, tenant: TenantWithPairings) -> tuple[str, ...]:
        paired = await pairing.read(tenant)
        return paired.triggers or DEFAULT_TRIGGERS

    async def set(
        self, tenant: TenantWithPairings, caller: Caller, triggers: Sequence[str]
    ) -> tuple[str, ...]:
        """Listen for ``triggers`` from now on, for the usual ones if there are none.

        On disk, and told to everybody, when this returns. Raises
        :exc:`InvalidRequest` for too many or too long ones.
        """
        wanted = _parse(triggers)
        async with pairing.changing(tenant) as file:
            async with self._audit.action(
                caller, "voicewake.set", tenant=tenant.id, details={"triggers": list(wanted)}
            ):
                await file.save(replace(file.current, triggers=wanted or None))
            # Within the lock: two changes are told in the order they were made.
            in_force = wanted or DEFAULT_TRIGGERS
            payload = {"triggers": list(in_force)}
            tenant.events.publish("voicewake.changed", payload, audience=Audience.EVERYONE)
        return in_force


def _parse(triggers: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(filter(None, (trigger.strip() for trigger in triggers))))
    if len(wanted) > MOST_TRIGGERS:
        raise InvalidRequest.at("triggers", f"are more than {MOST_TRIGGERS}", "send fewer")
    for trigger in wanted:
        if len(trigger) > LONGEST_TRIGGER or not trigger.isprintable():
            raise InvalidRequest.at(
                "triggers", f"hold one that is not 1 to {LONGEST_TRIGGER} printable characters"
            )
    return wanted
