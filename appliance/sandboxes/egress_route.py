"""Where a sandbox's connections lead: rules, names, addresses, and TLS to servers."""

import ssl
from collections.abc import Sequence
from functools import lru_cache

import trio

from appliance import dialling
from appliance.dialling import AddressRefused, DialFailed, IsAllowed, Resolve
from appliance.model.egress import EgressRule
from appliance.sandboxes.egress_certificates import Authority
from appliance.sandboxes.egress_passage import EgressEnded
from appliance.sandboxes.egress_settings import EgressSettings, Verdict

_DIAL_PATIENCE = 15.0  # seconds, for the name, the address and TLS together
_MOST_DIALS = 8  # of one sandbox at once: the threads that look up names are for all


@lru_cache(maxsize=1)
def server_context() -> ssl.SSLContext:
    """Checks a server against the system's authorities, and speaks HTTP/1.1 with it."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Route:
    """The way out of one sandbox, shared by its connections."""

    def __init__(
        self,
        settings: EgressSettings,
        authority: Authority,
        *,
        resolve: Resolve,
        is_allowed: IsAllowed,
        context: ssl.SSLContext | None,
    ) -> None:
        self.settings = settings
        self.authority = authority
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._context = context
        self._dials = trio.Semaphore(_MOST_DIALS, max_value=_MOST_DIALS)

    def require(self, host: str, port: int) -> Sequence[EgressRule]:
        """The rules for ``host`` at ``port``; raise :exc:`EgressEnded` if there are none."""
        rules = self.settings.rules.matching(host, port)
        if not rules:
            raise EgressEnded(
                Verdict.REFUSED, f"{host} at port {port} is not among the hosts in egress.allow"
            )
        return rules

    async def dial(self, host: str, port: int, *, tls: bool) -> trio.abc.Stream:
        """Connect to a checked address; raise :exc:`EgressEnded`."""
        try:
            with trio.fail_after(_DIAL_PATIENCE):
                async with self._dials:
                    stream = await dialling.open_checked(
                        host, port, resolve=self._resolve, is_allowed=self._is_allowed
                    )
                if not tls:
                    return stream
                return await dialling.secure(stream, host, self._context or server_context())
        except AddressRefused as exc:
            raise EgressEnded(Verdict.REFUSED, f"{host} is refused: {exc}") from exc
        except DialFailed as exc:
            raise EgressEnded(Verdict.FAILED, f"{host}: {exc}", status=502) from exc
        except trio.TooSlowError as exc:
            reason = f"{host} did not answer within {_DIAL_PATIENCE:g} s"
            raise EgressEnded(Verdict.FAILED, reason, status=504) from exc
